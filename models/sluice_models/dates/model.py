"""Trains one network on the texts of all buckets, and exports it to be served in the same buckets."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from sluice.export import export_endpoints
from sluice_models.dates import data
from sluice_models.dates.buckets import Ids, batches, buckets
from sluice_models.dates.measure import measure
from sluice_models.dates.network import rewriter
from sluice_models.dates.signatures import CONTRACT, calls, endpoints
from sluice_models.fitting import fit

SEED = 11
ROWS = 128  # of a batch
STEPS = 1400
WARMUP_STEPS = 100
LEARNING_RATE = 0.012

_PARTS = 20  # of the steps, between which progress is shown


def build(out: Path) -> Path:
    """Train the network and export it to OUT/dates/1, with the Keras file and a report in `assets.extra`."""
    keras.utils.set_random_seed(SEED)
    model = rewriter()
    seconds = _train(model)
    report = {
        "held_out": measure(model, buckets(data.texts("held_out"))),
        "seed": SEED,
        "batch_size": ROWS,
        "steps": STEPS,
        "training_seconds": round(seconds, 1),
    }
    return publish(model, Path(out) / "dates" / "1", report)


def publish(model: keras.Model, out: Path, report: Mapping[str, Any]) -> Path:
    """Export the network, trained or not, and the report to the version folder `out`."""
    return export_endpoints(
        model,
        endpoints(model),
        CONTRACT,
        out,
        [*calls(model)],
        {"model.keras": model.save, "report.json": lambda file: file.write_text(json.dumps(report, indent=2) + "\n")},
    )


def _train(model: keras.Model) -> float:
    """Train in place with teacher forcing, on batches of one bucket each; the seconds it took."""
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, STEPS - WARMUP_STEPS, warmup_target=LEARNING_RATE, warmup_steps=WARMUP_STEPS
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate, clipnorm=1.0), loss)
    return fit(model, _examples(), _PARTS, STEPS // _PARTS, "dates")


def _examples() -> Iterator[tuple[dict[str, Ids], Ids]]:
    """The training batches, for ever: what the network takes, and the next tokens that it must give."""
    for batch in batches(buckets(data.texts("training")), ROWS, np.random.default_rng(SEED)):
        yield {"text": batch.text, "lengths": batch.lengths, "tokens": batch.tokens[:, :-1]}, batch.tokens[:, 1:]
