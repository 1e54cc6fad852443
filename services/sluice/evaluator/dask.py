"""The engine "dask": parts are done by the workers of a Dask cluster, each of which asks the gateway itself.

A worker that is lost costs the parts that it had: the scheduler gives them to others.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

from distributed import Client, as_completed

from sluice.evaluator.evaluation import Engine
from sluice.evaluator.tasks.task import Values
from sluice.evaluator.work import Work
from sluice.policy.errors import BadRequest


def on_cluster(scheduler: str) -> Engine:
    """The engine of the cluster whose scheduler is at this address, such as tcp://127.0.0.1:8786.

    It raises BadRequest where no scheduler answers.
    """

    async def engine(work: Work, numbers: Sequence[int]) -> AsyncGenerator[tuple[int, Values]]:
        cluster = Client(scheduler, asynchronous=True)
        try:
            await cluster
        except (OSError, ValueError) as error:
            await cluster.close()
            raise BadRequest(f"expected a Dask scheduler at {scheduler}, such as tcp://HOST:PORT; {error}") from None
        async with cluster:
            futures = {cluster.submit(_part, _alone(work, number), pure=False): number for number in numbers}
            async for future, values in as_completed(futures, with_results=True):
                yield futures.pop(future), values  # which the cluster then forgets

    return engine


def _alone(work: Work, number: int) -> Work:
    """The run with this part only, as the places of all rows need not travel with each."""
    return replace(work, cut=work.cut._replace(parts=[work.cut.parts[number]]))


def _part(work: Work) -> Values:
    async def values() -> Values:
        async with work.client() as client:
            return await work.values(0, client)

    with work.data_set:
        return asyncio.run(values())
