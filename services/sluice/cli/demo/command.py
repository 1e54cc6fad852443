"""The demo: many clients forecast the sea temperature, each in a session of its own, served in shared batches.

Everything is real: the trained models, the gateway and the model server as processes, clients over HTTP, WebSocket and
gRPC at the same time, and Keras as the judge. Then come series of different lengths, dates, and strange pictures.
"""

import asyncio
import random
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from sluice.cli.demo import recognition as demo_recognition
from sluice.cli.demo import sequences as demo_sequences
from sluice.cli.embedded import NotServed, embedded
from sluice.client import AsyncClient, AsyncSession, SluiceError
from sluice.log import quiet_import

SEED = 11
SHORTEST_MONTHS, LONGEST_MONTHS = 48, 96
FIRST_MONTHS = 180  # of the client that is drawn in detail
TOLERANCE = 1e-5
# How the clients step, in turn.
DOORS = ("HTTP", "WebSocket", "gRPC", "gRPC stream")
MODELS = ("temperature", "dates", demo_recognition.GLYPHS, demo_recognition.DIGITS)
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


def run(models_dir: Path, out: Path, count: int) -> int:
    """Run the demo; 0 if every client got what Keras gives it alone, 1 if not, 3 if nothing was served."""
    console = Console()
    _build(models_dir)
    from sluice_models.temperature.data import month, temperatures

    clients, rows = plan(temperatures(), count), uneven(temperatures())
    calibrations = out / demo_recognition.CALIBRATIONS
    calibrations.mkdir(parents=True, exist_ok=True)
    try:
        with embedded(models_dir, out / "serve.log", "--calibrations", str(calibrations)) as gateway:
            with console.status("Starting the gateway and the model server …"):
                with quiet_import():
                    import keras  # noqa: F401 - meanwhile, for the judge
                gateway.until_ready()
            result, shown = asyncio.run(_serve(gateway.http, gateway.grpc, clients, rows, console))
            with console.status("Calibrating, and asking about pictures …"):
                pictured = _recognized(gateway.http, out)
    except NotServed as error:
        told = escape(f"{error}. The log is in {out / 'serve.log'}.")
        console.print(f"[red]The demo could not be served:[/] {told}")
        return 3
    with console.status("Asking Keras the same, client by client …"):
        difference = _difference(models_dir / "temperature" / "1" / "assets.extra" / "model.keras", [*clients, *rows])
    _show(console, clients, temperatures(), month, result, difference)
    demo_sequences.show(console, shown)
    demo_recognition.show(console, pictured)
    pictures = (
        _draw(clients, temperatures(), month, out / "forecast.png"),
        demo_sequences.draw(shown.batch, out / "sequences.png"),
        demo_recognition.draw(pictured, out / "recognized.png"),
    )
    console.print("The pictures of it:", escape(", ".join(map(str, pictures))))
    if difference > TOLERANCE:
        console.print(f"[red]The largest difference is over {TOLERANCE:g}: what was served is not what Keras says.[/]")
        return 1
    return 0


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


def _recognized(http: str, out: Path) -> list[demo_recognition.Row]:
    try:
        with _failures_told():
            return demo_recognition.ask(http, out)
    except subprocess.CalledProcessError as error:
        raise NotServed(error.stderr.strip()) from None


@contextmanager
def _failures_told() -> Iterator[None]:
    """Raises: NotServed: a request was refused, or not answered."""
    try:
        yield
    except httpx.HTTPStatusError as error:
        raise NotServed(error.response.text) from None
    except httpx.TransportError as error:
        raise NotServed(f"{error.request.url} was not answered: {str(error) or type(error).__name__}") from None


def uneven(series: Series) -> list[Client]:
    """Stretches of different lengths, from wherever they begin, whose forecasts come in one request."""
    dice = random.Random(demo_sequences.SEED)  # noqa: S311 - a demo's dice
    rows = []
    for i, months in enumerate(demo_sequences.lengths()):
        start = dice.randint(0, len(series) - months)
        rows.append(Client(f"row-{i}", ":predict", start, series[start : start + months], np.zeros(months, np.float32)))
    return rows


