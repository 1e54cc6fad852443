"""The demo's first part: many clients forecast the sea temperature, each in a session of its own, in shared batches.

The clients come over HTTP, WebSocket and gRPC at the same time.
"""

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from sluice.cli.demo.counters import counted
from sluice.client import AsyncClient, AsyncSession

SEED = 11
SHORTEST_MONTHS, LONGEST_MONTHS = 48, 96
FIRST_MONTHS = 180  # of the client that is drawn in detail
TOLERANCE = 1e-5
# How the clients step, in turn.
DOORS = ("HTTP", "WebSocket", "gRPC", "gRPC stream")
_PAUSE_S = 0.02  # the longest a client waits between two steps, so that the clients' steps interleave at random

Series = NDArray[np.float32]


@dataclass(slots=True)
class Client:
    """One client: the stretch of the series it feeds, and the forecasts it gets, one for each month."""

    name: str
    door: str
    start: int
    series: Series
    forecasts: Series

    @property
    def last_month(self) -> int:
        return self.start + len(self.series) - 1


@dataclass(frozen=True, slots=True)
class Run:
    """What the served part of the demo measured."""

    seconds: float
    steps: int
    batches: int


def plan(series: Series, count: int, seed: int = SEED) -> list[Client]:
    """Overlapping, staggered stretches of four years or more; the first client's is longer and ends with the series."""
    dice = random.Random(seed)  # noqa: S311 - a demo's dice
    clients = []
    for i in range(count):
        months = dice.randint(SHORTEST_MONTHS, LONGEST_MONTHS) if i else FIRST_MONTHS
        start = dice.randint(0, len(series) - months) if i else len(series) - months
        door, stretch = DOORS[i % len(DOORS)], series[start : start + months]
        clients.append(Client(f"client-{i:03}", door, start, stretch, np.zeros(months, np.float32)))
    return clients


async def ask(over_http: AsyncClient, over_grpc: AsyncClient, clients: Sequence[Client], console: Console) -> Run:
    """Run all clients at once, each through its door.

    Raises:
        SluiceError: a client was refused, or not answered, which stops the rest.
    """
    before = await _counters(over_http)
    started = time.perf_counter()
    with _progress(console, sum(len(client.series) for client in clients)) as advance:
        try:
            await _step_all(over_http, over_grpc, clients, advance)
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
    seconds = time.perf_counter() - started
    steps, batches = (int(now - then) for now, then in zip(await _counters(over_http), before, strict=True))
    return Run(seconds, steps, batches)


async def _step_all(
    over_http: AsyncClient, over_grpc: AsyncClient, clients: Sequence[Client], advance: Callable[[], None]
) -> None:
    async with (
        over_http.stream("temperature") as sockets,
        over_grpc.stream("temperature") as stream,
        asyncio.TaskGroup() as group,
    ):
        doors: dict[str, tuple[AsyncClient, Any]] = {
            "HTTP": (over_http, AsyncSession.step),
            "WebSocket": (over_http, sockets.step),
            "gRPC": (over_grpc, AsyncSession.step),
            "gRPC stream": (over_grpc, stream.step),
        }
        for i, client in enumerate(clients):
            dice = random.Random(SEED + i)  # noqa: S311 - a demo's dice
            group.create_task(_forecast(*doors[client.door], client, dice, advance))


async def _forecast(
    opener: AsyncClient, step: Any, client: Client, dice: random.Random, advance: Callable[[], None]
) -> None:
    """Feed a client's stretch, one numbered step a month, with pauses that differ from client to client."""
    session = await opener.open("temperature", client.name)
    for i, value in enumerate(client.series):
        await asyncio.sleep(dice.uniform(0, _PAUSE_S))
        outputs = await step(session, {"temperature": [value]})
        client.forecasts[i] = outputs["forecast"][0]
        advance()


async def _counters(client: AsyncClient) -> tuple[float, float]:
    """The gateway's own count of rows and batches of steps."""
    rows, batches = [await counted(client, f"sluice_{name}_total", 'signature="step"') for name in ("rows", "batches")]
    return rows, batches


