"""Has Keras alone answer the load: `python -m loadtests.traffic [--models DIR] [--out DIR]`.

What is there is kept as long as neither the model nor what makes the answers has changed.
"""

import argparse
import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np

from loadtests.traffic.library import FOLDER, file_of
from loadtests.traffic.models import DATES, DIGITS, MODELS, TEMPERATURE
from sluice.cli.model_folders import MODELS as MODELS_FOLDER
from sluice.cli.model_folders import versions_of
from sluice_models import fingerprint, labelled
from sluice_models.temperature.labelled import labelled as rows_of_an_evaluation

_FINGERPRINT = "fingerprint"


def make(models: Path, out: Path) -> list[str]:
    """Write what Keras says of each model that is there and has changed; the names of those that are not there."""
    missing = []
    for model in MODELS:
        versions = versions_of(models / model)
        keras_file = versions[-1] / "assets.extra" / "model.keras" if versions else None
        if keras_file is None or not keras_file.is_file():
            missing.append(model)
        elif _kept(file_of(out, model)) != (wanted := _fingerprint(keras_file)):
            _answer(model, keras_file, file_of(out, model), wanted)
    return missing


def _fingerprint(keras_file: Path) -> str:
    """Of a trained network, and of all that asks it."""
    network = hashlib.sha256(keras_file.read_bytes()).hexdigest()
    return f"{network} {fingerprint.fingerprint('loadtests.traffic.keras_alone')}"


def _kept(file: Path) -> str:
    if not file.is_file():
        return ""
    with np.load(file) as arrays:
        return str(arrays[_FINGERPRINT])


def _answer(model: str, keras_file: Path, file: Path, wanted: str) -> None:
    from loadtests.traffic import keras_alone  # noqa: PLC0415 - it imports TensorFlow

    ask = {TEMPERATURE: keras_alone.temperature, DIGITS: keras_alone.digits, DATES: keras_alone.dates}[model]
    print(f"Keras answers the load of {model}", flush=True)  # noqa: T201 - it takes seconds
    arrays = ask(keras_file)
    file.parent.mkdir(parents=True, exist_ok=True)
    if model == TEMPERATURE:
        labelled.write(rows_of_an_evaluation(), file.parent, model)
    part = file.with_suffix(".part.npz")
    everything: dict[str, Any] = {**arrays, _FINGERPRINT: wanted}
    np.savez_compressed(part, **everything)
    part.replace(file)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.traffic", description=__doc__)
    parser.add_argument("--models", type=Path, default=MODELS_FOLDER, help=f"default: {MODELS_FOLDER}")
    parser.add_argument("--out", type=Path, default=FOLDER, help=f"default: {FOLDER}")
    given = parser.parse_args()
    missing = make(given.models, given.out)
    for model in missing:
        print(f"{given.models} has no {model}: what is asked of it is left out", file=sys.stderr)  # noqa: T201
    if len(missing) == len(MODELS):
        sys.exit(f"expected {', '.join(MODELS)} in {given.models}. Build them: sluice models build {' '.join(MODELS)}")


if __name__ == "__main__":
    main()
