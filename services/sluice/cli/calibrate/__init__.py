"""`sluice calibrate`: held-out rows through the gateway, and from their scores a calibration."""
