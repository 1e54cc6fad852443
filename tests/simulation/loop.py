"""An event loop whose time is made up: it jumps to the next timer when nothing else is left to do.

The same coroutines take the same turns in the same order every time, so a turn can be named by its number.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any


class Deadlock(Exception):
    """Everything waits, and no timer will ever end it."""


class _Jumping(selectors.SelectSelector):
    loop: "VirtualLoop"

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if not ready and timeout != 0:
            self.loop.jump()
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """`on_turn` is called with the turn's number at the beginning of each turn of the loop."""

    def __init__(self) -> None:
        selector = _Jumping()
        selector.loop = self
        super().__init__(selector)
        self.turn = 0
        self.on_turn: Callable[[int], None] | None = None
        self.troubles: list[dict[str, Any]] = []
        self._now = 1000.0
        self.set_exception_handler(lambda _, context: self.troubles.append(context))

    def time(self) -> float:
        return self._now

    def jump(self) -> None:
        """Go on to the next timer, exactly.

        Raises:
            Deadlock: there is none.
        """
        if not self._scheduled:
            raise Deadlock("everything waits, and there is no timer")
        self._now = max(self._now, self._scheduled[0]._when)

    def _run_once(self) -> None:
        self.turn += 1
        if self.on_turn is not None:
            self.on_turn(self.turn)
        super()._run_once()


def run(main: Callable[[VirtualLoop], Coroutine[Any, Any, Any]]) -> Any:
    """The result of `main(loop)` on a loop of its own; nothing may have gone wrong behind its back."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)
        result = runner.run(main(loop))
        loop.run_until_complete(asyncio.sleep(0))
        assert loop.troubles == []
        return result
