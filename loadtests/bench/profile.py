"""A flame graph of the gateway under load, by py-spy."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from loadtests.bench.cases.doors import case
from loadtests.bench.stage import Stage
from loadtests.processes import run

_UNDER_LOAD = "http-128"
_GRACE_S = 60


def profile(stage: Stage, file: Path, seconds: int) -> None:
    """Profile the gateway while 128 clients step their sessions over HTTP.

    Raises:
        Failed: py-spy, or the load, failed.
    """
    measure = case(_UNDER_LOAD).measure
    measure(stage, 1)
    pid = stage.gateway("gateway").process.pid
    command = ["py-spy", "record", "--pid", str(pid), "--duration", str(seconds), "--output", str(file), "--gil"]
    with ThreadPoolExecutor(1) as load:
        loaded = load.submit(measure, stage, seconds + 1)
        run(command, seconds + _GRACE_S)
        loaded.result()
