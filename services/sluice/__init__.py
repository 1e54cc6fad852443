"""Sluice: a gateway in front of TensorFlow Serving. Each package here is a layer or a process of it."""
