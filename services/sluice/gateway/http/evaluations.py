"""`/v1/evaluations` and all below it, which the evaluator answers: which paths these are.

How requests are passed on is not known here, so that what that imports is imported when the first one comes.
"""

from collections.abc import Sequence

from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

PATH = "/v1/evaluations"


def is_evaluation(path: str) -> bool:
    """Whether a path is the evaluator's."""
    return path.startswith(PATH) and path[len(PATH) : len(PATH) + 1] in {"", "/"}


def routes() -> Sequence[BaseRoute]:
    """Where such requests come in."""
    proxy = Proxy()
    return [Route(path, proxy, include_in_schema=False) for path in (PATH, PATH + "/{rest:path}")]


class Proxy:
    """An ASGI application, the evaluator's for whoever asks the gateway."""

    name = "evaluations"  # that all these requests are counted by

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises: what `pass_on` raises."""
        from sluice.gateway.http.passing import pass_on  # noqa: PLC0415 - it takes a 20th of the gateway's start

        scope["route"] = self  # as FastAPI does it
        await pass_on(scope, receive, send)
