"""What users ask for, by the names that Locust's statistics, the budgets and the pages have for it.

It does not import Locust, which would patch the process.
"""

from collections.abc import Iterable

ROWS, ROWS_GRPC = "rows over HTTP", "rows over gRPC"
SEQUENCES, SLOW = "sequences over HTTP", "sequences over a slow line"
RECOGNITION = "recognition over HTTP"
GENERATION = "generation over HTTP"

OPEN, SCAN, STEP, FORK, CLOSE = (f"{each} over HTTP" for each in ("open", "scan", "step", "fork", "close"))
CONNECT_WEBSOCKET, STEP_WEBSOCKET = "connect a WebSocket", "step over WebSocket"
OPEN_GRPC, CLOSE_GRPC, STEP_STREAM = "open over gRPC", "close over gRPC", "steps over gRPC stream"

UPLOAD, EVALUATE, LOOK, FORGET = (f"{each} an evaluation" for each in ("upload", "ask for", "look at", "forget"))

LEAVE_REQUEST, LEAVE_STEP, LEAVE_WEBSOCKET, LEAVE_STREAM = (
    f"hang up in a {each}" for each in ("request", "step", "WebSocket", "gRPC stream")
)
RETURN = "repeat a step that was left"

SCENARIOS = (
    ROWS, ROWS_GRPC, SEQUENCES, SLOW, RECOGNITION, GENERATION,
    OPEN, SCAN, STEP, FORK, CLOSE, CONNECT_WEBSOCKET, STEP_WEBSOCKET, OPEN_GRPC, CLOSE_GRPC, STEP_STREAM,
    UPLOAD, EVALUATE, LOOK, FORGET, LEAVE_REQUEST, LEAVE_STEP, LEAVE_WEBSOCKET, LEAVE_STREAM, RETURN,
)  # fmt: skip

# By user, what each one asks within its first seconds, unless something is wrong. Who hangs up does so by lot.
_AT_ONCE = {
    "EvaluationUser": (UPLOAD,),
    "GenerationUser": (GENERATION,),
    "RecognitionUser": (RECOGNITION,),
    "RowsGrpcUser": (ROWS_GRPC,),
    "RowsUser": (ROWS,),
    "SequencesUser": (SEQUENCES,),
    "SessionStreamUser": (OPEN_GRPC, STEP_STREAM),
    "SessionUser": (OPEN, STEP),
    "SessionWebSocketUser": (OPEN, CONNECT_WEBSOCKET, STEP_WEBSOCKET),
    "SlowUser": (SLOW,),
}


def asked(users: Iterable[str]) -> set[str]:
    """What was asked for sure where these users were there: if none of it was counted, no budget of it was kept."""
    return {scenario for user in users for scenario in _AT_ONCE.get(user, ())}
