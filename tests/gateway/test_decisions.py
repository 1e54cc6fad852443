"""Cases of one turn of the loop are decided together, and each is ended once, whatever becomes of the others."""

import asyncio
import gc
import weakref

import numpy as np
import pytest

from sluice.gateway.core.decisions import Decisions, RecognizeCall, Rule
from sluice.policy.calibration_document import parse_calibration
from sluice.policy.contract_document import parse_contract
from sluice.policy.errors import SluiceError
from tests.gateway.puppet import SIDES, strangeness
from tests.gateway.sides import LEFT, RIGHT, STRANGE, document

RECOGNITION = parse_contract(SIDES).recognition
RULE = Rule(
    "sides", 1, RECOGNITION, parse_calibration(document()), "knn", 0.05, 3, False, 0.95, ("knn",), ("knn",),
    "recognize", (),
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

    def ask(self, name, *rows, breaks=False):
        def done(outcome):
            assert name not in self.told or breaks
            is_error = isinstance(outcome, SluiceError)
            self.told[name] = outcome.code if is_error else [each.label for each in outcome.results]
            if breaks and not is_error:
                raise RuntimeError("cannot write it")

        inputs = {"x": np.array(rows, np.float32)}
        case = RecognizeCall(RULE, lambda *_: inputs, done)
        case.read(RULE.recognition.signature, len(rows))
        case.stop = lambda: self.stopped.append(name)
        answer = strangeness(np.array(rows, np.float32))
        case.logits, case.scores = answer["logits"], {"knn": answer["scores/knn"]}
        self.decisions.add(case)
        return case


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
    clients.ask("gone", LEFT, LEFT).withdraw()
    clients.ask("here", RIGHT)
    await asyncio.sleep(0)
    assert (clients.told, clients.counted) == ({"here": ["right"]}, 1)
    clients.ask("alone", LEFT).withdraw()
    await asyncio.sleep(0)
    assert "alone" not in clients.told
    assert clients.stopped == ["gone", "alone"]


@pytest.mark.parametrize(("withdrawn", "told"), [(False, {"one": ["left"]}), (True, {})])
async def test_what_has_ended_is_freed_without_the_garbage_collector(clients, withdrawn, told):
    class Calls:
        def stop(self):
            """Knows the case whose calls it stops."""

    calls = Calls()
    calls.case = clients.ask("one", LEFT)
    calls.case.stop = calls.stop
    if withdrawn:
        calls.case.withdraw()
    left = weakref.ref(calls)
    gc.disable()
    try:
        del calls
        await asyncio.sleep(0)
        assert (clients.told, left()) == (told, None)
    finally:
        gc.enable()


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
        (lambda case: setattr(case, "logits", case.logits[:, :2]), "backend_error"),
        (lambda case: setattr(case, "logits", case.logits * np.nan), "backend_error"),
        (lambda case: setattr(case, "scores", {"knn": case.scores["knn"][:0]}), "backend_error"),
        (lambda case: setattr(case, "scores", {}), "backend_error"),
        (lambda case: setattr(case, "scores", {"knn": None}), "backend_error"),
        (lambda case: setattr(case, "logits", None), "internal"),
    ],
)
@pytest.mark.parametrize("place", [0, 1])
async def test_an_answer_of_no_use_fails_its_own_case_only(clients, spoil, code, place):
    names = ["spoilt", "good"] if place == 0 else ["good", "spoilt"]
    cases = {name: clients.ask(name, LEFT) for name in names}
    spoil(cases["spoilt"])
    await asyncio.sleep(0)
    assert clients.told == {"good": ["left"], "spoilt": code}
    assert clients.counted == 1
