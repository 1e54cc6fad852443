"""The cases: what each one measures, on what the run shares. Each stands for itself; one that fails stops no other."""

from collections.abc import Callable, Iterator

from loadtests.bench.cases.case import Case, Measure, python_load, watched
from loadtests.bench.cases.generation import generation_cases
from loadtests.bench.cases.lengths import length_cases
from loadtests.bench.cases.neighbour import neighbour_cases
from loadtests.bench.cases.recognition import recognition_cases
from loadtests.bench.loads import wrk
from loadtests.bench.loads.load import Load
from loadtests.bench.report.results import Sample
from loadtests.bench.stage import THREADS, Gateway, Stage
from loadtests.bench.workloads.steps import (
    INFER_PATH,
    MEGABYTE,
    NARROW,
    PLAIN,
    PLAIN_SIGNATURE,
    PREDICT_BODY,
    PREDICT_PATH,
    SIGNATURE,
    WIDE,
    Model,
    infer_request,
)

BATCHES = (1, 8, 32, 64, 128)
CLIENTS = (1, 8, 32, 64, 128, 256)
OPEN = (100, 10_000, 100_000)
STARTS_A_ROUND = 2
_SESSIONS = 512  # on the gateways of most cases; the largest call steps so many at a time
_STEPS = (NARROW.name, SIGNATURE)
_CONNECTIONS, _CALLS = 8, 8  # of one gRPC call for each message: so many on each of so many


def all_cases() -> list[Case]:
    """Every case, in the order of the table and of each round."""
    return [
        *_limits(), *_echoes(), *_http(), *_grpc(), *_websockets(), *_columns(), *_open(), *_wide(), *_predict(),
        *_single(), *length_cases(), *generation_cases(), *recognition_cases(),
        *neighbour_cases(),
    ]  # fmt: skip


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
            watched(
                stage,
                gateway,
                (model.name, SIGNATURE),
                lambda: wrk.step_sessions(gateway.address, model, clients, clients, seconds),
            )
        ]

    return measure


def _grpc() -> Iterator[Case]:
    for rows, outstanding in ((1, 128), (32, 4), (128, 4)):

        def measure(stage: Stage, seconds: float, rows: int = rows, outstanding: int = outstanding) -> list[Sample]:
            gateway = _gateway(stage, NARROW)
            args = (gateway.grpc, rows, outstanding, seconds)
            return [watched(stage, gateway, _STEPS, lambda: python_load("loads.grpc_stream", seconds, *args), rows)]

        sessions = f"{rows * outstanding} sessions"
        yield Case(f"grpc-{rows}", "grpc", f"gRPC stream, {_plural(rows, 'row')} a message, {sessions}", measure)


def _websockets() -> Iterator[Case]:
    for sockets in (64, 128):

        def measure(stage: Stage, seconds: float, sockets: int = sockets) -> list[Sample]:
            gateway = _gateway(stage, NARROW)
            args = (gateway.address, sockets, seconds)
            return [watched(stage, gateway, _STEPS, lambda: python_load("loads.websocket", seconds, *args))]

        yield Case(f"websocket-{sockets}", "websocket", f"WebSocket, {sockets} sockets", measure)


def _columns() -> Iterator[Case]:
    for rows in (64, 128):
        for callers in (1, 4):

            def measure(stage: Stage, seconds: float, rows: int = rows, callers: int = callers) -> list[Sample]:
                gateway = _gateway(stage, NARROW)
                wrk.check_columns(gateway.address, NARROW, rows)
                args = (gateway.address, NARROW, callers, rows, seconds)
                return [watched(stage, gateway, _STEPS, lambda: wrk.step_columns(*args), rows)]

            title = f"columnar, {rows} rows, {_plural(callers, 'caller')}"
            yield Case(f"columnar-{rows}x{callers}", "columnar", title, measure)


