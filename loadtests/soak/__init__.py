"""The soak: mixed load for an hour with a model server that is killed now and then; does the gateway stay as it was?"""
