"""Clients of single requests over HTTP: rows, uneven sequences, pictures to recognize, texts to rewrite."""

from contextlib import suppress

from locust import tag, task

from loadtests.locust.outcomes import Failure
from loadtests.locust.scenarios import GENERATION, RECOGNITION, ROWS, SEQUENCES
from loadtests.locust.users.asking import HttpUser
from loadtests.traffic.models import DATES, DIGITS, TEMPERATURE


class RowsUser(HttpUser):
    """Has pictures classified, one or a few at a time."""

    models = (DIGITS,)
    weight = 3

    @tag("rows", "http")
    @task
    def classify(self) -> None:
        with suppress(Failure):
            self.ask(self.following(self.traffic.rows), ROWS)


class SequencesUser(HttpUser):
    """Has whole series forecast, of different lengths in one request; each answer has its series' length."""

    models = (TEMPERATURE,)
    weight = 3

    @tag("sequences", "http")
    @task
    def forecast(self) -> None:
        with suppress(Failure):
            self.ask(self.following(self.traffic.sequences), SEQUENCES)


class RecognitionUser(HttpUser):
    """Has pictures recognized, of digits and of what is none of them."""

    models = (DIGITS,)
    weight = 3

    @tag("recognition", "http")
    @task
    def recognize(self) -> None:
        with suppress(Failure):
            self.ask(self.following(self.traffic.recognition), RECOGNITION)


class GenerationUser(HttpUser):
    """Has dates rewritten, token by token."""

    models = (DATES,)
    weight = 2

    @tag("generation", "http")
    @task
    def rewrite(self) -> None:
        with suppress(Failure):
            self.ask(self.following(self.traffic.generation), GENERATION)
