"""Every call that a client can make, once for all transports: here HTTP and gRPC end and the rules begin."""
