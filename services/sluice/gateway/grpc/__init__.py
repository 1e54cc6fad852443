"""gRPC: from HTTP/2 frames to calls of `core`, and from their answers back to frames."""
