"""The bare model: its `step` signature called in a loop, as the model server calls it, and nothing around it.

`python -m loadtests.bench.servers.bare_model FOLDER` reads lines "INTRA INTER BATCH SECONDS" (TensorFlow's threads; 0:
its choice) and answers each with a line of JSON.
"""

import json
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from loadtests.bench.workloads.steps import SIGNATURE
from sluice.log import quiet_import

with quiet_import():
    import tensorflow as tf
    from tensorflow.core.protobuf import config_pb2

_WARM_UP = 20  # calls


class BareModel:
    """A SavedModel in a Session of its own, and its step prepared as one call."""

    def __init__(self, folder: Path, intra_op: int, inter_op: int) -> None:
        graph = tf.Graph()
        config = tf.compat.v1.ConfigProto(
            intra_op_parallelism_threads=intra_op,
            inter_op_parallelism_threads=inter_op,
            use_per_session_threads=True,
        )
        session = tf.compat.v1.Session(graph=graph, config=config)
        with graph.as_default():
            loaded = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(folder))
        definition = loaded.signature_def[SIGNATURE]
        self._inputs = [definition.inputs[name] for name in sorted(definition.inputs)]
        feed = [each.name for each in self._inputs]
        fetch = [definition.outputs[name].name for name in sorted(definition.outputs)]
        options = config_pb2.CallableOptions(feed=feed, fetch=fetch)
        self._call: Callable[..., Any] = session._make_callable_from_options(options)  # noqa: SLF001 - as served

    def steps_per_s(self, batch: int, seconds: float) -> float:
        """Steps a second of back-to-back calls with `batch` rows each."""
        dice = np.random.default_rng(2)
        rows = [[dim.size for dim in each.tensor_shape.dim[1:]] for each in self._inputs]
        feed = [dice.normal(size=(batch, *row)).astype(np.float32) for row in rows]
        for _ in range(_WARM_UP):
            self._call(*feed)
        calls, began = 0, time.perf_counter()
        while (passed := time.perf_counter() - began) < seconds:
            self._call(*feed)
            calls += 1
        return batch * calls / passed


def main(folder: Path) -> None:
    model = cache(lambda intra_op, inter_op: BareModel(folder, intra_op, inter_op))
    for line in sys.stdin:
        intra_op, inter_op, batch, seconds = line.split()
        rate = model(int(intra_op), int(inter_op)).steps_per_s(int(batch), float(seconds))
        print(json.dumps({"steps_per_s": rate}), flush=True)  # noqa: T201 - the answer


if __name__ == "__main__":
    main(Path(sys.argv[1]))
