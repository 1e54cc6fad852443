"""For whoever has a GPU: whether its answers are the CPU's, and which batch sizes are worth allowing."""
