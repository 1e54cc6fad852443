"""Measures the Python client's ways to make the same 1,200 steps, side by side: `python -m loadtests.clients`.

It asks gateways that run, by default those of `make serve`, for steps of the model `temperature`.
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Annotated, Any

import numpy as np
import typer

from sluice.client import AsyncClient, AsyncSession, Client

MODEL, INPUT = "temperature", "temperature"
SESSIONS, STEPS, THREADS = 100, 12, 16
READINGS = np.linspace(15, 25, STEPS, dtype=np.float32)
Step = Callable[[AsyncSession, float], Awaitable[Any]]


def main(
    http: Annotated[str, typer.Option(help="The gateway over HTTP.")] = "http://127.0.0.1:8080",
    grpc: Annotated[str, typer.Option(help="The same over gRPC.")] = "grpc://127.0.0.1:8081",
    rounds: Annotated[int, typer.Option(min=1, help="Every round measures every way once.")] = 3,
) -> None:
    """Print the seconds that each way takes: the least and the median of the rounds."""
    ways = {**_ways("HTTP", http), **_ways("gRPC", grpc)}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, measured in ways.items():
            seconds[name].append(measured())
    for name, found in seconds.items():
        typer.echo(f"{name:55} {min(found):8.2f} {statistics.median(found):8.2f}")


def _ways(door: str, url: str) -> Mapping[str, Callable[[], float]]:
    streams = "WebSockets" if door == "HTTP" else "a stream"
    return {
        f"{door}: one scan": partial(_scan, url),
        f"{door}: {SESSIONS} sessions, step_many": partial(_step_many, url),
        f"{door}: {SESSIONS} sessions, AsyncClient, {streams}": partial(_asynchronous, url, SESSIONS, stream=True),
        f"{door}: {SESSIONS} sessions, AsyncClient": partial(_asynchronous, url, SESSIONS, stream=False),
        f"{door}: {SESSIONS} sessions, Client, {THREADS} threads": partial(_threads, url),
        f"{door}: one session, AsyncClient, {streams}": partial(_asynchronous, url, 1, stream=True),
        f"{door}: one session, AsyncClient": partial(_asynchronous, url, 1, stream=False),
        f"{door}: one session, Client": partial(_alone, url),
    }


def _scan(url: str) -> float:
    chunk = np.tile(READINGS, SESSIONS)[:, np.newaxis]
    with Client(url, timeout_s=60) as client, client.open(MODEL) as session:
        session.scan({INPUT: chunk})
        return _timed(lambda: session.scan({INPUT: chunk}))


def _step_many(url: str) -> float:
    with Client(url, timeout_s=60) as client:
        sessions = [client.open(MODEL) for _ in range(SESSIONS)]

        def run() -> None:
            for reading in READINGS:
                client.step_many(MODEL, sessions, {INPUT: np.full((SESSIONS, 1), reading)})

        run()
        return _timed(run)


def _threads(url: str) -> float:
    with Client(url, timeout_s=60) as client, ThreadPoolExecutor(THREADS) as pool:
        sessions = [client.open(MODEL) for _ in range(SESSIONS)]

        def run(session: Any) -> None:
            for reading in READINGS:
                session.step({INPUT: [reading]})

        return _timed(lambda: list(pool.map(run, sessions)))


def _alone(url: str) -> float:
    with Client(url, timeout_s=60) as client, client.open(MODEL) as session:

        def run() -> None:
            for reading in np.tile(READINGS, SESSIONS):
                session.step({INPUT: [reading]})

        session.step({INPUT: [20.0]})
        return _timed(run)


def _asynchronous(url: str, at_once: int, *, stream: bool) -> float:
    """All steps, of so many sessions at the same time."""

    async def run() -> float:
        async with AsyncClient(url, timeout_s=60) as client, client.stream(MODEL) as lane:
            sessions = [await client.open(MODEL) for _ in range(at_once)]

            def step(session: AsyncSession, reading: float) -> Awaitable[Any]:
                given = {INPUT: [reading]}
                return lane.step(session, given) if stream else session.step(given)

            async def all_of(session: AsyncSession) -> None:
                for reading in np.tile(READINGS, SESSIONS // at_once):
                    await step(session, reading)

            await asyncio.gather(*(step(session, 20.0) for session in sessions))  # connections are open then
            begun = time.perf_counter()
            await asyncio.gather(*map(all_of, sessions))
            return time.perf_counter() - begun

    return asyncio.run(run())


def _timed(act: Callable[[], object]) -> float:
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun


if __name__ == "__main__":
    typer.run(main)
