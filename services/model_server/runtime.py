"""Imports TensorFlow, quietly: its start-up chatter is kept from standard error, which is for our own log."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@contextmanager
def _quiet() -> Iterator[None]:
    """Some of it is written before TensorFlow knows its own log level, straight to the file descriptor."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


with _quiet():
    import tensorflow as tf
    from tensorflow_serving.apis import (
        get_model_metadata_pb2,
        get_model_status_pb2,
        model_pb2,
        predict_pb2,
    )

tf.get_logger().setLevel("ERROR")

__all__ = ["get_model_metadata_pb2", "get_model_status_pb2", "model_pb2", "predict_pb2", "tf"]
