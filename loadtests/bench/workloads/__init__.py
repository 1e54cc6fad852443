"""What the load generators send: requests, and mixes of lengths."""
