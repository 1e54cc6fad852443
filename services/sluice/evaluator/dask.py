"""The engine "dask": parts are done by the workers of a Dask cluster, each of which asks the gateway itself.

A worker that is lost costs the parts that it had: the scheduler gives them to others.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence

from distributed import Client, as_completed

from sluice.evaluator.evaluation import Engine
from sluice.evaluator.tasks.task import Values
from sluice.evaluator.work import Work


def on_cluster(scheduler: str) -> Engine:
    """The engine of the cluster whose scheduler is at this address, such as tcp://127.0.0.1:8786."""

    async def engine(work: Work, numbers: Sequence[int]) -> AsyncGenerator[tuple[int, Values]]:
        async with Client(scheduler, asynchronous=True) as cluster:
            futures = {cluster.submit(_part, work, number, pure=False): number for number in numbers}
            async for future, values in as_completed(futures, with_results=True):
                yield futures[future], values

    return engine


def _part(work: Work, number: int) -> Values:
    return asyncio.run(work.values(number))
