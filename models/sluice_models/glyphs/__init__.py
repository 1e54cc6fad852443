"""Printed letters: a network that knows three, and says of everything else that it is none of these (README.md)."""
