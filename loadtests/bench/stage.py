"""What the cases of a run share: one model server, gateways in front of it, the echo, the bare model.

Each is started when the first case asks for it, and all are stopped in reverse.
"""

import http.client
import socket
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Self, TypeVar, cast

from loadtests.bench.exports.build import build_models
from loadtests.bench.loads.once import send_once
from loadtests.bench.workloads.steps import NARROW, Model, open_request, step_request
from loadtests.processes import Child, Failed, free_address, python
from sluice.gateway.settings import Settings

Thing = TypeVar("Thing")

_START_S = 60.0
_POLL_S = 0.002
_ROOM = ("--sessions-per-model", "1000000", "--session-idle-s", "86400")
THREADS = tuple(Settings.model_fields[f"{kind}_op_threads"].default for kind in ("intra", "inter"))


class Gateway:
    """A running `sluice serve`, and the sessions that the bench has opened on it: numbers from 0 on, by model."""

    def __init__(self, process: Child, address: str, grpc: str) -> None:
        self.process = process
        self.address = address
        self.grpc = grpc
        self._sessions: dict[Model, int] = {}
        self._filled: dict[int, dict[str, float]] = {}

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body. Raises: OSError: nobody answers."""
        host, _, port = self.address.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def is_ready(self) -> bool:
        self.process.check()
        try:
            return self.get("/readyz")[0] == 200
        except OSError:
            return False

    def have_sessions(self, model: Model, count: int) -> None:
        """Open sessions until there are `count`, each with one step behind it.

        Raises:
            Failed: one was refused.
        """
        missing = range(self._sessions.get(model, 0), count)
        send_once(self.address, (open_request(model, index) for index in missing))
        send_once(self.address, (step_request(model, index) for index in missing))
        self._sessions[model] = max(count, self._sessions.get(model, 0))

    def fill(self, model: Model, warm: int, count: int) -> dict[str, float]:
        """Open sessions until there are `count`; what they took, if they were not open yet.

        The first `warm` of them are not counted: what a gateway allocates once comes with these.
        """
        if count not in self._filled:
            self.have_sessions(model, warm)
            before, began = self.process.resident_bytes, time.perf_counter()
            self.have_sessions(model, count)
            seconds, taken = time.perf_counter() - began, self.process.resident_bytes - before
            more = count - warm
            self._filled[count] = {"bytes_per_session": taken / more, "open_s": seconds} if more else {}
        return self._filled[count]

    def batches(self, model: str, signature: str) -> tuple[float, float]:
        """Rows and batches of a signature that have run so far."""
        counted = self._counted(model, signature)
        return sum(counted("sluice_rows_total")), sum(counted("sluice_batches_total"))

    def elements(self, model: str, signature: str) -> tuple[float, float]:
        """Elements of a signature's sequences that have run so far: real ones, and padding with filler."""
        counted = self._counted(model, signature)
        return sum(counted("sluice_elements_total", 'kind="real"')), sum(
            counted("sluice_elements_total", 'kind="padding"')
        )

    def _counted(self, model: str, signature: str) -> Callable[..., list[float]]:
        """Reads the metrics: what gives the values of a counter's series that have all of some labels."""
        lines = self.get("/metrics")[1].decode().splitlines()
        lane = f'model="{model}"', f'signature="{signature}"'

        def counted(name: str, *labels: str) -> list[float]:
            return [
                float(line.rpartition(" ")[2])
                for line in lines
                if line.startswith(name + "{") and all(label in line for label in (*lane, *labels))
            ]

        return counted


