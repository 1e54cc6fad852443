"""The soak: mixed load for an hour, a model server that is killed now and then, and whether the gateway stays as it was."""
