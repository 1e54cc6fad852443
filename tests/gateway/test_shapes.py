"""A request that could end a model server does not reach it, whatever the model and by whichever door it comes."""

from contextlib import asynccontextmanager

import grpc
import grpc.aio
import numpy as np
import pytest

from sluice.gateway.core.predict import check_shapes
from sluice.policy.contract import Axis, Signature, Tensor
from sluice.policy.errors import EmptyInput, ShapeMismatch
from sluice.wire.messages.tfs.v1 import serving_pb2 as tfs
from sluice.wire.tensors import write_tensor
from tests.gateway import puppet as puppets
from tests.gateway.here import running

_QINT8 = 11  # a dtype that the gateway cannot read


async def rest(here, x):
    response = await here.http.post("/v1/models/plain:predict", json={"inputs": x.tolist()})
    return response.headers.get("sluice-code"), response.json().get("error", "")


async def oip(here, x):
    tensor = {"name": "x", "datatype": "FP32", "shape": x.shape, "data": x.ravel().tolist()}
    response = await here.http.post("/v2/models/plain/infer", json={"inputs": [tensor]})
    return response.headers.get("sluice-code"), response.json().get("error", "")


async def by_grpc(here, request):
    request.model_spec.name = "plain"
    async with grpc.aio.insecure_channel(f"127.0.0.1:{here.app.state.grpc.port}") as channel:
        call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        try:
            await call(request.SerializeToString(), timeout=20)
        except grpc.aio.AioRpcError as error:
            return dict(error.trailing_metadata())["sluice-code"], error.details()
    return None, ""


async def batched(here, x):
    request = tfs.PredictRequest()
    write_tensor(request.inputs["x"], x)
    return await by_grpc(here, request)


async def passed_on(here, x):
    """An output that is named twice makes it a request that only the model server can judge."""
    request = tfs.PredictRequest(output_filter=["y", "y"])
    write_tensor(request.inputs["x"], x)
    return await by_grpc(here, request)


async def not_read(here, x):
    request = tfs.PredictRequest()
    write_tensor(request.inputs["x"], x)
    request.inputs["x"].dtype = _QINT8
    return await by_grpc(here, request)


def zeros(*shape):
    return np.zeros(shape, np.float32)


DOORS = (rest, oip, batched, passed_on, not_read)


@asynccontextmanager
async def serving(puppet, **shapes):
    """A gateway that knows the model `plain`, whose signature has these shapes; the puppet notes what it is asked."""
    puppet.shapes["plain"] = shapes
    async with running(puppet) as here:
        await here.http.get("/v1/models/plain/contract")
        puppet.forwarded = b""
        yield here


@pytest.mark.parametrize("y", [(-1, 2), ()], ids=["batched", "not batched"])
async def test_another_rank_a_wrong_size_and_no_rows_are_refused_before_the_model_server_sees_them(puppet, y):
    async with serving(puppet, y=y) as here:
        for door in DOORS:
            for wrong in ((), (2,), (2, 3), (2, 2, 1), (2, 0)):
                code, sentence = await door(here, zeros(*wrong))
                told = f"takes float32 [batch, axis 1=2]; a value of shape {list(wrong)} came"
                assert (code, told in sentence) == ("shape_mismatch", True), (door, wrong)
            for empty in ((0,), (0, 2)):
                assert (await door(here, zeros(*empty)))[0] == "empty_input", (door, empty)
            assert puppet.asked == [], door
            await door(here, zeros(2, 2))
            assert puppet.asked, door
            puppet.asked.clear()


async def test_a_fixed_number_of_rows_is_checked_too(puppet):
    async with serving(puppet, x=(3, 2), y=(3, 2)) as here:
        for door in DOORS:
            assert (await door(here, zeros(4, 2)))[0] == "shape_mismatch", door
        assert puppet.asked == []


async def test_an_input_of_unknown_rank_takes_any_shape_but_no_rows(puppet):
    async with serving(puppet, x=None, y=None) as here:
        for door in DOORS:
            puppet.asked.clear()
            for shape in ((), (3,), (3, 1, 1, 1), (2, 0)):
                await door(here, zeros(*shape))
            assert len(puppet.asked) == 4, door
            assert (await door(here, zeros(0, 2)))[0] == "empty_input", door
            assert len(puppet.asked) == 4, door


async def test_a_model_whose_contract_cannot_be_read_is_not_called_unchecked(puppet, monkeypatch):
    monkeypatch.setitem(puppets.SIGNATURES["plain"], "contract", lambda probe: {})
    async with running(puppet) as here:
        for door in (batched, not_read):
            assert (await door(here, zeros(2, 2)))[0] == "backend_unavailable"
        assert puppet.batches == []


def test_one_value_in_a_list_stands_for_a_scalar_and_two_do_not():
    scalar = Signature("scalar", "rows", {"x": Tensor("x", "float32", ())}, {}, batch_axis="none")
    check_shapes("m", scalar, {"x": ()})
    check_shapes("m", scalar, {"x": (1,)})
    for wrong in ((2,), (1, 1)):
        with pytest.raises(ShapeMismatch):
            check_shapes("m", scalar, {"x": wrong})


def test_an_input_may_be_empty_beside_one_that_is_not():
    inputs = {name: Tensor(name, "float32", (Axis("batch"),)) for name in ("values", "ends")}
    ragged = Signature("ragged", "rows", inputs, {}, batch_axis="assumed")
    check_shapes("m", ragged, {"values": (0,), "ends": (3,)})
    with pytest.raises(EmptyInput):
        check_shapes("m", ragged, {"values": (0,), "ends": (0,)})
