"""The cases: what each one measures, on what the run shares. Each stands for itself; one that fails stops no other."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from loadtests.bench import load, wrk
from loadtests.bench.load import Load
from loadtests.bench.processes import Child, python, run
from loadtests.bench.results import Sample
from loadtests.bench.stage import THREADS, Gateway, Stage
from loadtests.bench.workload import NARROW, WIDE, Model

BATCHES = (1, 8, 32, 64, 128)
CLIENTS = (1, 8, 32, 64, 128, 256)
OPEN = (100, 10_000, 100_000)
STARTS_A_ROUND = 2
_SESSIONS = 512  # on the gateways of most cases; the largest call steps so many at a time
_GRACE_S = 30

Measure = Callable[[Stage, float], list[Sample]]


@dataclass(frozen=True, slots=True)
class Case:
    """Something to measure, once a round: `measure(stage, seconds)`, which may raise `Failed`."""

    name: str
    group: str
    title: str
    measure: Measure


def all_cases() -> list[Case]:
    """Every case, in the order of the table and of each round."""
    return [*_limits(), *_echoes(), *_http(), *_grpc(), *_websockets(), *_columns(), *_open(), *_wide(), *_single()]


def case(name: str) -> Case:
    """The case of this name."""
    return next(each for each in all_cases() if each.name == name)


def _limits() -> Iterator[Case]:
    for threads, (intra_op, inter_op), words in (
        ("default", (0, 0), "default threads"),
        ("embedded", THREADS, "the server's threads"),
    ):
        for batch in BATCHES:

            def measure(stage: Stage, seconds: float, question: str = f"{intra_op} {inter_op} {batch}") -> list[Sample]:
                return [stage.limit.ask(f"{question} {seconds / 4}")]

            yield Case(f"limit-{threads}-{batch}", "limit", f"bare model, batch {batch}, {words}", measure)


def _echoes() -> Iterator[Case]:
    for clients in (1, 32, 128):

        def measure(stage: Stage, seconds: float, clients: int = clients) -> list[Sample]:
            return [wrk.step_sessions(stage.echo, NARROW, clients, clients, seconds).sample()]

        yield Case(f"echo-{clients}", "echo", f"echo, {_plural(clients, 'client')}", measure)


def _http() -> Iterator[Case]:
    for clients in CLIENTS:
        yield Case(f"http-{clients}", "http", f"HTTP, {_plural(clients, 'client')}", _stepping(NARROW, clients))


def _wide() -> Iterator[Case]:
    yield Case("wide-64", "wide", "HTTP, 64 clients, two LSTM layers of 1,024", _stepping(WIDE, 64))


def _stepping(model: Model, clients: int) -> Measure:
    def measure(stage: Stage, seconds: float) -> list[Sample]:
        gateway = _gateway(stage, model)
        return [
            watched(stage, gateway, model, lambda: wrk.step_sessions(gateway.address, model, clients, clients, seconds))
        ]

    return measure


def _grpc() -> Iterator[Case]:
    for rows, outstanding in ((1, 128), (32, 4), (128, 4)):

        def measure(stage: Stage, seconds: float, rows: int = rows, outstanding: int = outstanding) -> list[Sample]:
            gateway = _gateway(stage, NARROW)
            args = (gateway.grpc, rows, outstanding, seconds)
            return [watched(stage, gateway, NARROW, lambda: _python_load("grpc_load", seconds, *args), rows)]

        sessions = f"{rows * outstanding} sessions"
        yield Case(f"grpc-{rows}", "grpc", f"gRPC stream, {_plural(rows, 'row')} a message, {sessions}", measure)


def _websockets() -> Iterator[Case]:
    for sockets in (64, 128):

        def measure(stage: Stage, seconds: float, sockets: int = sockets) -> list[Sample]:
            gateway = _gateway(stage, NARROW)
            args = (gateway.address, sockets, seconds)
            return [watched(stage, gateway, NARROW, lambda: _python_load("websocket_load", seconds, *args))]

        yield Case(f"websocket-{sockets}", "websocket", f"WebSocket, {sockets} sockets", measure)


def _columns() -> Iterator[Case]:
    for rows in (64, 128):
        for callers in (1, 4):

            def measure(stage: Stage, seconds: float, rows: int = rows, callers: int = callers) -> list[Sample]:
                gateway = _gateway(stage, NARROW)
                wrk.check_columns(gateway.address, NARROW, rows)
                args = (gateway.address, NARROW, callers, rows, seconds)
                return [watched(stage, gateway, NARROW, lambda: wrk.step_columns(*args), rows)]

            title = f"columnar, {rows} rows, {_plural(callers, 'caller')}"
            yield Case(f"columnar-{rows}x{callers}", "columnar", title, measure)


def _open() -> Iterator[Case]:
    for count in OPEN:

        def measure(stage: Stage, seconds: float, count: int = count) -> list[Sample]:
            gateway = stage.gateway(f"gateway-{count}")
            memory = gateway.fill(NARROW, OPEN[0], count)
            # As many clients for every count: of 100 sessions no more than 100 can step at a time.
            args = (gateway.address, NARROW, OPEN[0], count, seconds)
            return [{**watched(stage, gateway, NARROW, lambda: wrk.step_sessions(*args)), **memory}]

        yield Case(f"open-{count}", "open", f"HTTP, {OPEN[0]} clients, {count:,} open sessions", measure)


def _single() -> Iterator[Case]:
    def predict(stage: Stage, seconds: float) -> list[Sample]:
        return [_python_load("predict_load", seconds, stage.backend, seconds).sample()]

    def start(stage: Stage, _seconds: float) -> list[Sample]:
        return [{"ready_s": stage.start_to_ready()} for _ in range(STARTS_A_ROUND)]

    yield Case("predict-1", "latency", "model server alone over gRPC, 1 client", predict)
    yield Case("start", "start", "start to ready", start)


def watched(stage: Stage, gateway: Gateway, model: Model, work: Callable[[], Load], rows: int = 1) -> Sample:
    """A load's figures, with the mean batch and the CPU seconds for 1,000 steps of both servers meanwhile."""
    servers: dict[str, Child] = {"gateway": gateway.process, "model_server": stage.model_server}
    before, cpu_before = gateway.batches(model), {name: server.cpu_s for name, server in servers.items()}
    measured = work()
    after = gateway.batches(model)
    steps, batches = after[0] - before[0], after[1] - before[1]
    cpu = {f"{name}_cpu_s": (server.cpu_s - cpu_before[name]) / steps * 1000 for name, server in servers.items()}
    return {**measured.sample(rows), "mean_batch": steps / batches, **cpu}


def _gateway(stage: Stage, model: Model) -> Gateway:
    gateway = stage.gateway("gateway")
    gateway.have_sessions(model, _SESSIONS if model is NARROW else 64)
    return gateway


def _python_load(module: str, seconds: float, *args: object) -> Load:
    return load.parse(run(python(f"loadtests.bench.{module}", *args), seconds + _GRACE_S))


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")
