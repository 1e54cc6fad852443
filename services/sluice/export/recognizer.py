"""Exports a classifier that can say "none of these": logits, and how strange each input is to its training data."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from sluice.export.classifier import Classifier, classifier
from sluice.export.contract import UNDESCRIBED, Description, Meaning
from sluice.export.errors import ExportError
from sluice.export.exporter import Writer, export_endpoints
from sluice.export.plan import Plan
from sluice.export.recognition import Classes, document, endpoints
from sluice.export.saved_model import Endpoints
from sluice.export.scores import METHODS, Head, Known, ScoreOptions
from sluice.export.verify import Call, samples, tolerance
from sluice.export.walk import Flow, Span

_BATCH = 512
_VERIFIED_ROWS = 8
_SEED = 20260101

Array = NDArray[Any]
Inputs = Mapping[str, Array]
DEFAULT_OPTIONS = ScoreOptions()


def export_recognizer(
    model: keras.Model,
    features_layer: str | None,
    train_data: tuple[Array | Inputs, Array] | None,
    folder: Path,
    *,
    classes: Classes,
    description: Description = UNDESCRIBED,
    methods: Sequence[str] | None = None,
    options: ScoreOptions = DEFAULT_OPTIONS,
    assets: Mapping[str, Writer] | None = None,
) -> Path:
    """Export a classifier with scores that are fitted to its training data, and the contract that names them.

    `serving_default` gives the logits alone. `recognize` gives `logits`, `features` and `scores/METHOD`, float32
    [batch], larger = stranger.

    Args:
        model: a built Sequential or functional classifier whose output is logits, or a softmax or sigmoid of them; it
            is not changed.
        features_layer: the name of a layer of it, whose output is [batch, d]; None, as `train_data`, for logits alone.
        train_data: inputs [n, ...], by name where there are several, and their labels, int [n], from 0 to the number
            of known classes - 1.
        folder: DIR/NAME/VERSION, TensorFlow Serving's layout.
        classes: what the logits mean.
        description: what the model and its tensors mean to people. The usual range of a single input goes into the
            contract too; that of the training data where the description gives none.
        methods: which scores are written; all that can be had by default. With none there is no `recognize`.
        options: what the methods leave to be chosen.
        assets: file name in `assets.extra` → function that writes it to the path it is given.
    Returns:
        `folder`, which appears complete and verified or not at all.

    Raises:
        ExportError: there is no such layer, or its output has another rank; the logits are not as many as the classes
            need; labels are not 0 … n-1; features are not finite; a method is unknown, or cannot be fitted to this
            data; the folder is not a free version, or the exported model answers differently from Keras.
    """
    if train_data is None:
        methods = _no_methods(methods)
        parts, x, served = _unfitted(model, classes, description)
    else:
        parts, x, served = _fitted(model, features_layer, train_data, classes, methods, options)
        description = _ranged(description, _flows(parts), x)
    return export_endpoints(
        parts.whole,
        served,
        document(parts.whole, _flows(parts), _wanted(methods, classes), classes, description),
        folder,
        [*_calls(served, x, description)],
        assets,
        tolerance(model),
    )


def fit_recognizer(
    model: keras.Model,
    features_layer: str,
    train_data: tuple[Array | Inputs, Array],
    *,
    classes: Classes,
    methods: Sequence[str] | None = None,
    options: ScoreOptions = DEFAULT_OPTIONS,
) -> Endpoints:
    """The signatures that `export_recognizer` would write: what runs, and what it takes, by name.

    Raises:
        ExportError: as there, save for what concerns the folder.
    """
    return _fitted(model, features_layer, train_data, classes, methods, options)[-1]


def _no_methods(methods: Sequence[str] | None) -> Sequence[str]:
    if methods:
        raise ExportError(f"method '{methods[0]}': expected training data that it can be fitted to, got none")
    return ()


def _unfitted(model: keras.Model, classes: Classes, description: Description) -> tuple[Classifier, Inputs, Endpoints]:
    """The logits alone, and random rows."""
    parts = classifier(model, None)
    flows = _flows(parts)
    x = samples(parts.whole, Plan(flows, {}), description)
    logits = parts.whole([*x.values()], training=False)[1]
    _check_logits(keras.ops.convert_to_numpy(logits).astype(np.float64), classes)
    return parts, x, endpoints(parts.whole, flows, {}, classes)


def _fitted(
    model: keras.Model,
    features_layer: str | None,
    train_data: tuple[Array | Inputs, Array],
    classes: Classes,
    methods: Sequence[str] | None,
    options: ScoreOptions,
) -> tuple[Classifier, Inputs, Endpoints]:
    wanted = _wanted(methods, classes)
    parts = classifier(model, features_layer)
    flows = _flows(parts)
    x, labels = _checked(train_data, flows, classes)
    known = _seen(parts, x, labels, classes, features_layer)
    return parts, x, endpoints(parts.whole, flows, {each: METHODS[each](known, options) for each in wanted}, classes)


def _ranged(description: Description, flows: Mapping[str, Flow], x: Inputs) -> Description:
    """With each input's range as the training data has it, unless it is described; whole numbers have no scale."""
    tensors = dict(description.tensors)
    for name, rows in ((name, x[name]) for name, flow in flows.items() if "float" in flow.tensor.dtype):
        about = tensors.get(name, Meaning())
        if rows.dtype.kind in "fiu" and about.typical is None and np.isfinite(rows).all() and np.ptp(rows):
            tensors[name] = replace(about, typical=(float(rows.min()), float(rows.max())))
    return replace(description, tensors=tensors)


