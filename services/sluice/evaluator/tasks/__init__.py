"""What each task asks of a model, which values each row gets for it, and the metrics that are made of these."""
