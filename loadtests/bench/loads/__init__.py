"""The load generators, each a process of its own."""
