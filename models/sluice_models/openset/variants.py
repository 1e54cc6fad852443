"""The four networks of an open-set model, each trained by the same code, and their export."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from sluice.export import Classes, Description, Detector, Meaning, ScoreOptions, export_recognizer
from sluice.export.recognizer import fit_recognizer
from sluice_models.openset.codes import UNITS, codes
from sluice_models.openset.data import Data, Labels, Pictures
from sluice_models.openset.networks import FEATURES, Recipe, trained

# By variant, what is put behind the model's name.
SUFFIXES = {"closed": "", "other": "_other", "codes": "_codes", "detector": "_detector"}
SUMMARIES = {
    "closed": "{about}, and how strange each picture is to it.",
    "other": "{about}, with one more class for everything else.",
    "codes": "{about}, by output codes of 15 units.",
    "detector": "Whether a picture is one that this model knows: {about}.",
}

_BATCH = 512
_DETECTED = ("known", "unknown")

Outputs = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Variant:
    """One network of an open-set model.

    Attributes:
        model: the network.
        pictures: what its scores are fitted to, and `labels` what these show.
        classes: what its logits mean.
        methods: the scores that it has.
        seconds: of training.
    """

    model: keras.Model
    pictures: Pictures
    labels: Labels
    classes: Classes
    methods: tuple[str, ...]
    seconds: float

    def answers(self, pictures: Mapping[str, Pictures], options: ScoreOptions) -> dict[str, Outputs]:
        """By name of the pictures, the outputs of the signature that says most."""
        signatures = fit_recognizer(
            self.model,
            FEATURES,
            (self.pictures, self.labels),
            classes=self.classes,
            methods=self.methods,
            options=options,
        )
        endpoint, _ = [*signatures.values()][-1]
        return {name: _run(endpoint, each) for name, each in pictures.items()}


def _run(endpoint: Any, pictures: Pictures) -> Outputs:
    parts = [
        endpoint({"picture": tf.constant(pictures[start : start + _BATCH])})
        for start in range(0, len(pictures), _BATCH)
    ]
    return {name: np.concatenate([part[name].numpy() for part in parts]) for name in parts[0]}


def variant(which: str, name: str, data: Data, recipe: Recipe, seed: int) -> Variant:
    """Train one of the networks in `SUFFIXES`."""
    known, labels, count = data.train.pictures, data.train.labels, len(data.classes)
    both = np.concatenate([known, data.outliers])
    outlier = (np.arange(len(both)) >= len(known)).astype(np.int64)
    classes, pictures, targets, outputs = {
        "closed": (Classes(data.classes, detector=Detector(name + SUFFIXES["detector"])), known, labels, count),
        "other": (Classes(data.classes, other=True), both, np.append(labels, outlier[outlier == 1] * count), count + 1),
        "codes": (Classes(data.classes, codes=codes(count)), known, np.array(codes(count))[labels], UNITS),
        "detector": (Classes(_DETECTED), both, outlier, len(_DETECTED)),
    }[which]
    model, seconds = trained(name + SUFFIXES[which], pictures, targets, outputs, recipe, seed)
    if which == "detector":
        return Variant(model, both, outlier, classes, (), seconds)
    return Variant(model, known, labels, classes, classes.methods, seconds)


def build(
    name: str, about: str, data: Data, recipe: Recipe, options: ScoreOptions, seed: int, out: Path,
    networks: Iterable[str] = (),
) -> Path:  # fmt: skip
    """Train the four networks and export them to OUT/NAME/1, OUT/NAME_other/1 and so on; the first of these.

    Only some `networks` of `SUFFIXES`, if any are named.

    The Keras file and a report are in `assets.extra`.
    """
    folders = []
    for which in networks or SUFFIXES:
        suffix = SUFFIXES[which]
        made = variant(which, name, data, recipe, seed)
        report = _report(which, made, data, options) | {"seed": seed}
        folders.append(
            export_recognizer(
                made.model,
                FEATURES,
                (made.pictures, made.labels),
                Path(out) / f"{name}{suffix}" / "1",
                classes=made.classes,
                description=_description(SUMMARIES[which].format(about=about), data),
                methods=made.methods,
                options=options,
                assets={"model.keras": made.model.save, "report.json": _writer(report)},
            )
        )
    return folders[0]


def _writer(report: Mapping[str, Any]) -> Any:
    return lambda file: file.write_text(json.dumps(report, indent=2) + "\n")


def _description(summary: str, data: Data) -> Description:
    return Description(
        summary,
        tensors={
            "picture": Meaning(
                "grey, 0 is black and 1 is white", axes={"height": "", "width": "", "channel": ""}, typical=(0, 1)
            )
        },
        example=np.round(data.test.pictures[0], 3).tolist(),
    )


def _report(which: str, made: Variant, data: Data, options: ScoreOptions) -> dict[str, Any]:
    test = {"known": data.test.pictures, "near": data.near, "far": np.concatenate([*data.far.values()])}
    found = made.answers(test, options)
    report: dict[str, Any] = {
        "training_seconds": round(made.seconds, 1),
        "test_pictures": {part: len(each) for part, each in test.items()},
    }
    if which != "detector":
        report["closed_set_accuracy"] = round(
            float((closed_set(made, found["known"]["logits"]) == data.test.labels).mean()), 4
        )
    report["auroc"] = {
        method.removeprefix("scores/"): {
            part: round(_auroc(found["known"][method], found[part][method]), 4) for part in ("near", "far")
        }
        for method in found["known"]
        if method.startswith("scores/")
    }
    return report


def _auroc(known: NDArray[np.float32], unknown: NDArray[np.float32]) -> float:
    """The probability that an unknown picture has a larger score than a known one, ties counted half."""
    truth = np.repeat([0, 1], [len(known), len(unknown)])
    return float(roc_auc_score(truth, np.concatenate([known, unknown])))


def closed_set(made: Variant, logits: NDArray[np.float32]) -> Labels:
    """The known class that each row of logits is nearest to, [n]."""
    if made.classes.codes:
        signs = 2.0 * np.array(made.classes.codes) - 1
        return (logits @ signs.T).argmax(axis=1)
    return logits[:, : len(made.classes.names)].argmax(axis=1)
