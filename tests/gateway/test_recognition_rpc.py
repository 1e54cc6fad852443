"""`sluice.v1.Recognition`, by gRPC's own client: the answers of HTTP, and every refusal with its code."""

import numpy as np
import pytest
from google.protobuf.json_format import MessageToDict

from sluice.wire.messages.v1 import recognition_pb2 as pb
from tests.gateway.here import PATIENCE_S, running
from tests.gateway.sides import LEFT, RIGHT, STRANGE, document, put
from tests.gateway.stub import dialled, failed, tensor
from tests.gateway.test_recognize import recognize

PATH = "/sluice.v1.Recognition/Recognize"


@pytest.fixture
async def here(puppet, tmp_path):
    put(tmp_path, document())
    async with running(puppet, calibrations=tmp_path) as here:
        yield here


@pytest.fixture
async def ask(here):
    async with dialled(here) as stub:
        call = stub.channel.unary_unary(PATH, pb.RecognizeRequest.SerializeToString, pb.RecognizeResponse.FromString)

        async def ask(rows=(LEFT,), dtype=np.float32, name="x", **fields):
            inputs = {name: tensor(list(rows), dtype)}
            return await call(pb.RecognizeRequest(**{"model": "sides", "inputs": inputs, **fields}), timeout=PATIENCE_S)

        yield ask


@pytest.mark.parametrize(
    "options",
    [{}, {"method": "max_logit", "level": 0.2, "top_k": 1}, {"method": "detector+knn", "level": 0.1, "sets": True}],
)
@pytest.mark.parametrize("name", ["x", ""])
async def test_answers_are_those_of_HTTP(here, ask, options, name):
    rows = [LEFT, STRANGE, RIGHT]
    answer = await ask(rows, name=name, **options)
    told = (await recognize(here, rows, **options)).json()
    for result, other in zip(answer.results, told.pop("results"), strict=True):
        whole = {"threshold": told["threshold"], "set": []} | other | {"reason": other["reason"] or ""}
        assert written(result) == {name: value for name, value in whole.items() if value is not None}
    del answer.results[:]
    assert {"results": []} | {name: value for name, value in told.items() if value is not None} == written(answer)


def written(message):
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


async def test_an_unknown_row_has_no_label(ask):
    [result] = (await ask([STRANGE])).results
    assert (result.HasField("label"), result.known, result.reason) == (False, False, "score")


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"model": "nosuch"}, "NOT_FOUND", "model_not_found"),
        ({"model": "plain"}, "INVALID_ARGUMENT", "unsupported_by_model"),
        ({"version": "7"}, "NOT_FOUND", "version_not_found"),
        ({"version": "1000000000000000000"}, "NOT_FOUND", "version_not_found"),
        ({"version": "9223372036854775808"}, "INVALID_ARGUMENT", "bad_request"),
        ({"version": "one"}, "INVALID_ARGUMENT", "bad_request"),
        ({"version": "1", "label": "stable"}, "INVALID_ARGUMENT", "bad_request"),
        ({"method": "magic"}, "INVALID_ARGUMENT", "bad_request"),
        ({"level": 0.0}, "INVALID_ARGUMENT", "bad_request"),
        ({"level": 0.001}, "INVALID_ARGUMENT", "bad_request"),
        ({"top_k": 0}, "INVALID_ARGUMENT", "bad_request"),
        ({"rows": [[0.1, 0.2, 0.3]]}, "INVALID_ARGUMENT", "shape_mismatch"),
        ({"rows": [[0.1, float("nan")]]}, "INVALID_ARGUMENT", "input_not_finite"),
        ({"rows": [[0.1, 255]]}, "INVALID_ARGUMENT", "bad_request"),
        ({"rows": []}, "INVALID_ARGUMENT", "empty_input"),
        ({"inputs": {"x": tensor(np.empty((0, 2)))}}, "INVALID_ARGUMENT", "empty_input"),
        ({"name": "y"}, "INVALID_ARGUMENT", "unknown_input"),
        ({"inputs": {}}, "INVALID_ARGUMENT", "missing_input"),
        ({"inputs": {"x": {"dtype": "float33"}}}, "INVALID_ARGUMENT", "bad_request"),
    ],
)
async def test_what_cannot_be_recognized_is_refused(here, ask, fields, status, code):
    await failed(ask(**fields), status, code)
    assert here.puppet.batches == []


async def test_a_model_without_calibration_says_how_to_make_one(puppet):
    async with running(puppet) as here, dialled(here) as stub:
        call = stub.channel.unary_unary(PATH, pb.RecognizeRequest.SerializeToString, pb.RecognizeResponse.FromString)
        request = pb.RecognizeRequest(model="sides", inputs={"x": tensor([LEFT], np.float32)})
        error = await failed(call(request, timeout=PATIENCE_S), "FAILED_PRECONDITION", "not_calibrated")
        assert "sluice calibrate sides" in error["error"]
