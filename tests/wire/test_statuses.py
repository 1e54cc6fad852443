"""gRPC's statuses over HTTP."""

import grpc
import pytest

from sluice.wire.statuses import http_status

# Who has to change something for the call to succeed: the caller, or the server.
CALLERS = {
    "CANCELLED": 499, "INVALID_ARGUMENT": 400, "NOT_FOUND": 404, "ALREADY_EXISTS": 409, "PERMISSION_DENIED": 403,
    "FAILED_PRECONDITION": 400, "ABORTED": 409, "OUT_OF_RANGE": 400, "UNAUTHENTICATED": 401,
}  # fmt: skip
SERVERS = {
    "UNKNOWN": 500, "DEADLINE_EXCEEDED": 504, "RESOURCE_EXHAUSTED": 429, "UNIMPLEMENTED": 501, "INTERNAL": 500,
    "UNAVAILABLE": 503, "DATA_LOSS": 500,
}  # fmt: skip


@pytest.mark.parametrize(("grpc_status", "status"), {**CALLERS, **SERVERS}.items())
def test_a_status_is_what_tensorflow_serving_makes_of_it(grpc_status: str, status: int) -> None:
    assert http_status(grpc_status) == status


def test_no_status_of_an_error_is_forgotten() -> None:
    assert {code.name for code in grpc.StatusCode} - {"OK"} == {*CALLERS, *SERVERS}


def test_a_status_that_is_not_known_is_a_failure_of_the_server() -> None:
    assert http_status("NO_SUCH_STATUS") == 500
