"""`sluice doctor`: what an operator wants to know of a model server before traffic comes."""
