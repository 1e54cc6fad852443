"""Decides what the signatures of a planned Keras model take, run and give."""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from sluice.export.contract import SEQUENCES
from sluice.export.padding import Run, hushed
from sluice.export.plan import Plan
from sluice.export.saved_model import Endpoint, Endpoints, Tensors
from sluice.export.walk import Flow, Scan, Step, Walk, Whole, graph_of


def endpoints(model: keras.Model, plan: Plan) -> Endpoints:
    """The ways to call a planned model, by signature."""
    whole = _specs({name: (flow, flow.tensor.shape[1:]) for name, flow in plan.inputs.items()})
    lengths = {plan.lengths: tf.TensorSpec([None], "int32", plan.lengths)}
    if not plan.states:
        padded = {SEQUENCES: (_padded(model, plan), whole | lengths)} if plan.is_ragged else {}
        return {"serving_default": (_unpadded(model, plan) if plan.is_timed else _rows(model, plan), whole)} | padded
    step = _specs({name: (flow, flow.row) for name, flow in plan.inputs.items()})
    scan = _specs({name: (flow, (None, *flow.row)) for name, flow in plan.inputs.items()})
    states = {state.name: tf.TensorSpec((None, *state.shape), state.dtype, state.name) for state in plan.states}
    return {
        "step": (_step(model, plan), step | states),
        "scan": (_scan(model, plan), scan | states | lengths),
        "serving_default": (_whole(model, plan), whole),
    } | ({SEQUENCES: (_sequences(model, plan), whole | lengths)} if plan.is_ragged else {})


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


def _sequences(model: keras.Model, plan: Plan) -> Endpoint:
    return lambda given: _run(Whole(plan.memories, given[plan.lengths]), model, plan, given)


def _whole(model: keras.Model, plan: Plan) -> Endpoint:
    return lambda given: _run(Whole(plan.memories), model, plan, given)


def _run(walk: Walk, model: keras.Model, plan: Plan, given: Tensors) -> Tensors:
    flows = walk.run(model, [walk.enter(given[name], flow) for name, flow in plan.inputs.items()])
    return {name: tf.identity(walk.leave(flow)) for name, flow in zip(plan.outputs, flows, strict=True)}


def _padded(model: keras.Model, plan: Plan) -> Endpoint:
    timed = next(name for name, flow in plan.inputs.items() if flow.timed)

    def padded(given: Tensors) -> Tensors:
        within = tf.sequence_mask(given[plan.lengths], tf.shape(given[timed])[1])
        return _ran(Run(within), model, plan, given)

    return padded


def _unpadded(model: keras.Model, plan: Plan) -> Endpoint:
    return lambda given: _ran(Run(), model, plan, given)


def _ran(run: Run, model: keras.Model, plan: Plan, given: Tensors) -> Tensors:
    with hushed():
        outputs = run.run(model, [tf.identity(given[name]) for name in plan.inputs])
    return {name: tf.identity(output) for name, output in zip(plan.outputs, outputs, strict=True)}


def _rows(model: keras.Model, plan: Plan) -> Endpoint:
    return lambda given: dict(zip(plan.outputs, called(model, [given[name] for name in plan.inputs]), strict=True))


def called(model: keras.Model, inputs: list[Any]) -> list[Any]:
    """The model's outputs in order for inputs in order, whatever structures it gives and takes them in."""
    graph = graph_of(model)
    assert graph is not None
    return keras.tree.flatten(model(keras.tree.pack_sequence_as(graph._inputs_struct, inputs), training=False))
