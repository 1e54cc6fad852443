"""Keras files that are explained, and the command as a function of its arguments."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import keras
import pytest
import structlog
from keras import layers

from sluice.cli.__main__ import main

# Keras 3.15 turns its tensors into arrays in a way that numpy 2.4 wants written differently.
KERAS_ARRAYS = "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.filterwarnings(KERAS_ARRAYS))


class Told(NamedTuple):
    """What a command said. `words` is its standard output with every run of blanks and line breaks as one blank."""

    code: int
    text: str
    error: str

    @property
    def words(self) -> str:
        return " ".join(self.text.split())

    @property
    def reason(self) -> str:
        return " ".join(self.error.split())


def told(*args: object) -> Told:
    """What `sluice` says to these arguments; how this process logs stays as it was."""
    out, err, logging = StringIO(), StringIO(), structlog.get_config()
    try:
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main([*map(str, args)])
    finally:
        structlog.configure(**logging)
    return Told(int(ended.value.code or 0), out.getvalue(), err.getvalue())


@contextmanager
def answering(answer: Callable[[str, bytes], tuple[int, Any] | tuple[int, Any, int]]) -> Iterator[str]:
    """The address of a server that answers with the status and the JSON that `answer` gives for a path and a body.

    Where the JSON is None the answer is a page of HTML; where the status is 0 the connection ends without an answer. A
    third value is when to come again, in seconds.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body, *later = answer(self.path, self.rfile.read(int(self.headers.get("Content-Length", 0))))
            if not status:
                return
            self.send_response(status)
            for seconds in later:
                self.send_header("Retry-After", str(seconds))
            self.end_headers()
            self.wfile.write(b"<html>" if body is None else json.dumps(body).encode())

        do_POST = do_GET

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def explain() -> Callable[..., Told]:
    return partial(told, "explain")


@pytest.fixture(scope="session")
def buckets() -> Callable[..., Told]:
    return partial(told, "buckets")


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of Keras files."""
    folder = tmp_path_factory.mktemp("keras")
    frame = [keras.Input((32, 32, 3)), layers.Conv2D(8, 3, strides=4), layers.GlobalAveragePooling2D()]
    for name, stack in {
        "forecaster": [keras.Input((None, 1), name="temperatures"), layers.LSTM(4, name="hidden"), layers.Dense(1)],
        "clips": [
            layers.Input((3, 32, 32, 3), name="clip"),
            layers.TimeDistributed(keras.Sequential(frame), name="frames"),
            layers.LSTM(16, name="lstm"),
        ],
        "features": [
            layers.Input((3, 32, 32, 3), name="clip"),
            layers.TimeDistributed(keras.Sequential(frame), name="frames"),
        ],
        "stacked": [
            keras.Input(batch_shape=(10, None, 2), name="readings"),
            layers.GRU(8, stateful=True, return_sequences=True, name="gru"),
            layers.SimpleRNN(5, name="simple"),
        ],
        "both_ways": [keras.Input((12, 2)), layers.Bidirectional(layers.GRU(3), name="both")],
        "pictures": [keras.Input((8, 8, 1), name="picture"), layers.Flatten(), layers.Dense(3)],
    }.items():
        keras.Sequential(stack).save(folder / f"{name}.keras")
    return folder
