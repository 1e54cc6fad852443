"""Every error of the API is an exception of its own, whatever the transport; what is not the API's has a class, too."""

import grpc
import grpc.aio
import orjson
import pytest

from sluice.client.errors import NoAnswer, error_of
from sluice.client.grpc_messages import refusal as grpc_refusal
from sluice.client.refusals import read_json
from sluice.client.refusals import refusal as http_refusal
from sluice.policy.batch import Lane, Ticket, too_late
from sluice.policy.errors import (
    BadRequest,
    Conflict,
    NotFound,
    QueueFull,
    SessionNotFound,
    SluiceError,
    StepMismatch,
    TooMany,
    Unavailable,
    error_classes,
)
from sluice.policy.sessions import SessionOptions, SessionTable

CLASSES = [kind for kind in error_classes() if "code" in vars(kind)]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.code)
def test_a_code_chooses_the_class_over_http(kind: type[SluiceError]) -> None:
    body = {"error": "A sentence.", "code": kind.code, "details": {"limit": 7}}
    error = http_refusal(kind.http_status, {"sluice-code": kind.code, "retry-after": "9"}, orjson.dumps(body))
    assert type(error) is kind
    assert (error.message, error.details, error.http_status) == ("A sentence.", {"limit": 7}, kind.http_status)
    assert (error.code, error.retry_after_s) == (kind.code, 9)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.code)
def test_a_code_chooses_the_class_over_grpc(kind: type[SluiceError]) -> None:
    trailing = (("sluice-code", kind.code), ("retry-after", "9"), ("sluice-details", '{"limit": 7}'))
    error = grpc_refusal(failed(kind.grpc_status, "A sentence.", *trailing))
    assert type(error) is kind
    assert (error.message, error.details) == ("A sentence.", {"limit": 7})
    assert (error.code, error.retry_after_s) == (kind.code, 9)


def test_a_code_of_a_newer_gateway_has_the_class_of_its_status_and_keeps_its_name() -> None:
    for status, kind in ((429, TooMany), (409, Conflict), ("RESOURCE_EXHAUSTED", TooMany), ("NOT_FOUND", NotFound)):
        error = error_of("brand_new", "A sentence.", status=status)
        assert type(error) is kind
        assert error.code == "brand_new"


def test_what_the_gateway_calls_by_the_words_of_its_doors_is_called_as_in_python() -> None:
    late = too_late(Ticket(Lane("m", 1, "step"), {}, 1, 0.0), 1.0)
    error = error_of(late.code, late.message)
    assert error.message.endswith("Allow more with a larger timeout_s, or send less at once.")
    with pytest.raises(SessionNotFound) as caught:
        SessionTable(SessionOptions()).get("early")
    assert error_of("session_not_found", caught.value.message).message.endswith("Open one with client.open(model).")


def test_a_proxys_answer_has_the_class_of_its_status() -> None:
    error = http_refusal(503, {"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, b"<html>Come back later</html>")
    assert type(error) is Unavailable
    assert "Come back later" in error.message
    assert error.retry_after_s is None
    assert type(http_refusal(418, {}, b"[1]")) is SluiceError
    assert http_refusal(404, {}, b"").message == "The gateway gave no reason (status 404)."
    assert error_of("unavailable", "").message == "The gateway gave no reason."
    for other in (b'{"detail":"Not Found"}', b'{"error":null,"code":null,"reason":null}'):
        error = http_refusal(404, {}, other)
        assert (type(error), error.message) == (NotFound, other.decode())


@pytest.mark.parametrize("content", [b"<html>Welcome", "Welcome", b'{"cut": ', b'"text"', b"\xff\xfe", b""])
def test_what_is_no_json_object_is_not_the_gateways_answer(content: str | bytes) -> None:
    came = content if isinstance(content, str) else content.decode(errors="replace")
    with pytest.raises(NoAnswer, match="http://it did not answer as a gateway does: expected a JSON") as told:
        read_json("http://it", content)
    assert f"got {came!r}" in told.value.message


def test_what_came_instead_of_an_answer_is_told_shortened() -> None:
    with pytest.raises(NoAnswer) as told:
        read_json("http://it", b"<p>" * 1000)
    assert len(told.value.message) < 300


@pytest.mark.parametrize("status", ["UNAVAILABLE", "CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL"])
def test_a_grpc_failure_without_a_code_is_no_answer(status: str) -> None:
    error = grpc_refusal(failed(status, "Connection reset by peer"))
    assert type(error) is NoAnswer
    assert "Connection reset" in error.message


def test_a_grpc_refusal_that_is_not_the_gateways_says_what_came() -> None:
    assert type(grpc_refusal(failed("INVALID_ARGUMENT", "no"))) is BadRequest
    assert type(grpc_refusal(failed("UNIMPLEMENTED", "Method not found!"))) is SluiceError


@pytest.mark.parametrize("status", ["INVALID_ARGUMENT", "FAILED_PRECONDITION", "OUT_OF_RANGE"])
def test_what_the_model_server_says_about_a_request_is_a_bad_request(status: str) -> None:
    error = grpc_refusal(failed(status, "A sentence.", ("sluice-code", "backend_error")))
    assert (type(error), error.code, error.message) == (BadRequest, "bad_request", "A sentence.")


def test_what_came_stands_on_the_exception_and_not_on_its_class() -> None:
    error = error_of("queue_full", "A sentence.", retry_after_s=7)
    assert (error.retry_after_s, QueueFull.retry_after_s) == (7, 1)
    assert error_of("queue_full", "A sentence.").retry_after_s is None
    assert error_of("step_mismatch", "A sentence.", details={"current": 4}).details == {"current": 4}
    assert isinstance(error_of("step_mismatch", "A sentence."), StepMismatch)


def test_a_host_that_grpc_cannot_find_is_told_as_such() -> None:
    reason = "errors resolving gatewayy:81: [field:hostname lookup error:address lookup failed for gatewayy:81: …]"
    error = grpc_refusal(failed("UNAVAILABLE", reason))
    assert str(error) == f"The gateway did not answer: {reason}. There is no such host: is its name right?"


def failed(status: str, reason: str, *trailing: tuple[str, str]) -> grpc.aio.AioRpcError:
    nothing = grpc.aio.Metadata()
    return grpc.aio.AioRpcError(grpc.StatusCode[status], nothing, grpc.aio.Metadata(*trailing), reason)
