"""What the gateway, its children and the load hold, looked at again and again: memory, descriptors, threads, CPU time.

It does not judge.
"""

import csv
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

GATEWAY, MODEL_SERVER, EVALUATOR, LOAD = "gateway", "model server", "evaluator", "Locust"
_CHILDREN = {"sluice.model_server": MODEL_SERVER, "evaluator": EVALUATOR}  # by a word of their command lines


class Sample(NamedTuple):
    """One look at one process, `at_s` seconds after the load began.

    resident_bytes: its pages in memory, shared ones too (RSS). unique_bytes: those that nobody shares (USS).
    """

    at_s: float
    process: str
    pid: int
    resident_bytes: int
    unique_bytes: int
    descriptors: int
    threads: int
    cpu_s: float


def children(gateway: psutil.Process) -> Iterator[tuple[str, psutil.Process]]:
    """The gateway's own children that run, by what they are; one that is only just being started is left out."""
    for child in gateway.children():
        with suppress(psutil.Error):
            for word, name in _CHILDREN.items():
                if word in child.cmdline():
                    yield name, child


def look(gateway: psutil.Process, load: psutil.Process | None, at_s: float) -> list[Sample]:
    """The gateway, its children and the load now; what ends meanwhile is left out."""
    found, others = [], [(LOAD, load)] if load else []
    for name, process in ((GATEWAY, gateway), *children(gateway), *others):
        with suppress(psutil.Error), process.oneshot():
            memory, times = process.memory_full_info(), process.cpu_times()
            held = memory.rss, memory.uss, process.num_fds(), process.num_threads()
            found.append(Sample(at_s, name, process.pid, *held, times.user + times.system))
    return found


def write(samples: Sequence[Sample], file: Path) -> None:
    """As CSV, one line each."""
    with file.open("w", newline="", encoding="utf-8") as out:
        lines = csv.writer(out)
        lines.writerow(Sample._fields)
        lines.writerows(each._replace(at_s=round(each.at_s, 3)) for each in samples)
