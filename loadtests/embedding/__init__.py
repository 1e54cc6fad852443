"""What the size of a vocabulary costs."""
