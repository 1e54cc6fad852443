"""Watches a gateway while it is under load, kills its model server when it is time, and sees it come back."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import psutil

from loadtests.processes import Child, Failed
from loadtests.soak.killing import Kill, kill_model_server
from loadtests.soak.samples import GATEWAY, Sample, look
from sluice.cli.embedded import Embedded
from sluice.client import Client, SluiceError

_EVERY_S = 1.0
_SETTLE_S = 3.0  # in which connections are closed that the gateway's start has used
_STOP_S = 60.0  # in which an interrupted load writes what it has
_REST_S = 20.0  # in which connections are closed that clients have left


@dataclass(slots=True)
class Watched:
    """What was seen; times are seconds since the load began. `before` and `after` there was no load."""

    load_s: float = 0.0
    interrupted: bool = False
    before: Sequence[Sample] = ()
    samples: list[Sample] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)
    after: Sequence[Sample] = ()

    def of(self, process: str) -> list[Sample]:
        return [sample for sample in self.samples if sample.process == process]

    def gateway_at_rest(self) -> tuple[Sample, Sample]:
        """Before the load and after it."""
        return _gateway(self.before), _gateway(self.after)


class Watch:
    """Of one gateway of one's own, from before a load until after it."""

    def __init__(self, own: Embedded) -> None:
        self._own = own
        self._gateway = psutil.Process(own.process.pid)
        self._load: psutil.Process | None = None
        time.sleep(_SETTLE_S)
        self.seen = Watched(before=self._look(0.0))

    def follow(self, load: Child, kill_at_s: Sequence[float], tell: Callable[[Watched], None]) -> None:
        """Watch until the load ends, or until Ctrl-C or SIGTERM ends it; `tell` hears of every look.

        Raises:
            Failed: the gateway has ended.
        """
        due, began, seen = list(kill_at_s), time.monotonic(), self.seen
        self._load = psutil.Process(load.pid)
        with Client(self._own.http, attempts=1, timeout_s=_EVERY_S) as client:
            try:
                while load.code is None:
                    seen.load_s = time.monotonic() - began
                    seen.samples += self._look(seen.load_s)
                    if due and due[0] <= seen.load_s:
                        self._kill(due)
                    else:
                        self._look_back(client)
                    tell(seen)
                    time.sleep(_EVERY_S)
            except (KeyboardInterrupt, SystemExit):
                seen.interrupted = True
                load.interrupt(_STOP_S)

    def rest(self) -> None:
        """Wait until the gateway has as many file descriptors as before the load, but not for long."""
        self._load = None
        until, most = time.monotonic() + _REST_S, _gateway(self.seen.before).descriptors
        while True:
            self.seen.after = found = self._look(self.seen.load_s)
            if time.monotonic() > until or _gateway(found).descriptors <= most:
                return
            time.sleep(_EVERY_S)

    def _look(self, at_s: float) -> list[Sample]:
        if (code := self._own.process.poll()) is not None:
            raise Failed(f"the gateway ended with code {code}")
        return look(self._gateway, self._load, at_s)

    def _kill(self, due: list[float]) -> None:
        """If there is no model server to kill now, there may be one at the next look."""
        if (pid := kill_model_server(self._gateway)) is not None:
            due.pop(0)
            self.seen.kills.append(Kill(self.seen.load_s, pid))

    def _look_back(self, client: Client) -> None:
        kills = self.seen.kills
        if kills and kills[-1].back_s is None and _is_ready(client):
            kills[-1] = kills[-1]._replace(back_s=self.seen.load_s - kills[-1].at_s)


def _gateway(samples: Sequence[Sample]) -> Sample:
    return next(sample for sample in samples if sample.process == GATEWAY)


def _is_ready(client: Client) -> bool:
    try:
        client.ready()
    except SluiceError:
        return False
    return True