@contextmanager
def _progress(console: Console, total: int) -> Iterator[Callable[[], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("every client steps its session", total=total)
        yield lambda: progress.advance(task)


def show(
    console: Console, clients: Sequence[Client], series: Series, month: Any, result: Run, difference: float
) -> None:
    """The table: some forecasts beside what was then observed, and what was measured."""
    table = Table(title="Forecasts of next month's sea temperature, °C", title_justify="left")
    for heading in ("client", "over", "fed from", "forecast for", "forecast", "observed", "error"):
        table.add_column(heading, justify="left" if heading in ("client", "over") else "right")
    for client in [each for each in clients if each.last_month + 1 < len(series)][:6]:
        forecast, observed = client.forecasts[-1], series[client.last_month + 1]
        table.add_row(
            client.name,
            client.door,
            f"{month(client.start):%Y-%m}",
            f"{month(client.last_month + 1):%Y-%m}",
            f"{forecast:.2f}",
            f"{observed:.2f}",
            f"{forecast - observed:+.2f}",
        )
    console.print(table)
    facts = Table.grid(padding=(0, 2))
    mean = result.steps / max(result.batches, 1)
    for name, value in (
        ("sessions", f"{len(clients)}, stepped over {', '.join(DOORS[:-1])} and {DOORS[-1]}"),
        ("steps", f"{result.steps:,}"),
        ("mean batch size", f"{mean:.1f} rows"),
        ("steps per second", f"{result.steps / result.seconds:,.0f}"),
        ("largest difference from Keras alone", f"{difference:.1e} (at most {TOLERANCE:g}, relative to max(1, |y|))"),
    ):
        facts.add_row(name, value)
    console.print(facts)


def draw(clients: Sequence[Client], series: Series, month: Any, file: Path) -> Path:
    """Above: all clients' forecasts over the whole series. Below: one client's last ten years, month by month."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    dates = [month(i) for i in range(len(series) + 1)]
    figure, (above, below) = plt.subplots(2, 1, figsize=(12, 8), constrained_layout=True)
    _draw_all(above, clients, series, dates)
    _draw_one(below, clients[0], series, dates)
    figure.suptitle(
        f"One stateful LSTM, {len(clients)} sessions: forecasts one month ahead and what was observed", fontsize=14
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
    plt.close(figure)
    return file


def _draw_all(axes: Any, clients: Sequence[Client], series: Series, dates: list[date]) -> None:
    for client in clients:
        span = dates[client.start + 1 : client.last_month + 2]
        axes.plot(span, client.forecasts, color="tab:orange", alpha=0.12, linewidth=0.8)
    axes.plot(dates[:-1], series, color="tab:blue", linewidth=0.9, label="observed")
    axes.plot([], [], color="tab:orange", label=f"forecasts of {len(clients)} clients")
    axes.axvspan(dates[-121], dates[-1], color="tab:green", alpha=0.08, label="never seen in training")
    axes.set(ylabel="sea surface, °C", title="The whole series; each client begins somewhere else, from zero state")
    axes.legend(loc="upper left", ncols=3, fontsize=9)
    axes.margins(x=0.01, y=0.14)


def _draw_one(axes: Any, client: Client, series: Series, dates: list[date]) -> None:
    first = max(client.start + 1, len(series) - 120)
    forecasts = client.forecasts[first - client.start - 1 : -1]
    observed, span = series[first:], dates[first:-1]
    axes.fill_between(span, observed, forecasts, color="tab:red", alpha=0.15, label="error")
    axes.plot(span, observed, color="tab:blue", marker=".", linewidth=1.2, label="observed")
    axes.plot(span, forecasts, color="tab:orange", marker=".", linewidth=1.2, label=f"forecast to {client.name}")
    error = float(np.mean(np.abs(observed - forecasts)))
    axes.set(ylabel="sea surface, °C", title=f"{client.name}, the last ten years: mean absolute error {error:.2f} °C")
    axes.legend(loc="upper left", ncols=3, fontsize=9)
    axes.margins(x=0.01, y=0.14)
