"""Messages and codecs: what crosses the borders between processes."""
