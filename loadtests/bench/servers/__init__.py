"""What the gateway is compared with: the bare model, echoes, and other ways to batch."""
