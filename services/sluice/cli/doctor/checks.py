"""Asks a model server what can be asked, and tries what cannot: is it there, what does it serve, does it batch, too."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from statistics import median
from time import perf_counter

import grpc
import grpc.aio
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sluice.cli.doctor.finding import Finding
from sluice.cli.doctor.probes import Probe, probe_of
from sluice.gateway.upstream.catalog import Catalog
from sluice.gateway.upstream.client import Backend, NotServed
from sluice.gateway.upstream.served import ServedVersion
from sluice.model_folder import Found
from sluice.policy.batching import BatchingOptions
from sluice.policy.errors import BackendUnavailable, BatchCollision, InputRejected, SluiceError, VersionNotFound

_NOBODY = "sluice-doctor"  # no model has this name
_CALLS = 20
_PAIRS = 10
_LENGTHS = (8, 9)
_LABELS = ("stable", "canary")  # those of TensorFlow Serving's guide; it does not list them
_LARGE_BYTES = 1 << 20
_CLOCK_S = 2.0
_TIMEOUT_S = 10.0


async def examine(address: str, names: Sequence[str], rest: str | None) -> AsyncIterator[Finding]:
    """Everything about the model server at `address`, HOST:PORT, and its models `names`; `rest`: its other port.

    Raises:
        BackendUnavailable: it cannot be reached.
    """
    backend = Backend(address)
    try:
        await backend.reach(_TIMEOUT_S)
        try:
            yield await _latency(backend)
        except SluiceError as error:
            yield Finding("FAIL", "reachable", f"{address} does not answer as TensorFlow Serving does: {error}")
            return
        yield await _health(address)
        yield await _clock(rest)
        if not names:
            words = "none was named, and TensorFlow Serving does not list them: name them with --models or --model"
            yield Finding("-", "models", words)
        catalog = Catalog(backend, lambda: Found(Path(), names), (), lambda _: None, lambda *_: None)
        await catalog.refresh()
        for name in names:
            async for finding in _model(backend, catalog, name):
                yield finding
    finally:
        await backend.close()


async def _latency(backend: Backend) -> Finding:
    taken = [await _answer_s(backend) for _ in range(_CALLS)]
    words = f"{median(taken) * 1000:.1f} ms a call, {max(taken) * 1000:.1f} ms at worst, of {_CALLS}"
    return Finding("ok", "reachable", f"{backend.address} answers: {words}")


async def _answer_s(backend: Backend) -> float:
    before = perf_counter()
    with suppress(NotServed):
        await backend.versions(_NOBODY, _TIMEOUT_S)
    return perf_counter() - before


async def _health(address: str) -> Finding:
    async with grpc.aio.insecure_channel(address, options=[("grpc.default_authority", "localhost")]) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        try:
            status = (await check(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT_S)).status
        except grpc.aio.AioRpcError as error:
            said = f"grpc.health.v1.Health says {error.code().name}"
            return Finding("warn", "health", f"{said}; start TensorFlow Serving with --enable_grpc_healthcheck_service")
    name = health_pb2.HealthCheckResponse.ServingStatus.Name(status)
    return Finding("ok" if name == "SERVING" else "FAIL", "health", f"grpc.health.v1.Health says {name}")


async def _clock(rest: str | None) -> Finding:
    """GRPC tells no time; every HTTP answer has a date, in whole seconds."""
    if rest is None:
        return Finding("-", "clock", "gRPC does not tell the time; --rest HOST:PORT does")
    try:
        async with httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=False) as http:
            told = (await http.get(f"http://{rest}/v1/models/{_NOBODY}")).headers["date"]
        off_s = (parsedate_to_datetime(told) - datetime.now(UTC)).total_seconds()
    except (httpx.HTTPError, httpx.InvalidURL, KeyError, ValueError) as error:
        return Finding("warn", "clock", f"{rest} tells no time: {error!r:.200}")
    if abs(off_s) > _CLOCK_S:
        return Finding("warn", "clock", f"{abs(off_s):.0f} s {'ahead of' if off_s > 0 else 'behind'} this machine's")
    return Finding("ok", "clock", "as this machine's")


async def _model(backend: Backend, catalog: Catalog, name: str) -> AsyncIterator[Finding]:
    model = catalog.models.get(name)
    trouble = catalog.troubles().get(name) or catalog.unreachable
    if model is None or trouble:
        yield Finding("FAIL", name, trouble)
    if model is None or model.newest is None:
        return
    states = ", ".join(f"{each.version} {each.state}" for each in model.statuses)
    yield Finding("ok", name, f"versions: {states}; labels: {await _labels(backend, name)}")
    for served in model.served.values():
        yield _contract(served)
        plain = served.plain.values()
        unranked = sorted(each.name for each in plain if not all(tensor.ranked for tensor in each.inputs.values()))
        if unranked:
            words = f"version {served.version}: {', '.join(unranked)} takes any rank, so that nothing is checked"
            yield Finding("warn", name, f"{words}: a request may end the model server")
    async for finding in _batching(backend, model.newest):
        yield finding


def _contract(served: ServedVersion) -> Finding:
    offers = ", ".join(served.kinds)
    told = f"a contract: {offers}" if served.contract else f"no contract: {offers}, as TensorFlow describes them"
    return Finding("ok", served.model, f"version {served.version} has {told}")


async def _labels(backend: Backend, name: str) -> str:
    found = []
    for label in _LABELS:
        try:
            found.append(f"{label} {await backend.labelled(name, label, _TIMEOUT_S)}")
        except VersionNotFound:
            continue
    return ", ".join(found) or f"neither {' nor '.join(_LABELS)}"


async def _batching(backend: Backend, served: ServedVersion) -> AsyncIterator[Finding]:
    """Whether the server batches, too, which it does not say: batches of two shapes or a limit of rows tell."""
    probe, size = probe_of(served), None
    if probe is None or not probe.uneven:
        words = "batching in the model server was not tried: no signature takes two shapes"
        together = Finding("-", served.model, words)
    else:
        together = await _collision(backend, served, probe)
    if probe is not None:
        size = await _largest(backend, served, probe)
    if probe is None or not _limit(backend, served, probe):  # which is proof, whatever batches of two shapes told
        yield together
    if size is not None:
        yield size


def _limit(backend: Backend, served: ServedVersion, probe: Probe) -> int | None:
    """How many rows the server takes at once, if it has refused more, as one that batches does."""
    return backend.largest.get((served.model, served.version, probe.signature.name, ()))


async def _collision(backend: Backend, served: ServedVersion, probe: Probe) -> Finding:
    name = probe.signature.name
    try:
        for _ in range(_PAIRS):
            await asyncio.gather(*(_predict(backend, served, probe, 1, length) for length in _LENGTHS))
    except BatchCollision:
        return Finding("FAIL", served.model, "the model server batches, too: start it without --enable_batching")
    except SluiceError as error:
        return Finding("-", served.model, f"batching in the model server was not tried: {name} says {error}")
    return Finding(
        "ok", served.model, f"no sign that the model server batches, in {_PAIRS} pairs of two shapes through {name}"
    )


async def _largest(backend: Backend, served: ServedVersion, probe: Probe) -> Finding:
    rows = BatchingOptions().max_rows
    if sum(each.nbytes for each in probe.inputs(1, _LENGTHS[0]).values()) * rows > _LARGE_BYTES:
        return Finding("-", served.model, f"a batch of {rows} rows was not tried: it is large")
    try:
        await _predict(backend, served, probe, 1, _LENGTHS[0])
    except InputRejected as error:
        return Finding("-", served.model, f"a batch of {rows} rows was not tried: made-up rows are refused: {error}")
    try:
        await _predict(backend, served, probe, rows, _LENGTHS[0])
    except BackendUnavailable:
        raise
    except SluiceError as error:
        return Finding("FAIL", served.model, f"a batch of {rows} rows, the gateway's largest, is refused: {error}")
    if largest := _limit(backend, served, probe):
        words = f"the model server batches, too, and takes {largest} rows at once; the gateway sends up to {rows}"
        return Finding("FAIL", served.model, f"{words}: start it without --enable_batching")
    return Finding("ok", served.model, f"a batch of {rows} rows, the gateway's largest, is taken")


async def _predict(backend: Backend, served: ServedVersion, probe: Probe, rows: int, length: int) -> None:
    inputs, name = probe.inputs(rows, length), probe.signature.name
    await backend.predict(served.model, served.version, name, inputs, (), _TIMEOUT_S)
