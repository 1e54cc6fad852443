"""What all tasks have in common."""

import pickle
from typing import Any

import pytest

from sluice.evaluator.document import Metric
from sluice.evaluator.tasks import metric_names, task_for
from tests.evaluator.tasks import test_forecasting as forecasting
from tests.evaluator.tasks import test_open_set as open_set
from tests.evaluator.tasks import test_sequences as sequences
from tests.evaluator.tasks.puppet import options, signature, subject, tensor

ROWS = signature("serving_default", [tensor("x", None)], [tensor("y", 3)])
TASKS = {
    "classification": task_for("classification", subject(ROWS), options(top_k=5), sessions=False),
    "regression": task_for("regression", subject(ROWS), options(), sessions=False),
    "forecasting": forecasting.stateful(horizon=3),
    "sequences": sequences.task(),
    "open_set": open_set.task(),
}


@pytest.mark.parametrize("name", TASKS)
def test_the_metrics_of_a_task_are_known_by_name_before_a_model_is(name: Any) -> None:
    assert metric_names(name, options(top_k=5)) == tuple(TASKS[name].measures)


def test_a_model_may_lack_some_of_a_tasks_metrics() -> None:
    fewer = task_for("forecasting", subject(ROWS), options(), sessions=False)
    assert set(fewer.measures) < set(metric_names("forecasting", options()))


@pytest.mark.parametrize("name", TASKS)
def test_a_task_and_its_metrics_can_be_sent_to_another_process(name: str) -> None:
    again = pickle.loads(pickle.dumps(TASKS[name]))
    assert list(again.measures) == list(TASKS[name].measures)
    for measure in again.measures.values():
        Metric(value=None, better=measure.better)
