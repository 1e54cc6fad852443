"""A load test's own gateway: the example models that the loads ask, trained where missing, served, calibrated.

It does not know what they are asked.
"""

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sluice.cli.demo.recognition import CALIBRATIONS, DIGITS, calibrate
from sluice.cli.embedded import Embedded, embedded
from sluice.cli.example_models import build_missing
from sluice.signals import exits_when_told

MODELS = ("dates", DIGITS, "temperature")  # what takes longest to train comes first


@contextmanager
def serving(models: Path, out: Path, *flags: str) -> Iterator[Embedded]:
    """A `sluice serve` with these flags until the end of the block; in the block all its models can be asked.

    `models` is where the trained models are kept, and what is missing or out of date there is trained first. The
    gateway's log, the calibration and the evaluations go into the folder `out`.

    Raises:
        CommandError, SluiceError: a model could not be trained, served or calibrated.
    """
    from sluice_models.digits import data  # noqa: PLC0415 - it loads scikit-learn

    calibrations = out / CALIBRATIONS
    calibrations.mkdir(parents=True, exist_ok=True)
    database = f"sqlite:///{out.absolute() / 'evaluations.db'}"  # another gateway may have the default one
    own_flags = ["--calibrations", str(calibrations), "--evaluations-database", database]
    with ExitStack() as stack:
        stack.enter_context(exits_when_told())
        build_missing(models, MODELS)
        with _interrupt_blocked():
            own = stack.enter_context(embedded(_only(models, out / "models"), out / "serve.log", *own_flags, *flags))
        own.until_ready()
        calibrate(own.http, out, DIGITS, data.load())
        yield own


@contextmanager
def _interrupt_blocked() -> Iterator[None]:
    """What is started in the block stays there at Ctrl-C, which is for what sends the load; the rest ends after it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _only(models: Path, folder: Path) -> Path:
    """A folder of nothing but the models of the loads: others in `models` would take memory and time to start."""
    folder.mkdir(exist_ok=True)
    for name in MODELS:
        link = folder / name
        link.unlink(missing_ok=True)
        link.symlink_to((models / name).resolve())
    return folder
