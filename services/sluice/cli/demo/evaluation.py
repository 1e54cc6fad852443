"""The demo's last act: the forecaster is evaluated through the gateway that serves it, at two batch sizes."""

from pathlib import Path

from sluice.cli.embedded import Embedded
from sluice.cli.evaluate.command import evaluated, memory_of
from sluice.cli.evaluate.request import SUFFIX, Flags, request_of
from sluice.evaluator.document import Document

MODEL = "temperature"
_BATCH_SIZES = "1,60"


def ask(gateway: Embedded, out: Path) -> Document:
    """What is found on the model's own rows, which are written to OUT/data.

    Raises:
        CommandError: it cannot be evaluated.
    """
    from sluice_models.train import data

    data(MODEL, out / "data")
    flags = Flags(data=out / "data" / f"{MODEL}{SUFFIX}", batch_sizes=_BATCH_SIZES)
    return evaluated(*request_of(MODEL, flags), gateway.http, memory=memory_of(gateway))
