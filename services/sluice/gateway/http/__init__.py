"""HTTP and WebSockets: from bytes to calls of `core`, and from their answers back to bytes."""
