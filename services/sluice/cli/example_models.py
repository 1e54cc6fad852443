"""Trains the example models that a command needs and does not find, several at a time."""

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sluice.cli.errors import CommandError


def build_missing(models: Path, names: Sequence[str]) -> None:
    """Train in processes of their own, as many at a time as there are cores: one alone does not keep them busy.

    They begin in the order of `names`, so what takes longest comes first. What is up to date is kept.

    Raises:
        CommandError: one of them failed.
    """
    from sluice_models.train import is_built

    missing = [name for name in names if not is_built([name], models)]
    trainings: list[subprocess.Popen[str]] = []

    def train(name: str) -> int:
        command = [sys.executable, "-u", "-m", "sluice.cli", "models", "build", name, "--out", str(models)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as training:  # noqa: S603 - ourselves
            trainings.append(training)
            for line in training.stdout or ():  # no bars, which would overwrite each other
                sys.stdout.write(line)
        return training.returncode

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            failed = [name for name, code in zip(missing, pool.map(train, missing), strict=True) if code]
        except BaseException:  # told to stop, and so are those that train
            pool.shutdown(wait=False, cancel_futures=True)
            for each in trainings:
                each.terminate()
            raise
    if failed:
        raise CommandError(f"expected to train {', '.join(missing)}; {', '.join(failed)} failed")
