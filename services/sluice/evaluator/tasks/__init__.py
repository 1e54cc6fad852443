"""What each task asks of a model, which values each row gets for it, and the metrics that are made of these."""

from sluice.evaluator.spec import Options, TaskName
from sluice.evaluator.tasks.classification import Classification
from sluice.evaluator.tasks.forecasting import Forecasting
from sluice.evaluator.tasks.open_set import OpenSet
from sluice.evaluator.tasks.regression import Regression
from sluice.evaluator.tasks.sequences import Sequences
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