def _open() -> Iterator[Case]:
    for count in OPEN:

        def measure(stage: Stage, seconds: float, count: int = count) -> list[Sample]:
            gateway = stage.gateway(f"gateway-{count}")
            memory = gateway.fill(NARROW, OPEN[0], count)
            # As many clients for every count: of 100 sessions no more than 100 can step at a time.
            args = (gateway.address, NARROW, OPEN[0], count, seconds)
            return [{**watched(stage, gateway, _STEPS, lambda: wrk.step_sessions(*args)), **memory}]

        yield Case(f"open-{count}", "open", f"HTTP, {OPEN[0]} clients, {count:,} open sessions", measure)


def _predict() -> Iterator[Case]:
    """TensorFlow Serving's Predict, beside servers that only echo and the model server called directly."""
    at_once = f"{_CONNECTIONS * _CALLS} at a time"
    for name, title, measure in (
        ("rest-echo", "echo of predict, 64 clients", _echo(_rest(64), lambda stage: stage.echo)),
        ("rest-64", "predict, HTTP, 64 clients", _predicting(_rest(64))),
        ("grpc-echo", f"gRPC echo, {at_once}", _echo(_unary, lambda stage: stage.grpc_echo)),
        ("grpc-64", f"predict, gRPC, {at_once}", _predicting(_unary, grpc=True)),
        ("direct-1", "predict, model server alone, 1 client", _echo(_threads(1, 1), lambda stage: stage.backend)),
        ("rest-1", "predict, HTTP, 1 client", _predicting(_rest(1))),
        ("grpc-1", "predict, gRPC, 1 client", _predicting(_threads(1, 1), grpc=True)),
        ("echo-1m", "gRPC echo of 1 MiB, 2 at a time", _echo(_threads(2, MEGABYTE), lambda stage: stage.grpc_echo)),
        ("grpc-1m", "predict of 1 MiB, gRPC, 2 at a time", _predicting(_threads(2, MEGABYTE), grpc=True)),
        ("v2-1m", "infer of 1 MiB, v2 binary over HTTP, 2 clients", _predicting(_infer(2, MEGABYTE))),
    ):
        yield Case(f"predict-{name}", "predict", title, measure)


Send = Callable[[str, float], Load]  # to an address, for some seconds


def _echo(send: Send, address: Callable[[Stage], str]) -> Measure:
    return lambda stage, seconds: [send(address(stage), seconds).sample()]


def _predicting(send: Send, *, grpc: bool = False) -> Measure:
    def measure(stage: Stage, seconds: float) -> list[Sample]:
        gateway = stage.gateway("gateway")
        address = gateway.grpc if grpc else gateway.address
        return [watched(stage, gateway, (PLAIN, PLAIN_SIGNATURE), lambda: send(address, seconds))]

    return measure


def _rest(clients: int) -> Send:
    return lambda address, seconds: wrk.call(address, PREDICT_PATH, PREDICT_BODY, clients, seconds)


def _infer(clients: int, values: int) -> Send:
    body, headers = infer_request(values)
    return lambda address, seconds: wrk.call(address, INFER_PATH, body, clients, seconds, headers)


def _unary(address: str, seconds: float) -> Load:
    return python_load("loads.grpc_unary", seconds, address, _CONNECTIONS, _CALLS, seconds)


def _threads(callers: int, values: int) -> Send:
    return lambda address, seconds: python_load("loads.predict", seconds, address, values, callers, seconds)


def _single() -> Iterator[Case]:
    def predict(stage: Stage, seconds: float) -> list[Sample]:
        return [python_load("loads.predict", seconds, stage.backend, "step", 1, seconds).sample()]

    def start(stage: Stage, _seconds: float) -> list[Sample]:
        return [{"ready_s": stage.start_to_ready()} for _ in range(STARTS_A_ROUND)]

    yield Case("predict-1", "latency", "model server alone over gRPC, 1 client", predict)
    yield Case("start", "start", "start to ready", start)


def _gateway(stage: Stage, model: Model) -> Gateway:
    gateway = stage.gateway("gateway")
    gateway.have_sessions(model, _SESSIONS if model is NARROW else 64)
    return gateway


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")
