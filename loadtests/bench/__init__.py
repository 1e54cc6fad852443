"""`make bench`: what a session costs through each door, beside the bare model and a server that only echoes."""
