"""Decides whether rows of different lengths can share a batch of a model that is not stepped, by running it both ways.

Each layer is asked with the rows alone and with all of them padded: the answers of a trained classifier hardly move,
what its layers give does.
"""

from collections.abc import Sequence
from dataclasses import replace

import keras
import numpy as np
import tensorflow as tf

from sluice.export.contract import UNDESCRIBED, Description
from sluice.export.errors import named
from sluice.export.names import legal_scopes
from sluice.export.padding import Run, hushed
from sluice.export.plan import Plan, plan_for
from sluice.export.verify import Arrays, difference, lengths_of, meant, row_of, samples, tolerance


def planned(model: keras.Model, description: Description = UNDESCRIBED, steps: bool = False) -> Plan:
    """How `model` can be served; whole sequences are padded only where that changes no answer.

    Raises:
        ExportError, CannotStep: as `plan_for`.
    """
    plan = plan_for(model, steps)
    if plan.states or not plan.is_ragged:
        return plan
    x = samples(model, plan, description)
    with tf.device("/CPU:0"), legal_scopes(model), hushed():
        return replace(plan, one_length=_apart(model, plan, x) or _seen(model, plan, x))


def _apart(model: keras.Model, plan: Plan, x: Arrays) -> str:
    """Which of several sequences of a row may have a length of its own, for which the contract has no word."""
    timed = [name for name, flow in plan.inputs.items() if flow.timed]
    for name in timed if len(timed) > 1 else ():
        try:
            Run().run(model, _tensors(x | {name: x[name][:, :-1]}))
        except Exception:  # noqa: S112 - what a layer raises is not said anywhere
            continue
        return f"'{name}' may be of another length than '{next(other for other in timed if other != name)}'"
    return ""


def _tensors(x: Arrays) -> list[tf.Tensor]:
    return [*map(tf.convert_to_tensor, x.values())]


def _seen(model: keras.Model, plan: Plan, x: Arrays) -> str:
    """Which layer answers a row otherwise when it is padded, if one does."""
    lengths = lengths_of(plan, x)
    together = Run(tf.sequence_mask(lengths))
    alone = [Run() for _ in lengths]
    running = together
    try:
        together.run(model, _tensors(x))
        for row, running in enumerate(alone):
            running.run(model, _tensors(row_of(plan, x, row, lengths[row])))
    except Exception:
        return _sentence(running.running)
    allowed, astray = tolerance(model), list[keras.Operation]()
    for place, (operation, outputs) in enumerate(together.gave):
        for number, (padded, timed) in enumerate(outputs):
            expected = [run.gave[place][1][number][0] for run in alone]
            pairs = [(_cut(padded, timed, row, lengths[row]), each) for row, each in enumerate(expected)]
            if any(_differs(answer, each, meant(each) if timed else None) > allowed for answer, each in pairs):
                return _sentence(operation, astray)
            if any(_differs(answer, each) > allowed for answer, each in pairs):
                astray.append(operation)
            if (
                not timed
                and not getattr(operation, "supports_masking", False)
                and not _given(operation).isdisjoint(astray)
            ):
                return _sentence(operation, astray)  # of other rows or weights the answer may differ
    return ""


def _cut(padded: tf.Tensor, timed: bool, row: int, length: int) -> np.ndarray:
    """One row of a padded output at its own length."""
    answer = keras.ops.convert_to_numpy(padded)[row : row + 1]
    return answer[:, :length] if timed else answer


def _differs(answer: np.ndarray, alone: tf.Tensor, valid: np.ndarray | None = None) -> float:
    return difference(answer, keras.ops.convert_to_numpy(alone), valid)


def _sentence(layer: keras.Operation, astray: Sequence[keras.Operation] = ()) -> str:
    """Why a layer answers otherwise; `astray` are those that do so at masked steps, where no layer should look."""
    if _given(layer).isdisjoint(astray):
        return f"{named(layer)} sees the padding behind shorter rows"
    return (
        f"{named(layer)} takes no mask, and sees what {named(astray[0])} gives at masked steps, which depends on the "
        "padding"
    )


def _given(layer: keras.Operation) -> set[keras.Operation]:
    """The layers whose outputs it takes."""
    return {each._keras_history.operation for node in layer._inbound_nodes for each in node.input_tensors}