def _flows(parts: Classifier) -> dict[str, Flow]:
    return {each._keras_history.operation.name: Flow(each, Span.ROW) for each in parts.whole.inputs}


def _wanted(methods: Sequence[str] | None, classes: Classes) -> Sequence[str]:
    wanted = classes.methods if methods is None else methods
    for method in wanted:
        if method not in classes.methods:
            why = "; the logits of output codes are no classes'" if method in METHODS else ""
            raise ExportError(f"method '{method}': expected one of {', '.join(classes.methods)}{why}")
    return wanted


def _checked(
    data: tuple[Array | Inputs, Array], flows: Mapping[str, Flow], classes: Classes
) -> tuple[Inputs, NDArray[np.int64]]:
    given, labels = data[0], np.asarray(data[1])
    x = given if isinstance(given, Mapping) else {next(iter(flows)): given}
    if x.keys() != flows.keys():
        raise ExportError(f"training data of {', '.join(x)}: expected each input by name ({', '.join(flows)})")
    for name, rows in x.items():
        if len(rows) != len(labels):
            raise ExportError(
                f"training data of '{name}': expected a row for each of the {len(labels)} labels, got {len(rows)}"
            )
    last, found = len(classes.names) - 1, np.unique(labels)
    if labels.ndim != 1 or found.tolist() != [*range(last + 1)]:
        raise ExportError(
            f"labels: expected int [n] with each of 0 … {last} for the classes {', '.join(classes.names)}, got "
            f"{', '.join(map(str, found[:10]))} in {list(labels.shape)}; number the classes from 0, and leave unknown "
            "inputs out"
        )
    return {name: x[name] for name in flows}, labels.astype(np.int64)


def _seen(parts: Classifier, x: Inputs, labels: NDArray[np.int64], classes: Classes, layer: str | None) -> Known:
    """The training data's features, and the logits of the known classes."""
    batches = [
        parts.whole([rows[start : start + _BATCH] for rows in x.values()], training=False)
        for start in range(0, len(labels), _BATCH)
    ]
    features, logits = (
        np.concatenate([keras.ops.convert_to_numpy(each).astype(np.float64) for each in output])
        for output in zip(*batches, strict=True)
    )
    _check_finite(f"features of layer '{layer}'", features)
    _check_finite("logits", logits)
    _check_logits(logits, classes)
    return Known(features, classes.of_known(logits), labels, _of_known(parts.head, classes))


def _check_finite(name: str, rows: Array) -> None:
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        raise ExportError(
            f"{name}: expected finite numbers, got NaN or infinity in {np.count_nonzero(~finite)} of {len(rows)} rows "
            f"of the training data, first in row {np.argmin(finite)}; look at the inputs, and at the training"
        )


def _check_logits(logits: Array, classes: Classes) -> None:
    if logits.shape[1] == 1 and not classes.codes:
        raise ExportError(
            "logits: expected one for each class, 2 or more, got 1, which answers yes or no; end the model in "
            f"Dense({max(2, len(classes.names))}, activation='softmax'), and name a class for each"
        )
    if logits.shape[1] != classes.logits:
        raise ExportError(
            f"logits: expected {classes.logits} of them for the classes that are named, got "
            f"{logits.shape[1]}; name {logits.shape[1]} classes. (One more, for all else, needs `other`, any other "
            "number `codes`: from Python.)"
        )
    if (logits >= 0).all() and np.allclose(logits.sum(axis=1), 1):
        raise ExportError(
            "logits: expected values before a softmax, got probabilities; end the model in a Dense layer, with or "
            "without softmax"
        )


def _of_known(head: Head | None, classes: Classes) -> Head | None:
    if head is None or not classes.other:
        return head
    count = len(classes.names)
    return Head(
        lambda features: head.run(features)[:, :count],
        None if head.kernel is None else head.kernel[:, :count],
        None if head.bias is None else head.bias[:count],
    )


def _calls(served: Endpoints, x: Inputs, description: Description) -> Iterator[Call]:
    """One row, and several: of the training data, and at random from the usual range where there is one."""
    random = np.random.default_rng(_SEED)
    rows = {name: each[:_VERIFIED_ROWS] for name, each in x.items()}
    for name, each in x.items():
        typical = description.tensors.get(name, Meaning()).typical
        if typical and each.dtype.kind == "f":
            drawn = random.uniform(*typical, rows[name].shape).astype(each.dtype)
            rows[name] = np.where(np.arange(len(drawn)).reshape(-1, *[1] * (drawn.ndim - 1)) % 2, drawn, rows[name])
    for count in (1, _VERIFIED_ROWS):
        inputs = {name: each[:count] for name, each in rows.items()}
        given = {name: tf.constant(each) for name, each in inputs.items()}
        for signature, (endpoint, specs) in served.items():
            cast = {name: tf.cast(given[name], spec.dtype) for name, spec in specs.items()}
            expected = {name: output.numpy() for name, output in endpoint(cast).items()}
            yield Call(signature, {name: each.numpy() for name, each in cast.items()}, expected, {})
