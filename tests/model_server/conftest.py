"""The model server as a process of its own, called with the official stubs, and the folders of models it serves."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tests.model_server import zoo

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0  # TensorFlow takes its time on a busy machine


class Client:
    """The official stubs on one address, HOST:PORT or unix:PATH."""

    def __init__(self, address: str) -> None:
        quick = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 100)]
        self._channel = grpc.insecure_channel(address, options=quick)
        self.predictions = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(self._channel)

    def predict(
        self,
        model: str = "zoo",
        signature: str = "",
        outputs: tuple[str, ...] = (),
        version: int | None = None,
        **inputs: Any,
    ) -> dict[str, np.ndarray]:
        return arrays(self.predictions.Predict(request(model, signature, outputs, version, **inputs), PATIENCE_S))

    def state(self, model: str) -> dict[int, tuple[str, str]]:
        """Version → (state, error) of a model; nothing where the server knows none."""
        asked = get_model_status_pb2.GetModelStatusRequest()
        asked.model_spec.name = model
        try:
            reply = self.models.GetModelStatus(asked, PATIENCE_S)
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.NOT_FOUND
            return {}
        states = get_model_status_pb2.ModelVersionStatus.State
        return {
            each.version: (states.Name(each.state), each.status.error_message) for each in reply.model_version_status
        }

    def metadata(self, model: str, *fields: str) -> get_model_metadata_pb2.GetModelMetadataResponse:
        asked = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
        asked.model_spec.name = model
        return self.predictions.GetModelMetadata(asked, PATIENCE_S)

    def ready(self, timeout_s: float) -> bool:
        """Whether a call is answered in this time, whatever the answer.

        gRPC's own future for a channel that is ready leaves a thread behind, which a channel that is closed upsets.
        """
        nobody = get_model_status_pb2.GetModelStatusRequest()
        try:
            self.models.GetModelStatus(nobody, timeout_s, wait_for_ready=True)
        except grpc.RpcError as error:
            return error.code() not in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
        return True

    def close(self) -> None:
        self._channel.close()


class Server:
    """One process, `python -m sluice.model_server FLAGS…`, with a socket and two ports of its own."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.port, self.rest_port = free_port(), free_port()
        self.socket = folder / "server.sock"
        self.process = start(
            f"--port={self.port}", f"--rest_api_port={self.rest_port}", f"--grpc_socket_path={self.socket}",
            "--file_system_poll_wait_seconds=0.05", *flags,
        )  # fmt: skip
        self.client = Client(f"unix:{self.socket}")
        self.tcp = Client(f"127.0.0.1:{self.port}")
        self.rest = httpx.Client(base_url=f"http://127.0.0.1:{self.rest_port}", timeout=PATIENCE_S)
        until(lambda: self.process.poll() is not None or self.client.ready(0.2), "the server to listen or to end")
        assert self.process.poll() is None, self.process.communicate()

    def post(self, model: str = "zoo", **body: Any) -> httpx.Response:
        return self.rest.post(f"/v1/models/{model}:predict", json=body)

    def close(self) -> None:
        for each in (self.client, self.tcp, self.rest):
            each.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


def start(*flags: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "sluice.model_server", *flags]
    return subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def request(
    model: str, signature: str = "", outputs: tuple[str, ...] = (), version: int | None = None, **inputs: Any
) -> predict_pb2.PredictRequest:
    made = predict_pb2.PredictRequest(output_filter=outputs)
    made.model_spec.name, made.model_spec.signature_name = model, signature
    if version is not None:
        made.model_spec.version.value = version
    for name, value in inputs.items():
        made.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return made


def arrays(reply: predict_pb2.PredictResponse) -> dict[str, np.ndarray]:
    return {name: tf.make_ndarray(tensor) for name, tensor in reply.outputs.items()}


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def until(holds: Callable[[], object], what: str) -> None:
    """Wait for a condition, with a deadline."""
    deadline, pause = time.monotonic() + PATIENCE_S, threading.Event()
    while not holds():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        pause.wait(0.02)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@contextmanager
def refused(code: str) -> Iterator[None]:
    """The calls inside fail with this gRPC status, and with a sentence."""
    with pytest.raises(grpc.RpcError) as caught:
        yield
    assert (caught.value.code().name, bool(caught.value.details())) == (code, True)


@pytest.fixture(scope="session", autouse=True)
def _no_gpu() -> None:
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models: zoo 2 and 5, nodefault 1."""
    root = tmp_path_factory.mktemp("models")
    zoo.save(root / "zoo" / "2", lambda: zoo.zoo(2))
    zoo.save(root / "zoo" / "5", lambda: zoo.zoo(5))
    zoo.save(root / "nodefault" / "1", zoo.nodefault)
    return root


@pytest.fixture(scope="session")
def server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of `models` that no test changes."""
    running = Server(tmp_path_factory.mktemp("server"), f"--models={models}")
    yield running
    running.close()
