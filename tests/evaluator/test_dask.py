"""Parts of an evaluation on the workers of a Dask cluster: the same report, also when a worker is lost on the way."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import pytest

from sluice.evaluator.dask import on_cluster
from sluice.policy.errors import BadRequest
from tests.end_to_end.serving import eventually
from tests.evaluator.evaluations import Evaluations, but_for_the_run
from tests.gateway.puppet import Puppet

ENVIRONMENT = {**os.environ, "DASK_DISTRIBUTED__ADMIN__LOG_LENGTH": "10"}


class Cluster:
    """A scheduler and workers, each a process of its own on loopback."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "scheduler.json"
        self.folder = folder
        self.scheduler = self._start("scheduler", "--no-dashboard", "--port", "0", "--scheduler-file", str(self.file))
        eventually(self.file.exists, 60)
        self.address: str = json.loads(self.file.read_text())["address"]
        worker = ("--no-nanny", "--no-dashboard", "--nthreads", "1", "--memory-limit", "0")
        self.workers = [
            self._start("worker", self.address, *worker, "--local-directory", str(folder / f"worker-{number}"))
            for number in range(2)
        ]

    def _start(self, what: str, *flags: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", "--host", "127.0.0.1", *flags]
        log = (self.folder / f"{what}.log").open("ab")
        with log:
            return subprocess.Popen(command, stdout=log, stderr=log, env=ENVIRONMENT, cwd=self.folder)

    def stop(self) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    folder = tmp_path / "dask"
    folder.mkdir()
    cluster = Cluster(folder)
    yield cluster
    cluster.stop()


async def test_a_cluster_that_loses_a_worker_gives_the_same_report(
    run: Evaluations, cluster: Cluster, puppet: Puppet
) -> None:
    asked = {"batch_size": 50, "exact": True}
    alone = but_for_the_run(await run(**asked))
    puppet.batches.clear()
    lost = asyncio.Event()

    async def lose_a_worker(_: Any) -> None:
        """When both are at work, neither of which gets an answer before."""
        if puppet.running >= 2 and not lost.is_set():
            cluster.workers[0].kill()
            lost.set()
        await asyncio.wait_for(lost.wait(), 60)

    puppet.before = lose_a_worker
    document = await run(engine=on_cluster(cluster.address), **asked)
    assert lost.is_set()
    assert but_for_the_run(document) == alone


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nowhere"])
async def test_a_scheduler_that_does_not_answer_is_told_with_its_address(run: Evaluations, address: str) -> None:
    with dask.config.set({"distributed.comm.timeouts.connect": "100ms"}):
        with pytest.raises(BadRequest, match=f"expected a Dask scheduler at {address}"):
            await run(engine=on_cluster(address))
