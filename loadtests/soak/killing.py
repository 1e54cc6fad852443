"""Kills the gateway's embedded model server now and then, as the kernel does when memory is short."""

import random
from typing import NamedTuple

import psutil

from loadtests.soak.samples import MODEL_SERVER, children

_EVERY_S = 600.0
_MARGIN = 0.25  # of its part of the load that lies before a kill, and behind it: two never come close together


def kill_times(load_s: float, seed: int) -> list[float]:
    """When to kill, in seconds since the load began: about once in ten minutes, but once at least.

    The load is divided into equal parts, and in the middle half of each there is one, drawn from the seed.
    """
    draw = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    parts = max(1, round(load_s / _EVERY_S))
    return [(part + draw.uniform(_MARGIN, 1 - _MARGIN)) * load_s / parts for part in range(parts)]


class Kill(NamedTuple):
    """A model server that was killed; `back_s` later the gateway was ready again, None: not seen to be."""

    at_s: float
    pid: int
    back_s: float | None = None


def kill_model_server(gateway: psutil.Process) -> int | None:
    """Kill the one that is a child of this gateway, with SIGKILL; its process id. None: there is none now."""
    for name, child in children(gateway):
        if name == MODEL_SERVER and child.ppid() == gateway.pid:
            child.kill()
            return child.pid
    return None