class Stage:
    """The processes of a run. Their logs go to `out`/logs, the models to `out`/models."""

    def __init__(self, out: Path) -> None:
        self._models = out / "models"
        self._logs = out / "logs"
        self._stack = ExitStack()
        self._made: dict[str, object] = {}
        self._sockets = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="sluice-bench-")))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def gateway(self, name: str, *settings: str) -> Gateway:
        """The gateway of this name, started with these flags and ready."""
        assert self.backend
        return self._once(name, lambda: self._ready(self._spawn(name, *settings)))

    def start_to_ready(self) -> float:
        """Seconds from starting one more gateway until it is ready; it is stopped again."""
        assert self.backend
        began = time.perf_counter()
        gateway = self._ready(self._spawn("gateway-started"))
        seconds = time.perf_counter() - began
        gateway.process.stop()
        return seconds

    @property
    def model_server(self) -> Child:
        """The embedded model server, as a gateway starts it, but shared by all gateways of the run."""
        return self._once("model-server", self._model_server)

    @property
    def backend(self) -> str:
        """The model server's address, once a gateway has found all models there."""
        return self._once("backend", self._backend)

    @property
    def echo(self) -> str:
        """The echo's address."""
        return self._once("echo", self._echo)

    @property
    def grpc_echo(self) -> str:
        """The address of gRPC's own server that echoes."""
        return self._once("grpc-echo", self._grpc_echo)

    @property
    def arrival(self) -> tuple[Child, str]:
        """The server that batches in arrival order, and its address."""
        return self._once("arrival", self._arrival)

    @property
    def limit(self) -> Child:
        """The bare narrow model, which is asked line by line."""
        return self._once("limit", self._limit)

    @property
    def models(self) -> Path:
        """The folder of the models, built if need be."""
        return self._once("models", lambda: build_models(self._models))

    def _once(self, name: str, make: Callable[[], Thing]) -> Thing:
        """What `make` makes, the first time; what has failed once fails at once from then on."""
        if name not in self._made:
            try:
                self._made[name] = make()
            except Failed as error:
                self._made[name] = error
        made = self._made[name]
        if isinstance(made, Failed):
            raise made
        return cast("Thing", made)

    def _limit(self) -> Child:
        command = python("loadtests.bench.servers.bare_model", self.models / NARROW.name / "1")
        return self._start("limit", command, talks=True)

    def _model_server(self) -> Child:
        intra_op, inter_op = THREADS
        args = [
            "model-server", f"--models={self.models}", "--port=0", "--rest_api_port=0", "--stop_with_parent=true",
            f"--grpc_socket_path={self._socket}",
            f"--tensorflow_intra_op_parallelism={intra_op}", f"--tensorflow_inter_op_parallelism={inter_op}",
        ]  # fmt: skip
        return self._start("model-server", python("sluice.cli", *args))

    def _backend(self) -> str:
        assert self.model_server
        self._ready(self._spawn("gateway-waiting")).process.stop()
        return f"unix:{self._socket}"

    def _echo(self) -> str:
        address = free_address()
        process = self._start("echo", python("loadtests.bench.servers.echo", address))

        def answers() -> bool:
            process.check()
            try:
                send_once(address, iter([step_request(NARROW, 0)]))
            except Failed:
                return False
            return True

        until(answers, "the echo to answer")
        return address

    def _grpc_echo(self) -> str:
        return self._listening("grpc-echo", "loadtests.bench.servers.grpc_echo")[1]

    def _arrival(self) -> tuple[Child, str]:
        return self._listening("arrival", "loadtests.bench.servers.arrival", self.backend)

    def _listening(self, name: str, module: str, *args: str) -> tuple[Child, str]:
        """A server of the bench's own, once it accepts connections, and its address."""
        address = free_address()
        process = self._start(name, python(module, address, *args))

        def accepts() -> bool:
            process.check()
            host, _, port = address.rpartition(":")
            with socket.socket() as probe:
                return probe.connect_ex((host, int(port))) == 0

        until(accepts, f"{name} to accept connections")
        return process, address

    @property
    def _socket(self) -> Path:
        return self._sockets / "model_server.sock"

    def _spawn(self, name: str, *settings: str) -> Gateway:
        address, grpc = free_address(), free_address()
        args = ["serve", "--backend", f"unix:{self._socket}", "--models", self.models]
        args += ["--http", address, "--grpc", grpc, *_ROOM, *settings]
        return Gateway(self._start(name, python("sluice.cli", *args)), address, grpc)

    def _ready(self, gateway: Gateway) -> Gateway:
        """The gateway when it is ready; if it does not become so, it is stopped."""

        def is_ready() -> bool:
            self.model_server.check()
            return gateway.is_ready()

        try:
            until(is_ready, "a gateway to be ready")
        except Failed:
            gateway.process.stop()
            raise
        return gateway

    def _start(self, name: str, command: list[str], *, talks: bool = False) -> Child:
        child = Child(command, self._logs / f"{name}.log", talks=talks)
        self._stack.callback(child.stop)
        return child


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until a condition holds.

    Raises:
        Failed: it did not in a minute.
    """
    deadline = time.monotonic() + _START_S
    while not condition():
        if time.monotonic() > deadline:
            raise Failed(f"waited {_START_S:g} s for {what}")
        time.sleep(_POLL_S)
