"""Tells those who watch an evaluation that something about it has changed; all in one event loop."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class Changes:
    def __init__(self) -> None:
        self.ended = False  # the evaluator stops: nothing will change any more
        self._watching: dict[str, set[asyncio.Event]] = defaultdict(set)

    @contextmanager
    def of(self, id: str) -> Iterator[asyncio.Event]:
        """An event that is set at each change from now on."""
        changed = asyncio.Event()
        self._watching[id].add(changed)
        try:
            yield changed
        finally:
            self._watching[id].discard(changed)
            if not self._watching[id]:
                del self._watching[id]

    def tell(self, id: str) -> None:
        for changed in self._watching.get(id, ()):
            changed.set()

    def end(self) -> None:
        self.ended = True
        for id in self._watching:
            self.tell(id)
