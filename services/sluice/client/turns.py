"""Whose turn it is: calls of one session go one after another, in the order in which they were made.

It does not know what a call does. One that takes many sessions waits for all of them, and none can overtake it.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager


class Turns:
    """The calls of one session; each is a future that is done when its turn is over."""

    def __init__(self) -> None:
        self.last: asyncio.Future[None] | None = None


@asynccontextmanager
async def turn(of: Iterable[Turns]) -> AsyncIterator[None]:
    """Wait behind all earlier calls of these sessions; the turn is over at the end of the block."""
    queues = list(of)
    over = asyncio.get_running_loop().create_future()
    earlier = [queue.last for queue in queues if queue.last is not None and not queue.last.done()]
    for queue in queues:
        queue.last = over
    try:
        if earlier:
            await asyncio.wait(earlier)
        yield
    finally:
        _end(over, [each for each in earlier if not each.done()])


def _end(over: "asyncio.Future[None]", earlier: Sequence["asyncio.Future[None]"]) -> None:
    """End a turn; one that was given up while it waited ends when those before it have."""
    if earlier:
        asyncio.gather(*earlier).add_done_callback(lambda _: over.set_result(None))
    else:
        over.set_result(None)
