"""The ways of the Python client, measured side by side."""
