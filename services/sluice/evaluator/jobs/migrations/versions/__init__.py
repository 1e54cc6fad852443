"""One change of the tables a module, each naming the one before it."""
