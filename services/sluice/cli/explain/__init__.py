"""`sluice explain`: what a model takes, how rows are grouped, and what it remembers."""
