"""Handwritten digits: a network that knows 0 to 5, and says of everything else that it is none of these (README.md)."""
