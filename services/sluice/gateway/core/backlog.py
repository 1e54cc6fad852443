"""Decides how many events of one answer may wait for their reader, who may be slower than the model.

It does not know what events are.
"""

import asyncio
from typing import TypeVar

from sluice.policy.errors import QueueFull

_E = TypeVar("_E")
_LEAST = 1024


class Backlog(asyncio.Queue[_E]):
    """The events of one answer, until they are read. `rows_limit` is how many rows a call may have.

    A row whose event finds no room fails: it cannot be paused, as it shares batches with other clients' rows. A turn of
    the loop brings one event of a row at most, so a reader who keeps up never meets the limit.
    """

    def __init__(self, rows_limit: int) -> None:
        super().__init__()
        self._rows_limit = rows_limit

    def offer(self, event: _E) -> None:
        """Raises: QueueFull: as many events wait as may. What ends a row is put without asking."""
        check_unread(self.qsize(), self._rows_limit)
        self.put_nowait(event)


def check_unread(events: int, rows_limit: int) -> None:
    """Raises: QueueFull: so many unread events leave no room for another."""
    limit = max(_LEAST, rows_limit)
    if events >= limit:
        raise QueueFull(
            f"{limit} events of this answer wait to be read: no more may. Read faster, or ask for fewer rows at once.",
            limit=limit,
        )
