"""A call that somebody waits for: begun, then settled once with an outcome or an error, or cancelled before.

It does not know what is called, nor how an answer is written.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, NamedTuple

import structlog

from sluice.policy.batch import PRIORITIES, Lane
from sluice.policy.batching import LOW_ROWS
from sluice.policy.errors import BadRequest, Internal, SluiceError

log = structlog.get_logger()

BUG = "Something went wrong inside the gateway; it has been logged."

_NORMAL = PRIORITIES["normal"]

Done = Callable[[Any], None]  # gets an outcome, or a `SluiceError`


class Terms(NamedTuple):
    """Until when a call must be answered, in the engine's seconds, its priority, and whether its batch is its own.

    See `PRIORITIES`, and of a lane `exact` and `low`.
    """

    deadline: float
    priority_s: float = _NORMAL
    exact: bool = False

    def lane(self, lane: Lane) -> Lane:
        """The lane in which rows of such a call wait."""
        if not self.exact and self.priority_s <= _NORMAL:
            return lane
        return lane._replace(exact=self.exact, low=self.low)

    def part(self, largest: int, limit: int) -> int:
        """The most rows of one part of such a call, where the largest batch has `largest` and a request `limit`."""
        if self.exact:
            return limit
        return min(largest, LOW_ROWS) if self.low else largest

    @property
    def low(self) -> bool:
        """Whether it is of low priority, and yields to others."""
        return self.priority_s > _NORMAL


def read_priority(text: str) -> float:
    """`Sluice-Priority`, a header or metadata, as `Terms.priority_s`.

    Raises:
        BadRequest: there is no such priority.
    """
    if text not in PRIORITIES:
        raise BadRequest(f"Sluice-Priority is one of {', '.join(PRIORITIES)}; got {text!r:.80}.")
    return PRIORITIES[text]


def read_batch(text: str) -> bool:
    """`Sluice-Batch`, a header or metadata, as `Terms.exact`.

    Raises:
        BadRequest: it is something else.
    """
    if text != "exact":
        raise BadRequest(
            f"Sluice-Batch takes exact, for a batch of the request's own; got {text!r:.80}. Leave it out to share."
        )
    return True


class Pending:
    """One call. `done` is called once, from the loop; not at all if the call is cancelled before.

    `make` turns an outcome, not an error, into what `done` gets; a `SluiceError` that it raises is the outcome instead.
    """

    __slots__ = ("_done", "_what", "_withdraw", "make")

    def __init__(self, done: Done, make: Callable[[Any], Any] | None = None) -> None:
        self.make = make
        self._done: Done | None = done
        self._withdraw: Callable[[Any], object] | None = None
        self._what: Any = None

    @property
    def waits(self) -> bool:
        """Whether it is neither settled nor cancelled."""
        return self._done is not None

    def begin(self, act: Callable[..., None], *arguments: Any) -> None:
        """Have `act` begin the call, with this as its last argument; what it raises is the outcome, a turn later."""
        try:
            act(*arguments, self)
        except SluiceError as error:
            refused = error
        except Exception:
            log.exception("request failed")
            refused = Internal(BUG)
        else:
            return
        self._take_back()
        asyncio.get_running_loop().call_soon(self.settle, refused)

    def runs(self, withdraw: Callable[[Any], object], what: Any) -> None:
        """`what` runs for the call now, and `withdraw(what)` takes it back."""
        if self._done is None:
            withdraw(what)
        else:
            self._withdraw, self._what = withdraw, what

    def settle(self, outcome: Any) -> None:
        """Tell whoever waits; trouble with one client's answer is not the others'."""
        done, make = self._done, self.make
        if done is None:
            return
        self._done = self._withdraw = self._what = self.make = None
        try:
            done(outcome if make is None or isinstance(outcome, SluiceError) else make(outcome))
        except Exception as trouble:
            _tell_of(trouble, outcome, done)

    def cancel(self) -> None:
        """Nobody waits any more."""
        self._done = self.make = None
        self._take_back()

    def _take_back(self) -> None:
        """Withdraw what runs for the call."""
        withdraw, what = self._withdraw, self._what
        self._withdraw = self._what = None
        if withdraw is not None:
            withdraw(what)

    def then(self, make: Callable[[Any], Any]) -> "Pending":
        """A call of which this one's outcome is made."""
        inner = Pending(self.settle, make)
        self.runs(Pending.cancel, inner)
        return inner

    def parts(self, count: int, *, each: bool = False) -> list["Pending"]:
        """Calls that are answered together: this one's outcome is a list of theirs, in order.

        The first error withdraws the others and is the outcome; but with `each` an error is an outcome as any other.
        """
        return _Parts(self, count, each=each).pending


class _Parts:
    def __init__(self, whole: Pending, count: int, *, each: bool) -> None:
        self.pending = [Pending(partial(self._settled, index)) for index in range(count)]
        self._whole = whole
        self._each = each
        self._outcomes: list[Any] = [None] * count
        self._missing = count
        whole.runs(_Parts._cancel, self)
        if not count:
            asyncio.get_running_loop().call_soon(whole.settle, self._outcomes)

    def _settled(self, index: int, outcome: Any) -> None:
        if isinstance(outcome, SluiceError) and not self._each:
            self._cancel()
            self._whole.settle(outcome)
            return
        self._outcomes[index] = outcome
        self._missing -= 1
        if not self._missing:
            self._whole.settle(self._outcomes)

    def _cancel(self) -> None:
        for part in self.pending:
            part.cancel()


def _tell_of(trouble: Exception, outcome: Any, done: Done) -> None:
    """The outcome could not be told, or nothing be made of it: tell that instead, if it was no error."""
    if not isinstance(trouble, SluiceError):
        log.error("an answer could not be given", exc_info=trouble)
        trouble = Internal(BUG)
    if not isinstance(outcome, SluiceError):
        try:
            done(trouble)
        except Exception:
            log.exception("an error could not be told")


def in_task(work: Callable[..., Coroutine[Any, Any, Any]], *arguments: Any, pending: Pending) -> None:
    """Settle a call with what `work(*arguments)` returns or raises; it may wait for more than a batch."""
    task = asyncio.get_running_loop().create_task(_finish(work, arguments, pending))
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
    pending.runs(asyncio.Task.cancel, task)


_tasks: set[asyncio.Task[None]] = set()  # the loop itself holds its tasks weakly


async def _finish(work: Callable[..., Coroutine[Any, Any, Any]], arguments: Sequence[Any], pending: Pending) -> None:
    try:
        outcome = await work(*arguments)
    except SluiceError as error:
        outcome = error
    except Exception:
        log.exception("request failed")
        outcome = Internal(BUG)
    pending.settle(outcome)


async def awaited(begin: Callable[[Pending], None]) -> Any:
    """The outcome of a call; if the task that awaits it is cancelled the call is, too.

    Raises:
        SluiceError: its outcome, or why it is refused.
    """
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    pending = Pending(partial(complete, future))
    try:
        begin(pending)
        return await future
    except BaseException:  # it is refused after something has begun, or nobody awaits it any more
        pending.cancel()
        raise


def complete(future: "asyncio.Future[Any]", outcome: Any) -> None:
    """Hand an outcome to the task that waits for it; one that has gone is left alone."""
    if future.done():
        return
    if isinstance(outcome, SluiceError):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
