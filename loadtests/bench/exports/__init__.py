"""The models that the cases call, exported once."""
