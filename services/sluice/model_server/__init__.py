"""The embedded model server: TensorFlow Serving's API on the TensorFlow runtime, in a process of its own."""
