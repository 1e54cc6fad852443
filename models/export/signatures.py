"""Writes a SavedModel whose signatures are the ways to call the model that its contract names."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from absl import logging

from models.export.contract import step_sizes
from models.export.plan import Plan
from models.export.walk import Flow, Scan, Step, Walk, Whole, graph_of

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
    whole = _specs({name: (flow, flow.tensor.shape[1:]) for name, flow in plan.inputs.items()})
    stated = {"contract": (_contract(contract), {"probe": tf.TensorSpec([None], "int32", "probe")})}
    if not plan.states:
        return stated | {"serving_default": (_rows(model, plan), whole)}
    step = _specs({name: (flow, step_sizes(flow)) for name, flow in plan.inputs.items()})
    scan = _specs({name: (flow, (None, *step_sizes(flow))) for name, flow in plan.inputs.items()})
    states = {state.name: tf.TensorSpec((None, *state.shape), state.dtype, state.name) for state in plan.states}
    lengths = {plan.lengths: tf.TensorSpec([None], "int32", plan.lengths)}
    return stated | {
        "step": (_step(model, plan), step | states),
        "scan": (_scan(model, plan), scan | states | lengths),
        "serving_default": (_whole(model, plan), whole),
    }


def _specs(rows: Mapping[str, tuple[Flow, tuple[int | None, ...]]]) -> dict[str, tf.TensorSpec]:
    """Specifications with a free batch axis in front of each row's shape."""
    return {name: tf.TensorSpec((None, *shape), flow.tensor.dtype, name) for name, (flow, shape) in rows.items()}


def _step(model: keras.Model, plan: Plan) -> Endpoint:
    def step(given: Tensors) -> Tensors:
        walk = Step(plan.memories, given)
        return _run(walk, model, plan, given) | walk.new_states

    return step


def _scan(model: keras.Model, plan: Plan) -> Endpoint:
    def scan(given: Tensors) -> Tensors:
        walk = Scan(plan.memories, given, given[plan.lengths])
        return _run(walk, model, plan, given) | walk.new_states

    return scan


def _whole(model: keras.Model, plan: Plan) -> Endpoint:
    return lambda given: _run(Whole(plan.memories), model, plan, given)


def _run(walk: Walk, model: keras.Model, plan: Plan, given: Tensors) -> Tensors:
    flows = walk.run(model, [walk.enter(given[name], flow) for name, flow in plan.inputs.items()])
    return {name: tf.identity(walk.leave(flow)) for name, flow in zip(plan.outputs, flows, strict=True)}


def _rows(model: keras.Model, plan: Plan) -> Endpoint:
    return lambda given: dict(zip(plan.outputs, called(model, [given[name] for name in plan.inputs]), strict=True))


def called(model: keras.Model, inputs: list[Any]) -> list[Any]:
    """The model's outputs in order for inputs in order, whatever structures it gives and takes them in."""
    graph = graph_of(model)
    assert graph is not None
    return keras.tree.flatten(model(keras.tree.pack_sequence_as(graph._inputs_struct, inputs), training=False))


def _contract(text: str) -> Endpoint:
    """The same text in every row; the probe gives the number of rows, for a signature without inputs is refused."""
    return lambda given: {"contract": tf.fill(tf.shape(given["probe"]), text)}
