"""What the model server's log says of a call that fails by a bug."""

import grpc
import pytest
from structlog.testing import capture_logs

from sluice.model_server import rpc

ID = "4bf92f3577b34da6a3ce929d0e0e4736"


class Context:
    """A call whose metadata tells of a trace, or not."""

    def __init__(self, *told):
        self._told = told

    def invocation_metadata(self):
        return self._told

    def abort(self, code, sentence):
        raise grpc.RpcError(code, sentence)


def broken(_):
    raise RuntimeError("a bug")


@pytest.mark.parametrize(
    ("told", "ids"), [((("traceparent", f"00-{ID}-00f067aa0ba902b7-01"), ("blob-bin", b"\xff")), [ID]), ((), [])]
)
def test_a_call_that_fails_is_logged_with_the_trace_that_it_belongs_to(told, ids):
    with capture_logs() as logs, pytest.raises(grpc.RpcError):
        rpc._answer("Predict", broken, b"", Context(*told))
    (line,) = logs
    assert (line["event"], line["method"]) == ("call failed", "Predict")
    assert [line["trace_id"] for _ in ids] == ids
    assert ("trace_id" in line) == bool(ids)
