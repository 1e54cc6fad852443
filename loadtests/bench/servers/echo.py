"""A server that only echoes, on the gateway's server, loop and parser: what HTTP alone costs.

`python -m loadtests.bench.servers.echo HOST:PORT` parses each body and answers with one of the size of a step's answer,
or of a prediction's.
"""

import sys
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import uvicorn

from loadtests.bench.workloads.steps import OUTPUT, ROW

# An answer of the gateway, as it would be after a few thousand steps; the float32 of the model have more digits.
ANSWER = orjson.dumps({"outputs": {OUTPUT: [round(value / 7, 9) for value in ROW]}, "step": 1234})
PREDICTION = orjson.dumps({"predictions": [[round(ROW[0] / 7, 9)]]})


async def app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Any POST to a session's path, or to a model's."""
    message = await receive()
    body = message["body"]
    while message["more_body"]:
        message = await receive()
        body += message["body"]
    orjson.loads(body)
    predicts = scope["path"].endswith(":predict")
    answer = PREDICTION if predicts else ANSWER
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
    if not predicts:
        headers.append((b"sluice-session", scope["path"][len("/v1/sessions/") : -len(":step")].encode()))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


def main(address: str) -> None:
    host, _, port = address.rpartition(":")
    uvicorn.run(
        app, host=host, port=int(port), loop="uvloop", http="httptools", ws="none", lifespan="off",
        log_level="warning", access_log=False, server_header=False, proxy_headers=False,
    )  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1])
