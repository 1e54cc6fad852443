"""The demo: sessions of many clients, series of different lengths, dates, and strange pictures; Keras is the judge.

Everything is real: the trained models, the gateway and the model server as processes, and the clients.
"""

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape

from sluice.cli.demo import evaluation, judge, recognition, sequences, sessions
from sluice.cli.embedded import Embedded, embedded
from sluice.cli.errors import NOT_REACHABLE, CommandError
from sluice.cli.evaluate.command import write
from sluice.cli.evaluate.show import show
from sluice.cli.example_models import build_missing
from sluice.cli.keras_import import import_keras
from sluice.client import AsyncClient, SluiceError

MODELS = ("dates", recognition.GLYPHS, recognition.DIGITS, "temperature")  # what takes longest to train comes first

Series = NDArray[np.float32]


def run(models_dir: Path, out: Path, count: int) -> None:
    """Run the demo.

    Raises:
        CommandError: nothing was served, or a client did not get what Keras gives it alone.
    """
    console = Console()
    from sluice_models.temperature.data import month, temperatures

    build_missing(models_dir, MODELS)
    clients, rows = sessions.plan(temperatures(), count), uneven(temperatures())
    calibrations = out / recognition.CALIBRATIONS
    calibrations.mkdir(parents=True, exist_ok=True)
    log = out / "serve.log"
    try:
        with embedded(models_dir, log, "--calibrations", str(calibrations)) as gateway:
            with console.status("Starting the gateway and the model server …"):
                import_keras("demo")  # meanwhile, for the judge
                gateway.until_ready()
            result, shown = asyncio.run(_serve(gateway, clients, rows, console))
            with console.status("Calibrating, and asking about pictures …"):
                pictured = recognition.ask(gateway.http, out)
            measured = evaluation.ask(gateway, out)
    except (SluiceError, CommandError) as error:
        reason = str(error).rstrip(".")
        raise CommandError(f"the demo could not be served: {reason}. The log is in {log}", NOT_REACHABLE) from None
    with console.status("Asking Keras the same, client by client …"):
        answers = [(client.series, client.forecasts) for client in clients]
        answers += zip(rows, shown.forecasts, strict=True)
        difference = judge.difference(models_dir / "temperature" / "1" / "assets.extra" / "model.keras", answers)
    sessions.show(console, clients, temperatures(), month, result, difference)
    sequences.show(console, shown)
    recognition.show(console, pictured)
    console.print("\nWhat `sluice evaluate temperature` finds, through the same gateway:\n", markup=False)
    show(measured, Console(highlight=False, emoji=False, markup=False))
    pictures = (
        sessions.draw(clients, temperatures(), month, out / "forecast.png"),
        sequences.draw(shown.batch, out / "sequences.png"),
        recognition.draw(pictured, out / "recognized.png"),
    )
    console.print("The pictures of it:", escape(", ".join(map(str, pictures))))
    write(out / "evaluation.html", measured)
    letters = recognition.write(pictured[0], out / "letters.json")
    console.print("To ask about the letters yourself, serve the models and send them:")
    for command in (
        f"sluice serve --models {models_dir} --calibrations {calibrations}",
        f"curl -s http://127.0.0.1:8080/v1/models/{recognition.GLYPHS}:recognize -d @{letters}",
    ):
        console.print(f"  {command}", markup=False, highlight=False, soft_wrap=True)
    if difference > sessions.TOLERANCE:
        raise CommandError(
            f"expected a difference from Keras of {sessions.TOLERANCE:g} at most; got {difference:.1e}: what was "
            "served is not what Keras says"
        )


def uneven(series: Series) -> list[Series]:
    """Stretches of different lengths, from wherever they begin."""
    dice = random.Random(sequences.SEED)  # noqa: S311 - a demo's dice
    starts = [(months, dice.randint(0, len(series) - months)) for months in sequences.lengths()]
    return [series[start : start + months] for months, start in starts]


async def _serve(
    gateway: Embedded, clients: Sequence[sessions.Client], rows: Sequence[Series], console: Console
) -> tuple[sessions.Run, sequences.Shown]:
    async with _client(gateway.http) as over_http, _client(gateway.grpc) as over_grpc:
        result = await sessions.ask(over_http, over_grpc, clients, console)
        return result, await sequences.ask(over_http, rows)


def _client(url: str) -> AsyncClient:
    """One that is patient: the machine may be busy with more than the demo."""
    return AsyncClient(url, timeout_s=30.0, total_s=300.0)
