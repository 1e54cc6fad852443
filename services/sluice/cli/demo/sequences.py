"""The demo's second part: series of different lengths at the same time, and dates that a decoder rewrites.

It asks the gateway that the first part has started.
"""

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from sluice.cli.demo.counters import counted
from sluice.client import AsyncClient
from sluice.policy.buckets import bucket_for

SEED = 12
ROWS = 24
SHORTEST, LONGEST = 4, 120  # months
DATES: Mapping[str, str] = {
    "5 March 2024": "2024-03-05",
    "Dienstag, 5. März 2024": "2024-03-05",
    "3/25/2024": "2024-03-25",
    "24 DE DESEMBRE DE 1931": "1931-12-24",
    "1 сентября 2025": "2025-09-01",
    "2071年12月30日": "2071-12-30",
}
Series = NDArray[np.float32]
_WIDTH = 50  # characters of the longest row


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that came together: their lengths and the bounds to which they were padded, and all months that ran."""

    lengths: Sequence[int]
    bounds: Sequence[int]
    ran: float

    @property
    def real(self) -> int:
        return sum(self.lengths)

    @property
    def at_the_longest(self) -> int:
        """Months that run when every row is padded to the longest."""
        return len(self.lengths) * max(self.lengths)


@dataclass(frozen=True, slots=True)
class Shown:
    """What this part has to show: each row's forecasts, the batch of them, and each date as it was rewritten."""

    forecasts: Sequence[Series]
    batch: Batch
    dates: Mapping[str, str]


def lengths(seed: int = SEED) -> list[int]:
    """Many short series and few long ones, as they come."""
    dice = random.Random(seed)  # noqa: S311 - a demo's dice
    return [min(LONGEST, max(SHORTEST, round(dice.lognormvariate(2.9, 1.0)))) for _ in range(ROWS)]


async def ask(client: AsyncClient, rows: Sequence[Series]) -> Shown:
    """Ask for the forecasts of all rows at the same time, and for the dates.

    Raises:
        SluiceError: a call was refused, or not answered.
    """
    axis = (await client.buckets("temperature")).signatures["serving_default"]["time"]
    before = await _elements(client)
    found = await asyncio.gather(*(client.predict("temperature", row[np.newaxis, :, np.newaxis]) for row in rows))
    ran = await _elements(client) - before
    batch = Batch([len(row) for row in rows], [bucket_for(len(row), axis.bounds) for row in rows], ran)
    written = [sequences[0].text for sequences in await client.generate("dates", [*DATES])]
    forecasts = [outputs["forecast"][0, :, 0] for outputs in found]
    return Shown(forecasts, batch, dict(zip(DATES, written, strict=True)))


async def _elements(client: AsyncClient) -> float:
    """All months of sequences that have run so far, by the gateway's own count: padding and filler too."""
    return await counted(client, "sluice_elements_total", 'model="temperature"')


def show(console: Console, shown: Shown) -> None:
    """The batch as bars, before and after, and the dates as a table."""
    batch = shown.batch
    longest = max(batch.lengths)
    console.print(f"\n[italic]{len(batch.lengths)} series of different lengths at the same time[/]")
    console.print(f"padded to the longest: {batch.at_the_longest:,} months run, {batch.real:,} of them real")
    for length in batch.lengths[:6]:
        console.print(_bar(length, longest, longest))
    console.print(f"in the gateway's buckets: {batch.ran:,.0f} months run, {_saved(batch):.0%} less")
    for length, bound in zip(batch.lengths[:6], batch.bounds, strict=False):
        console.print(_bar(length, bound, longest))
    table = Table(title="Dates, rewritten step by step in one running batch", title_justify="left")
    for heading in ("written", "rewritten", ""):
        table.add_column(heading)
    for written, rewritten in shown.dates.items():
        right = rewritten == DATES[written]
        table.add_row(written, rewritten, "[green]right[/]" if right else f"[red]it is {DATES[written]}[/]")
    console.print(table)


def _saved(batch: Batch) -> float:
    return 1 - batch.ran / batch.at_the_longest


def _bar(length: int, bound: int, longest: int) -> str:
    real, padded = (round(size * _WIDTH / longest) for size in (length, bound))
    return f"  [blue]{'█' * real}[/][dim]{'░' * (padded - real)}[/]"


def draw(batch: Batch, file: Path) -> Path:
    """The rows of the batch, padded to the longest on the left, and to their buckets on the right."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    ways = (
        (f"Padded to the longest: {batch.at_the_longest:,} months run", [max(batch.lengths)] * len(batch.lengths)),
        (f"In the gateway's buckets: {batch.ran:,.0f} months run, {_saved(batch):.0%} less", batch.bounds),
    )
    figure, panels = plt.subplots(1, 2, figsize=(12, 5), sharex=True, sharey=True, constrained_layout=True)
    for axes, (title, padded) in zip(panels, ways, strict=True):
        rows = sorted(zip(batch.lengths, padded, strict=True), reverse=True)
        places = range(len(rows))
        axes.barh(places, [bound for _, bound in rows], color="lightgray", label="padding")
        axes.barh(places, [length for length, _ in rows], color="tab:blue", label="real")
        axes.set(title=title, xlabel="months", yticks=[])
        axes.spines[["top", "right", "left"]].set_visible(False)
    panels[0].set_ylabel(f"{len(batch.lengths)} series, the longest below")
    panels[1].legend(frameon=False, loc="upper right")
    figure.savefig(file, dpi=110)
    plt.close(figure)
    return file
