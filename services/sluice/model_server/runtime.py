"""Imports TensorFlow and its serving messages, quietly."""

from sluice.log import quiet_import

with quiet_import(keras=False):
    import tensorflow as tf
    from tensorflow.core.protobuf import config_pb2
    from tensorflow_serving.apis import (
        classification_pb2,
        get_model_metadata_pb2,
        get_model_status_pb2,
        inference_pb2,
        model_management_pb2,
        predict_pb2,
        prediction_log_pb2,
        regression_pb2,
    )
    from tensorflow_serving.config import model_server_config_pb2

tf.get_logger().setLevel("ERROR")

__all__ = [
    "classification_pb2",
    "config_pb2",
    "get_model_metadata_pb2",
    "get_model_status_pb2",
    "inference_pb2",
    "model_management_pb2",
    "model_server_config_pb2",
    "predict_pb2",
    "prediction_log_pb2",
    "regression_pb2",
    "tf",
]
