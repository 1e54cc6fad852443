"""Writes a SavedModel whose signatures are the ways to call the model that its contract names."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from absl import logging

from models.export.contract import LENGTHS, step_sizes
from models.export.walk import Flow, Plan, Scan, Stateless, Step

Tensors = dict[str, tf.Tensor]
Endpoint = Callable[[Tensors], Tensors]


def write_saved_model(model: keras.Model, plan: Plan, contract: Mapping[str, Any], folder: Path) -> None:
    """Write the model's SavedModel to `folder`, with the contract in a signature and in `assets.extra`."""
    text = json.dumps(contract, ensure_ascii=False)
    archive = keras.export.ExportArchive()
    archive.track(model)
    for name, (endpoint, specs) in _endpoints(model, plan, text).items():
        archive.add_endpoint(name, endpoint, input_signature=[specs])
    with _only_errors_logged():
        archive.write_out(folder, verbose=False)
    extra = folder / "assets.extra"
    extra.mkdir()
    (extra / "contract.json").write_text(json.dumps(contract, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


@contextmanager
def _only_errors_logged() -> Iterator[None]:
    """TensorFlow warns that a name such as `lstm/h` is no Python parameter; the signature's key keeps the slash."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _endpoints(
    model: keras.Model, plan: Plan, contract: str
) -> dict[str, tuple[Endpoint, Mapping[str, tf.TensorSpec]]]:
    entry = plan.input.tensor
    sequence = _specs({plan.input_name: (entry.dtype, entry.shape[1:])})
    stated = {"contract": (_contract(contract), _specs({"probe": ("int32", ())}))}
    if not plan.states:
        return stated | {"serving_default": (_rows(model, plan), sequence)}
    step = _specs({plan.input_name: (entry.dtype, step_sizes(plan.input))})
    states = _specs({state.name: (state.dtype, state.shape) for state in plan.states})
    lengths = _specs({LENGTHS: ("int32", ())})
    return stated | {
        "step": (_step(model, plan), step | states),
        "scan": (_scan(model, plan), sequence | states | lengths),
        "serving_default": (_stateless(model, plan), sequence),
    }


def _specs(rows: Mapping[str, tuple[str, tuple[int | None, ...]]]) -> dict[str, tf.TensorSpec]:
    """Specifications with a free batch axis in front of each row's (dtype, shape)."""
    return {name: tf.TensorSpec((None, *shape), dtype, name) for name, (dtype, shape) in rows.items()}


def _step(model: keras.Model, plan: Plan) -> Endpoint:
    def step(given: Tensors) -> Tensors:
        walk = Step(plan, given)
        return _run(walk, model, plan, given) | walk.new_states

    return step


def _scan(model: keras.Model, plan: Plan) -> Endpoint:
    def scan(given: Tensors) -> Tensors:
        walk = Scan(plan, given, given[LENGTHS])
        return _run(walk, model, plan, given) | walk.new_states

    return scan


def _stateless(model: keras.Model, plan: Plan) -> Endpoint:
    return lambda given: _run(Stateless(), model, plan, given)


def _run(walk: Step | Scan | Stateless, model: keras.Model, plan: Plan, given: Tensors) -> Tensors:
    outputs = walk.run(model, [Flow(given[plan.input_name], timed=True)])
    return {name: tf.identity(flow.tensor) for name, flow in zip(plan.outputs, outputs, strict=True)}


def _rows(model: keras.Model, plan: Plan) -> Endpoint:
    def rows(given: Tensors) -> Tensors:
        outputs = keras.tree.flatten(model(given[plan.input_name], training=False))
        return dict(zip(plan.outputs, outputs, strict=True))

    return rows


def _contract(text: str) -> Endpoint:
    """The same text in every row; the probe gives the number of rows, for a signature without inputs is refused."""
    return lambda given: {"contract": tf.fill(tf.shape(given["probe"]), text)}
