"""Errors: every code with its HTTP and gRPC status, as the API's table has them."""

import pytest

from sluice.policy.errors import BadRequest, SluiceError, StepMismatch, error_classes

# code → (HTTP, gRPC), as in the API's table.
TABLE = {
    "bad_request": (400, "INVALID_ARGUMENT"),
    "shape_mismatch": (400, "INVALID_ARGUMENT"),
    "dtype_mismatch": (400, "INVALID_ARGUMENT"),
    "missing_input": (400, "INVALID_ARGUMENT"),
    "unknown_input": (400, "INVALID_ARGUMENT"),
    "input_not_finite": (400, "INVALID_ARGUMENT"),
    "empty_input": (400, "INVALID_ARGUMENT"),
    "signature_not_found": (400, "INVALID_ARGUMENT"),
    "unsupported_by_model": (400, "INVALID_ARGUMENT"),
    "unauthenticated": (401, "UNAUTHENTICATED"),
    "permission_denied": (403, "PERMISSION_DENIED"),
    "model_not_found": (404, "NOT_FOUND"),
    "version_not_found": (404, "NOT_FOUND"),
    "session_not_found": (404, "NOT_FOUND"),
    "evaluation_not_found": (404, "NOT_FOUND"),
    "evaluation_conflict": (409, "FAILED_PRECONDITION"),
    "session_exists": (409, "ALREADY_EXISTS"),
    "state_incompatible": (409, "FAILED_PRECONDITION"),
    "not_calibrated": (409, "FAILED_PRECONDITION"),
    "step_mismatch": (409, "ABORTED"),
    "session_conflict": (409, "ABORTED"),
    "session_closed": (410, "FAILED_PRECONDITION"),
    "session_expired": (410, "FAILED_PRECONDITION"),
    "session_evicted": (410, "FAILED_PRECONDITION"),
    "session_lost": (410, "FAILED_PRECONDITION"),
    "session_version_gone": (410, "FAILED_PRECONDITION"),
    "body_too_large": (413, "INVALID_ARGUMENT"),
    "sequence_too_long": (413, "INVALID_ARGUMENT"),
    "batch_too_large": (413, "INVALID_ARGUMENT"),
    "state_not_finite": (422, "FAILED_PRECONDITION"),
    "queue_full": (429, "RESOURCE_EXHAUSTED"),
    "session_queue_full": (429, "RESOURCE_EXHAUSTED"),
    "rate_limited": (429, "RESOURCE_EXHAUSTED"),
    "internal": (500, "INTERNAL"),
    "backend_error": (502, "INTERNAL"),
    "backend_unavailable": (503, "UNAVAILABLE"),
    "sessions_full": (503, "UNAVAILABLE"),
    "draining": (503, "UNAVAILABLE"),
    "deadline_exceeded": (504, "DEADLINE_EXCEEDED"),
}

CLASSES = list(error_classes())


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: error.__name__)
def test_an_errors_status_is_that_of_the_table(error: type[SluiceError]) -> None:
    assert (error.http_status, error.grpc_status) == TABLE[error.code]


def test_every_class_is_named_once() -> None:
    assert len(CLASSES) == len(set(CLASSES))
    codes = [error.code for error in CLASSES]
    assert {code for code in codes if codes.count(code) > 1} == {"backend_error", "bad_request"}


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: error.__name__)
def test_waiting_helps_with_429_and_503_and_only_there(error: type[SluiceError]) -> None:
    assert (error.retry_after_s is not None) == (error.http_status in (429, 503))


def test_an_error_carries_its_sentence_and_details() -> None:
    error = StepMismatch("Send 3 next.", current=3)
    assert str(error) == error.message == "Send 3 next."
    assert error.details == {"current": 3}


def test_a_variant_of_a_transports_own_has_no_line_in_the_table() -> None:
    class OverPigeons(BadRequest):
        http_status = 405

    assert OverPigeons not in set(error_classes())
