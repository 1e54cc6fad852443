"""Calls that are answered together: all outcomes in order, or the first error, and nothing is left running."""

from functools import partial
from itertools import permutations

import pytest

from sluice.gateway.core.joint import together
from sluice.policy.errors import BackendError, BadRequest


class Puppets:
    """Calls that a test settles by hand."""

    def __init__(self, count):
        self.told, self.withdrawn, self.dones = [], [], []
        self.cancel = together([partial(self.begin, index) for index in range(count)], self.told.append)

    def begin(self, index, done):
        self.dones.append(done)
        return lambda: self.withdrawn.append(index)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_outcomes_are_told_in_order_when_all_are_there(order):
    calls = Puppets(3)
    for index in order:
        assert calls.told == []
        calls.dones[index](f"outcome {index}")
    assert calls.told == [["outcome 0", "outcome 1", "outcome 2"]]
    calls.cancel()
    assert calls.withdrawn == []


def test_the_first_error_is_the_answer_and_withdraws_those_that_run():
    calls, error = Puppets(3), BackendError("said no")
    calls.dones[0]("outcome")
    calls.dones[2](error)
    assert (calls.told, calls.withdrawn) == ([error], [1])
    calls.dones[1](BackendError("too late"))
    calls.dones[1]("too late")
    assert calls.told == [error]


def test_cancelling_withdraws_those_that_run_and_tells_nothing():
    calls = Puppets(2)
    calls.dones[1]("outcome")
    calls.cancel()
    calls.dones[0]("too late")
    assert (calls.told, calls.withdrawn) == ([], [0])


def test_one_that_is_refused_withdraws_those_before_it():
    withdrawn = []

    def refused(_):
        raise BadRequest("not this one")

    with pytest.raises(BadRequest):
        together([lambda _: lambda: withdrawn.append(0), refused, lambda _: withdrawn.append], withdrawn.append)
    assert withdrawn == [0]