def _build(models_dir: Path) -> None:
    from sluice_models.train import build, is_built

    if not is_built(MODELS, models_dir):
        with quiet_import():
            import keras  # noqa: F401
        build(MODELS, models_dir)


async def _serve(
    http: str, grpc: str, clients: list[Client], rows: list[Client], console: Console
) -> tuple[Run, demo_sequences.Shown]:
    async with httpx.AsyncClient(base_url=http) as looking:
        before = await _counters(looking)
        started = time.perf_counter()
        with _progress(console, sum(len(client.series) for client in clients)) as advance:
            await _step_all(http, grpc, clients, advance)
        seconds = time.perf_counter() - started
        after = await _counters(looking)

        def forecast(row: int, forecasts: Any) -> None:
            rows[row].forecasts[:] = np.array(forecasts)[:, 0]

        with _failures_told():
            shown = await demo_sequences.ask(looking, [row.series for row in rows], forecast)
    return Run(seconds, int(after["rows"] - before["rows"]), int(after["batches"] - before["batches"])), shown


async def _step_all(http: str, grpc: str, clients: list[Client], advance: Any) -> None:
    """Run all clients at once, each through its door; the first that is refused stops the rest."""
    async with (
        AsyncClient(http) as over_http,
        AsyncClient(grpc) as over_grpc,
        over_http.stream("temperature") as sockets,
        over_grpc.stream("temperature") as stream,
        _refusals_told(),
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


@asynccontextmanager
async def _refusals_told() -> AsyncIterator[None]:
    try:
        yield
    except* SluiceError as errors:
        raise NotServed(str(errors.exceptions[0])) from None


async def _forecast(opener: AsyncClient, step: Any, client: Client, dice: random.Random, advance: Any) -> None:
    """Feed a client's stretch, one numbered step a month, with pauses that differ from client to client."""
    session = await opener.open("temperature", client.name)
    for i, value in enumerate(client.series):
        await asyncio.sleep(dice.uniform(0, _PAUSE_S))
        outputs = await step(session, {"temperature": [value]})
        client.forecasts[i] = outputs["forecast"][0]
        advance()


async def _counters(http: httpx.AsyncClient) -> dict[str, float]:
    """The gateway's own count of rows and batches of steps."""
    lines = (await http.get("/metrics")).text.splitlines()
    found = {"rows": 0.0, "batches": 0.0}
    for line in lines:
        for name in found:
            if line.startswith(f"sluice_{name}_total{{") and 'signature="step"' in line:
                found[name] += float(line.rpartition(" ")[2])
    return found


@contextmanager
def _progress(console: Console, total: int) -> Iterator[Any]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("every client steps its session", total=total)
        yield lambda: progress.advance(task)


def _difference(keras_file: Path, clients: list[Client]) -> float:
    """The largest |served - Keras| / max(1, |Keras|), where Keras runs each client's whole stretch alone."""
    import keras

    alone = _alone(keras.models.load_model(keras_file, compile=False))
    largest = 0.0
    for client in clients:
        expected = np.asarray(alone(client.series[np.newaxis, :, np.newaxis]))[0, :, 0]
        error = np.abs(client.forecasts - expected) / np.maximum(1.0, np.abs(expected))
        largest = max(largest, float(error.max()))
    return largest


def _alone(trained: Any) -> Any:
    """The trained network for one client at a time: the same layers' weights, not stateful, batch size 1."""
    import keras
    import tensorflow as tf

    config = trained.get_config()
    for layer in config["layers"]:
        settings = layer["config"]
        if "batch_shape" in settings:
            settings["batch_shape"] = [1, None, 1]
        if settings.get("stateful"):
            settings["stateful"] = False
    single = keras.Sequential.from_config(config)
    for layer in trained.layers:
        weights = [variable for variable in layer.weights if variable.path.split("/")[-1] != "states"]
        single.get_layer(layer.name).set_weights([variable.numpy() for variable in weights])
    return tf.function(single, input_signature=[tf.TensorSpec([1, None, 1], tf.float32)])


def _show(console: Console, clients: list[Client], series: Series, month: Any, result: Run, difference: float) -> None:
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


def _draw(clients: list[Client], series: Series, month: Any, file: Path) -> Path:
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


def _draw_all(axes: Any, clients: list[Client], series: Series, dates: list[date]) -> None:
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
