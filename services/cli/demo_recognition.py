"""The demo's third part: pictures that a digit network knows, and pictures of something else.

The network has learned from outliers besides. It is calibrated with the command that users have, through the gateway
that the demo has started.
"""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

EXAMPLE, MODEL = "digits", "digits_other"  # what is built, and which of its networks is asked
CALIBRATIONS = "calibrations"  # folder in the demo's own
_KNOWN = ("0", "3", "5")
_TIMEOUT_S = 60.0

Picture = NDArray[np.float32]  # [8, 8, 1]


@dataclass(frozen=True, slots=True)
class Answer:
    """A picture, what it shows, and what the gateway says: `label` is None where it is unknown."""

    shows: str
    picture: Picture
    label: str | None
    forced: str
    confidence: float


def ask(url: str, out: Path) -> list[Answer]:
    """Calibrate, and have a row of pictures recognized.

    Raises:
        subprocess.CalledProcessError, httpx.HTTPError: one of them was refused.
    """
    from models.digits import data

    every = data.load()
    known, unknown = out / "known.npz", out / "unknown.npz"
    labels = np.array(every.classes)[every.calibration.labels]
    np.savez(known, picture=every.calibration.pictures, label=labels)
    np.savez(unknown, picture=every.calibration_outliers)
    command = [sys.executable, "-m", "services.cli", "calibrate", MODEL, "--known", str(known)]
    command += ["--unknown", str(unknown), "--url", url, "--calibrations", str(out / CALIBRATIONS)]
    subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - ourselves
    pictures = _pictures(every)
    with httpx.Client(base_url=url, timeout=_TIMEOUT_S) as http:
        http.post("/v1/calibrations:reload").raise_for_status()
        body = {"instances": [picture.tolist() for _, picture in pictures], "top_k": 1}
        found = http.post(f"/v1/models/{MODEL}:recognize", json=body).raise_for_status().json()["results"]
    return [
        Answer(shows, picture, row["label"], row["closed_set_label"], row["candidates"][0]["probability"])
        for (shows, picture), row in zip(pictures, found, strict=True)
    ]


def _pictures(every: Any) -> list[tuple[str, Picture]]:
    """Three known digits, two that were held back, two letters, noise, and a piece of a photograph."""
    from models.digits import data

    test = every.test
    known = [(f"a {each}", _typical(test.pictures[test.labels == every.classes.index(each)])) for each in _KNOWN]
    strange = [("a 6", every.near[0]), ("a 7", every.near[1])]
    strange += [(f"the letter {each}", data.letters(each)[0]) for each in "AB"]
    photographs = every.far["photographs"]
    vivid = photographs[photographs.std(axis=(1, 2, 3)).argmax()]
    return [*known, *strange, ("noise", every.far["noise"][0]), ("a photograph", vivid)]


def _typical(pictures: NDArray[np.float32]) -> Picture:
    """The picture that is most like the mean of all: of known pictures, one in twenty may be called unknown."""
    distances = np.square(pictures - pictures.mean(axis=0)).sum(axis=(1, 2, 3))
    found: Picture = pictures[distances.argmin()]
    return found


def show(console: Console, answers: Sequence[Answer]) -> None:
    table = Table(title="Pictures, recognized by a network that knows the digits 0 to 5", title_justify="left")
    for heading in ("the picture shows", "it must be one of six", "answer"):
        table.add_column(heading)
    for answer in answers:
        said = "[red]unknown[/]" if answer.label is None else f"[green]{answer.label}[/]"
        table.add_row(answer.shows, f"{answer.forced}, {answer.confidence:.0%}", said)
    console.print(table)


def draw(answers: Sequence[Answer], file: Path) -> Path:
    """A row of the pictures, with what they show above and the gateway's answers below."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(answers), figsize=(1.6 * len(answers), 3), constrained_layout=True)
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
    figure.suptitle("A network that knows the digits 0 to 5, and the gateway's answers", fontsize=13)
    figure.savefig(file, dpi=110)
    plt.close(figure)
    return file
