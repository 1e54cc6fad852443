"""Requests of one turn of the loop are decided together, and each is settled once, whatever becomes of the others."""

import asyncio

import numpy as np
import pytest

from sluice.gateway.core.decisions import Answered, Decisions, Rule
from sluice.gateway.core.pending import Pending
from sluice.policy.calibration_document import parse_calibration
from sluice.policy.contract_document import parse_contract
from sluice.policy.errors import SluiceError
from tests.gateway.puppet import SIDES, strangeness
from tests.gateway.sides import LEFT, RIGHT, STRANGE, document

RECOGNITION = parse_contract(SIDES).recognition
RULE = Rule(
    "sides", 1, RECOGNITION, parse_calibration(document()), "knn", 0.05, 3, False, 0.95, ("knn",), ("knn",),
    RECOGNITION.signature, (),
)  # fmt: skip


class Clients:
    """Those who wait, and what they are told: labels, or an error's code."""

    def __init__(self):
        self.told = {}
        self.counted = 0
        self.stopped = []
        self.decisions = Decisions(self)

    def recognized(self, verdicts):
        self.counted += len(verdicts.results)

    def ask(self, name, *rows, breaks=False, spoil=lambda answered: answered):
        def done(outcome):
            assert name not in self.told or breaks
            is_error = isinstance(outcome, SluiceError)
            self.told[name] = outcome.code if is_error else [each.label for each in outcome.results]
            if breaks and not is_error:
                raise RuntimeError("cannot write it")

        pending = Pending(done)
        pending.runs(self.stopped.append, name)
        answer = strangeness(np.array(rows, np.float32))
        answered = Answered(RULE, answer["logits"], {"knn": answer["scores/knn"]}, pending)
        self.decisions.add(spoil(answered))
        return pending


@pytest.fixture
def clients():
    return Clients()


async def test_each_gets_its_own_rows_at_the_end_of_the_turn(clients):
    clients.ask("one", LEFT)
    clients.ask("three", RIGHT, STRANGE, LEFT)
    clients.ask("two", STRANGE, LEFT)
    assert clients.told == {}
    await asyncio.sleep(0)
    assert clients.told == {"one": ["left"], "three": ["right", None, "left"], "two": [None, "left"]}
    assert clients.counted == 6
    clients.ask("later", LEFT)
    await asyncio.sleep(0)
    assert clients.told["later"] == ["left"]


async def test_who_has_left_is_not_told_and_not_counted(clients):
    clients.ask("gone", LEFT, LEFT).cancel()
    clients.ask("here", RIGHT)
    await asyncio.sleep(0)
    assert (clients.told, clients.counted) == ({"here": ["right"]}, 1)
    clients.ask("alone", LEFT).cancel()
    await asyncio.sleep(0)
    assert "alone" not in clients.told
    assert clients.stopped == ["gone", "alone"]


async def test_trouble_with_one_answer_is_not_the_others(clients, logs):
    clients.ask("one", LEFT)
    clients.ask("broken", RIGHT, breaks=True)
    clients.ask("other", STRANGE)
    await asyncio.sleep(0)
    assert clients.told == {"one": ["left"], "broken": "internal", "other": [None]}
    assert [event["event"] for event in logs] == ["an answer could not be given"]


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda said: said._replace(logits=said.logits[:, :2]), "backend_error"),
        (lambda said: said._replace(logits=said.logits * np.nan), "backend_error"),
        (lambda said: said._replace(scores={"knn": said.scores["knn"][:0]}), "backend_error"),
        (lambda said: said._replace(scores={}), "backend_error"),
        (lambda said: said._replace(scores={"knn": None}), "backend_error"),
        (lambda said: said._replace(logits=None), "internal"),
    ],
)
@pytest.mark.parametrize("place", [0, 1])
async def test_an_answer_of_no_use_fails_its_own_request_only(clients, spoil, code, place):
    names = ["spoilt", "good"] if place == 0 else ["good", "spoilt"]
    for name in names:
        clients.ask(name, LEFT, **({"spoil": spoil} if name == "spoilt" else {}))
    await asyncio.sleep(0)
    assert clients.told == {"good": ["left"], "spoilt": code}
    assert clients.counted == 1
