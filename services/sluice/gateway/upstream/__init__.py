"""The model server as the gateway sees it: how it is called, what it serves, the embedded one as a child."""
