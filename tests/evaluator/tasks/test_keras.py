"""The metrics are Keras's own, which are float32, on the same predictions; the only file here that imports Keras."""

from typing import Any

import numpy as np
import pytest

from sluice.evaluator.tasks import task_for
from sluice.policy.scores import softmax
from tests.evaluator.tasks.puppet import Puppet, found, options, rows_of, signature, subject, tensor, values_of

RNG = np.random.default_rng(2)
ROWS = 400


def keras_of(names: dict[str, Any], right: Any, answers: Any) -> dict[str, float]:
    results = {}
    for name, metric in names.items():
        metric.update_state(right, answers)
        results[name] = float(metric.result())
    return results


async def measured(task: Any, shape: Any, labels: Any, answers: Any) -> dict[str, float]:
    own = subject(signature("serving_default", [tensor("x", None)], [tensor("y", *shape)]))
    judged = task_for(task, own, options(), sessions=False)
    return found(judged, await values_of(judged, rows_of(labels), Puppet(lambda inputs: {"y": answers})))


async def test_metrics_are_those_of_keras() -> None:
    from keras import losses, metrics

    probabilities = softmax(RNG.normal(size=(ROWS, 5)) * 2).astype(np.float32)
    places = RNG.integers(0, 5, ROWS)
    own = await measured("classification", (5,), places, probabilities)
    expected = keras_of(
        {
            "accuracy": metrics.SparseCategoricalAccuracy(),
            "top_3": metrics.SparseTopKCategoricalAccuracy(3),
            "log_loss": metrics.SparseCategoricalCrossentropy(),
        },
        places,
        probabilities,
    )
    assert {name: own[name] for name in expected} == pytest.approx(expected, rel=1e-6)

    right, answers = RNG.normal(0.1, 3, (2, ROWS, 12, 1)).astype(np.float32)
    own = await measured("forecasting", (12, 1), right, answers)
    expected = keras_of(
        {"mae": metrics.MeanAbsoluteError(), "mse": metrics.MeanSquaredError(), "rmse": metrics.RootMeanSquaredError()},
        right,
        answers,
    )
    expected["mape"] = keras_of({"mape": metrics.MeanAbsolutePercentageError()}, right, answers)["mape"] / 100
    expected["r2"] = keras_of({"r2": metrics.R2Score()}, right.reshape(-1, 1), answers.reshape(-1, 1))["r2"]
    assert {name: own[name] for name in expected} == pytest.approx(expected, rel=1e-6)
    assert own["mae"] == pytest.approx(float(np.mean(losses.mean_absolute_error(right, answers))), rel=1e-6)
