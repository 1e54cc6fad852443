"""Decides what the signatures of a recognizer take, run and give, and what its contract says of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import tensorflow as tf

from sluice.export.contract import Description, Meaning, contract
from sluice.export.plan import Plan
from sluice.export.saved_model import Endpoint, Endpoints, Tensors
from sluice.export.scores import METHODS, OF_FEATURES, Score
from sluice.export.walk import Flow, Span

SERVING, RECOGNIZE = "serving_default", "recognize"
LOGITS, FEATURES = "logits", "features"


@dataclass(frozen=True, slots=True)
class Detector:
    """A model that is served in front of a classifier and tells known inputs from others.

    Attributes:
        model: its name.
        known: the place of "known" among its two logits.
    """

    model: str
    known: int = 0


@dataclass(frozen=True, slots=True)
class Classes:
    """What a classifier's logits mean.

    Attributes:
        names: the text of each known class, in the order of the labels.
        other: whether one more logit, the last, is that of everything else.
        codes: for output codes, the 0s and 1s that each class has at the units; the logits are those of the units.
        detector: who is asked too, and must say "known".
    """

    names: Sequence[str]
    other: bool = False
    codes: Sequence[Sequence[int]] | None = None
    detector: Detector | None = None

    @property
    def logits(self) -> int:
        """How many logits there are."""
        return len(self.codes[0]) if self.codes else len(self.names) + self.other

    @property
    def methods(self) -> tuple[str, ...]:
        """The scores that can be had; units of a code are no classes, and have no energy."""
        return OF_FEATURES if self.codes else (*METHODS,)

    def of_known(self, logits: Any) -> Any:
        """The logits without that of everything else."""
        return logits[:, : len(self.names)] if self.other else logits


def endpoints(
    whole: keras.Model, flows: Mapping[str, Flow], scores: Mapping[str, Score], classes: Classes
) -> Endpoints:
    """The signatures by name.

    Args:
        whole: inputs to [features [batch, d], logits [batch, class]].
        flows: its inputs by name, in order.
        scores: by method, what runs.
        classes: what the logits mean.
    """

    def run(given: Tensors) -> list[tf.Tensor]:
        return [tf.cast(each, tf.float32) for each in whole([given[name] for name in flows], training=False)]

    def serving(given: Tensors) -> Tensors:
        return {LOGITS: run(given)[1]}

    def recognize(given: Tensors) -> Tensors:
        features, logits = run(given)
        found = {output_of(method): score(features, classes.of_known(logits)) for method, score in scores.items()}
        return {LOGITS: logits, FEATURES: features} | found

    specs = {
        name: tf.TensorSpec((None, *flow.tensor.shape[1:]), flow.tensor.dtype, name) for name, flow in flows.items()
    }
    every: dict[str, Endpoint] = {SERVING: serving} | ({RECOGNIZE: recognize} if scores else {})
    return {name: (endpoint, specs) for name, endpoint in every.items()}


def output_of(method: str) -> str:
    """The output that gives a method's score."""
    return f"scores/{method}"


def document(
    whole: keras.Model, flows: Mapping[str, Flow], methods: Sequence[str], classes: Classes, description: Description
) -> dict[str, Any]:
    """The contract of these signatures.

    Raises:
        ExportError: the description speaks of a tensor that the model does not have, names too many or few axes, or
            gives an example of other inputs.
    """
    outputs = _outputs(whole, methods)
    stated = contract(Plan(flows, outputs), _described(description, outputs, classes))
    recognize = stated["signatures"][SERVING]
    serving = recognize | {"outputs": {LOGITS: recognize["outputs"][LOGITS]}}
    signatures = {SERVING: serving} | ({RECOGNIZE: recognize} if methods else {})
    return stated | {
        "signatures": signatures,
        "recognition": _recognition(flows, methods, classes, description),
    }


def _outputs(whole: keras.Model, methods: Sequence[str]) -> dict[str, Flow]:
    features, logits = (each.shape[1] for each in whole.outputs)
    shapes: dict[str, tuple[int | None, ...]] = {LOGITS: (None, logits)}
    if methods:
        shapes |= {FEATURES: (None, features)} | {output_of(method): (None,) for method in methods}
    return {name: Flow(keras.KerasTensor(shape, "float32"), Span.ROW) for name, shape in shapes.items()}


def _described(description: Description, outputs: Mapping[str, Flow], classes: Classes) -> Description:
    names = ", ".join([*classes.names, *(["other"] if classes.other else [])])
    meanings = {
        LOGITS: Meaning(
            "logits of the units of an output code" if classes.codes else "logits",
            axes={"unit": ""} if classes.codes else {"class": names},
        ),
        FEATURES: Meaning("what the classifier sees in the input"),
    }
    strangeness = Meaning("how strange the input is to the training data; larger = stranger")
    known = {name: meanings.get(name, strangeness) for name in outputs}
    return replace(description, tensors=known | dict(description.tensors))


def _recognition(
    flows: Mapping[str, Flow], methods: Sequence[str], classes: Classes, description: Description
) -> dict[str, Any]:
    about: dict[str, Any] = {"signature": SERVING, "logits": LOGITS, "classes": [*classes.names]}
    if methods:
        about |= {"scores_signature": RECOGNIZE, "scores": {method: output_of(method) for method in methods}}
    if classes.other:
        about["other"] = len(classes.names)
    if classes.codes:
        about["codes"] = [[*map(int, code)] for code in classes.codes]
    if classes.detector:
        about["detector"] = {"model": classes.detector.model, "known": classes.detector.known}
    typical = [description.tensors.get(name, Meaning()).typical for name in flows]
    if len(typical) == 1 and typical[0]:
        about["range"] = [*map(float, typical[0])]
    return about
