"""The metrics are Keras's own, which are float32, on the same predictions.

Its figures are written down, as an import of TensorFlow takes longer than all tests of tasks; `make test-deep` computes
them again.
"""

from typing import Any

import numpy as np
import pytest

from sluice.evaluator.tasks import task_for
from sluice.policy.scores import softmax
from tests.evaluator.tasks.puppet import Puppet, found, options, rows_of, signature, subject, tensor, values_of

ROWS = 400
PLACES = np.arange(ROWS) * 7 % 5
PROBABILITIES = softmax(3 * np.sin(np.arange(ROWS * 5).reshape(ROWS, 5) ** 1.5)).astype(np.float32)
RIGHT, ANSWERS = (
    (3 * np.sin(np.arange(1, ROWS * 12 + 1) ** power)).astype(np.float32).reshape(ROWS, 12, 1) for power in (1.4, 1.6)
)

CLASSIFICATION = {"accuracy": 0.20999999, "top_3": 0.60000002, "log_loss": 2.93879509}
NUMBERS = {"mae": 2.45771289, "mse": 9.16339874, "rmse": 3.02711058, "mape": 5.88776733, "r2": -1.06692576}


async def measured(task: Any, shape: Any, labels: Any, answers: Any) -> dict[str, float]:
    own = subject(signature("serving_default", [tensor("x", None)], [tensor("y", *shape)]))
    judged = task_for(task, own, options(), sessions=False)
    return found(judged, await values_of(judged, rows_of(labels), Puppet(lambda inputs: {"y": answers})))


async def test_metrics_of_classes_are_those_of_keras() -> None:
    own = await measured("classification", (5,), PLACES, PROBABILITIES)
    assert {name: own[name] for name in CLASSIFICATION} == pytest.approx(CLASSIFICATION, rel=1e-6)


@pytest.mark.parametrize("task", ["regression", "forecasting"])
async def test_metrics_of_numbers_are_those_of_keras(task: str) -> None:
    own = await measured(task, (12, 1), RIGHT, ANSWERS)
    assert {name: own[name] for name in NUMBERS} == pytest.approx(NUMBERS, rel=1e-6)


@pytest.mark.deep
def test_the_figures_are_those_of_keras() -> None:
    from keras import metrics

    def result(metric: Any, right: Any, answers: Any) -> float:
        metric.update_state(right, answers)
        return float(metric.result())

    classes = {
        "accuracy": metrics.SparseCategoricalAccuracy(),
        "top_3": metrics.SparseTopKCategoricalAccuracy(3),
        "log_loss": metrics.SparseCategoricalCrossentropy(),
    }
    found = {name: result(metric, PLACES, PROBABILITIES) for name, metric in classes.items()}
    assert found == pytest.approx(CLASSIFICATION, rel=1e-7)
    numbers = {
        "mae": result(metrics.MeanAbsoluteError(), RIGHT, ANSWERS),
        "mse": result(metrics.MeanSquaredError(), RIGHT, ANSWERS),
        "rmse": result(metrics.RootMeanSquaredError(), RIGHT, ANSWERS),
        "mape": result(metrics.MeanAbsolutePercentageError(), RIGHT, ANSWERS) / 100,
        "r2": result(metrics.R2Score(), RIGHT.reshape(-1, 1), ANSWERS.reshape(-1, 1)),
    }
    assert numbers == pytest.approx(NUMBERS, rel=1e-7)
