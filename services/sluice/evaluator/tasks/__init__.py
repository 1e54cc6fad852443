"""What each task asks of a model, which values each row gets for it, and the metrics that are made of these."""

from sluice.evaluator.spec import Options, TaskName
from sluice.evaluator.tasks.classification import Classification, classification_measures
from sluice.evaluator.tasks.errors import error_measures
from sluice.evaluator.tasks.forecasting import Forecasting, forecast_measures
from sluice.evaluator.tasks.open_set import MEASURES, OpenSet
from sluice.evaluator.tasks.regression import Regression
from sluice.evaluator.tasks.sequences import Sequences, sequence_measures
from sluice.evaluator.tasks.task import Subject as Subject
from sluice.evaluator.tasks.task import Task


def task_for(name: TaskName, subject: Subject, options: Options, *, sessions: bool) -> Task:
    """A task for a model version; `sessions` says whether the data tells of which session rows are.

    Raises:
        BadRequest: the model is not one for this task, or the options do not say which output is judged.
    """
    match name:
        case "classification":
            return Classification(subject, options)
        case "regression":
            return Regression(subject, options)
        case "forecasting":
            return Forecasting(subject, options, sessions=sessions)
        case "sequences":
            return Sequences(subject, options)
        case "open_set":
            return OpenSet(subject, options)


def metric_names(name: TaskName, options: Options) -> tuple[str, ...]:
    """Every metric that the task has for some model; which of them one has is known when it is looked at."""
    match name:
        case "classification":
            return (*classification_measures(options),)
        case "regression":
            return (*error_measures(),)
        case "forecasting":
            return (*forecast_measures(free=True, stateless=True),)
        case "sequences":
            return (*sequence_measures(),)
        case "open_set":
            return (*MEASURES,)
