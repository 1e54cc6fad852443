"""A client that evaluates a model beside the live traffic, and compares the metrics with Keras' own."""

from contextlib import suppress

import gevent
from locust import tag, task

from loadtests.locust.outcomes import Failure, Refused, Unreachable
from loadtests.locust.scenarios import EVALUATE, FORGET, LOOK, UPLOAD
from loadtests.locust.users.asking import HttpUser
from loadtests.traffic.checks import text_of
from loadtests.traffic.evaluations import Evaluated, asking, forgetting, looking, resuming, uploading
from loadtests.traffic.models import TEMPERATURE

_POLL_S = 0.5
_PAUSES = 10  # times as long as others'


class EvaluationUser(HttpUser):
    """Uploads labelled rows, has them evaluated, looks until it is done, and deletes all of it: one at a time.

    There is one such client in a run, and its pauses are long: an evaluation costs as much as many other requests.
    """

    models = (TEMPERATURE,)
    fixed_count = 1

    def wait_time(self) -> float:
        return _PAUSES * super().wait_time()

    @tag("evaluation", "http")
    @task
    def evaluate(self) -> None:
        evaluated = self.traffic.evaluation
        assert evaluated is not None
        with suppress(Failure):
            upload = text_of(self.ask(uploading(evaluated), UPLOAD), "upload")
            evaluation = text_of(self.ask(asking(evaluated, upload), EVALUATE), "evaluation")
            while self._goes_on(evaluated, evaluation):
                gevent.sleep(_POLL_S)
            self.ask(forgetting(evaluation), FORGET)

    def _goes_on(self, evaluated: Evaluated, evaluation: str) -> bool:
        """Whether it is not done yet; one that is paused, as what it asks was away, is resumed.

        Raises:
            Failure: it has not come to the right end, or is gone.
        """
        try:
            status = text_of(self.ask(looking(evaluated, evaluation), LOOK), "status")
            if status == "paused":
                self.ask(resuming(evaluation), EVALUATE)
        except (Unreachable, Refused) as failure:
            if str(failure) == "evaluation_not_found":
                raise
            return True
        return status != "done"
