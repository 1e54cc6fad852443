"""Clips of moving shapes: a CNN on every frame, then an LSTM that tells which way the shape goes (README.md)."""
