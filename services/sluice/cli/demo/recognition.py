"""The demo's third part: pictures that a network knows, and pictures of something else; one of letters, one of digits.

The networks have learned from outliers besides. They are calibrated through the gateway that the demo has started.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from sluice.cli.errors import CommandError
from sluice.client import Client

GLYPHS, DIGITS = "glyphs_other", "digits_other"
CALIBRATIONS = "calibrations"  # folder in the demo's own

Picture = NDArray[np.float32]  # [size, size, 1]


@dataclass(frozen=True, slots=True)
class Answer:
    """A picture, what it shows, and what the gateway says: `label` is None where it is unknown."""

    shows: str
    picture: Picture
    label: str | None
    forced: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Row:
    """One network's answers; `knows` says what it knows."""

    knows: str
    answers: Sequence[Answer]


def ask(url: str, out: Path) -> list[Row]:
    """Calibrate two networks, and have a row of pictures recognized by each.

    Raises:
        CommandError, SluiceError: one of them was refused.
    """
    from sluice_models.digits import data as digits
    from sluice_models.glyphs import data as glyphs

    letters, numbers = glyphs.load(), digits.load()
    return [
        Row("the letters A, B and C", _asked(url, out, GLYPHS, letters, _letters(letters))),
        Row("the digits 0 to 5", _asked(url, out, DIGITS, numbers, _digits(numbers))),
    ]


def calibrate(url: str, out: Path, model: str, every: Any) -> None:
    """Calibrate a network on its calibration set and outliers, with the command that users have, into OUT/calibrations.

    The gateway at `url` serves it, has that folder of calibrations, and uses what is in it from then on.

    Raises:
        CommandError, SluiceError: it was refused.
    """
    known, unknown = out / f"{model}-known.npz", out / f"{model}-unknown.npz"
    labels = np.array(every.classes)[every.calibration.labels]
    np.savez(known, picture=every.calibration.pictures, label=labels)
    np.savez(unknown, picture=every.calibration_outliers)
    command = [sys.executable, "-m", "sluice.cli", "calibrate", model, "--known", str(known)]
    command += ["--unknown", str(unknown), "--url", url, "--calibrations", str(out / CALIBRATIONS)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - ourselves
    if done.returncode:
        raise CommandError(done.stderr.strip().removeprefix("sluice: "), done.returncode)
    with Client(url, timeout_s=60.0) as client:
        client.reload_calibrations()


def _asked(url: str, out: Path, model: str, every: Any, pictures: Sequence[tuple[str, Picture]]) -> list[Answer]:
    calibrate(url, out, model, every)
    with Client(url, timeout_s=60.0) as client:
        found = client.recognize(model, np.stack([picture for _, picture in pictures]), top_k=1).results
    return [
        Answer(shows, picture, row.label, row.closed_set_label, row.candidates[0][1])
        for (shows, picture), row in zip(pictures, found, strict=True)
    ]


def _letters(every: Any) -> list[tuple[str, Picture]]:
    """The three known letters, three others, a scribble, an empty picture, and a letter black on white."""
    from sluice_models.glyphs import data

    strange = [(f"the letter {each}", data.letters(each)[0]) for each in "KMX"]
    blank = every.far["blank"]
    plain = blank[blank.std(axis=(1, 2, 3)).argmin()]  # the others look like noise
    far = [("a scribble", every.far["scribbles"][0]), ("an empty picture", plain)]
    return [*_known(every, "ABC"), *strange, *far, ("black on white", every.far["inverted"][0])]


def _digits(every: Any) -> list[tuple[str, Picture]]:
    """Three known digits, two that were held back, two letters, noise, and a piece of a photograph."""
    from sluice_models.digits import data

    strange = [("a 6", every.near[0]), ("a 7", every.near[1])]
    strange += [(f"the letter {each}", data.letters(each)[0]) for each in "AB"]
    photographs = every.far["photographs"]
    vivid = photographs[photographs.std(axis=(1, 2, 3)).argmax()]
    return [*_known(every, "035"), *strange, ("noise", every.far["noise"][0]), ("a photograph", vivid)]


def _known(every: Any, names: str) -> list[tuple[str, Picture]]:
    """Of each of these classes a typical picture of the test."""
    test = every.test
    return [(f"a known {each}", _typical(test.pictures[test.labels == every.classes.index(each)])) for each in names]


def _typical(pictures: NDArray[np.float32]) -> Picture:
    """The picture that is most like the mean of all: of known pictures, one in twenty may be called unknown."""
    distances = np.square(pictures - pictures.mean(axis=0)).sum(axis=(1, 2, 3))
    found: Picture = pictures[distances.argmin()]
    return found


def show(console: Console, rows: Sequence[Row]) -> None:
    for row in rows:
        table = Table(title=f"Pictures, recognized by a network that knows {row.knows}", title_justify="left")
        for heading in ("the picture shows", "if it had to be one of these", "answer"):
            table.add_column(heading)
        for answer in row.answers:
            said = "[red]unknown[/]" if answer.label is None else f"[green]{answer.label}[/]"
            table.add_row(answer.shows, f"{answer.forced}, {answer.confidence:.0%}", said)
        console.print(table)


def write(row: Row, file: Path) -> Path:
    """A row's pictures as the body of a recognize request."""
    instances = [answer.picture.tolist() for answer in row.answers]
    file.write_text(json.dumps({"instances": instances, "top_k": 1}), encoding="utf-8")
    return file


def draw(rows: Sequence[Row], file: Path) -> Path:
    """A row of pictures for each network, with what they show above and the gateway's answers below."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(1.6 * max(len(row.answers) for row in rows), 2.8 * len(rows)), layout="constrained")
    for row, part in zip(rows, figure.subfigures(len(rows), squeeze=False)[:, 0], strict=True):
        part.suptitle(f"A network that knows {row.knows}, and the gateway's answers", fontsize=13)
        _draw_row(part.subplots(1, len(row.answers)), row.answers)
    figure.savefig(file, dpi=110)
    plt.close(figure)
    return file


def _draw_row(panels: Any, answers: Sequence[Answer]) -> None:
    for axes, answer in zip(panels, answers, strict=True):
        unknown = answer.label is None
        axes.imshow(answer.picture[..., 0], cmap="gray", vmin=0, vmax=1)
        axes.set(xticks=[], yticks=[])
        axes.set_title(answer.shows, fontsize=11)
        colour = "tab:red" if unknown else "tab:green"
        axes.set_xlabel("unknown" if unknown else answer.label, fontsize=15, color=colour, weight="bold")
        axes.text(
            0.5, -0.36, f"forced: {answer.forced}, {answer.confidence:.0%}",
            transform=axes.transAxes, ha="center", fontsize=9, color="gray",
        )  # fmt: skip
        for spine in axes.spines.values():
            spine.set(color=colour, linewidth=3)
