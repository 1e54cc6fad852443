"""Values that a model does not take, as the model server says it: by every door a 400 that names what came."""

import grpc
import grpc.aio
import pytest

from sluice.wire.tensors import read_tensor
from tests.gateway.here import refused, refused_as_tf_serving
from tests.gateway.stub import dialled, failed
from tests.gateway.test_tf_serving import PREDICT, predict_request
from tests.gateway.test_tf_serving import failed as tf_serving_failed
from tests.gateway.test_websocket import refused_reply, send, stream

THEIRS = "indices[0,1] = 99 is not in [0, 50)\n\t [[{{node embedding/GatherV2}}]]"
OURS = f"Input 'x' takes whole numbers from 0 to 49; 99 came. The model server says: {THEIRS}"


@pytest.fixture
def embedding(puppet):
    """The puppet looks up what comes in a table of 50, and finds no 99."""

    async def look_up(request):
        return (grpc.StatusCode.INVALID_ARGUMENT, THEIRS) if (read_tensor(request.inputs["x"]) == 99).any() else None

    puppet.before = look_up


@pytest.mark.usefixtures("embedding")
async def test_a_number_beyond_a_table_is_told_in_a_session_and_moves_nothing(here):
    adder = await here.open()
    for response in (await adder.step((1, 99)), await adder.scan([[1, 2], [99, 3]])):
        assert refused(response, 400, "bad_request")["error"] == OURS
    other = await here.open()
    errors = (await here.columns([adder.id, other.id], [[1, 99], [1, 1]])).json()
    assert errors["error"] == OURS
    async with stream(here, adder.id) as socket:
        await send(socket, [1, 99])
        assert (await refused_reply(socket, "bad_request"))["error"] == OURS
    await adder.goes_on()
    await other.goes_on()


@pytest.mark.usefixtures("embedding")
async def test_a_number_beyond_a_table_is_told_without_a_session(here):
    response = await here.http.post("/v1/models/plain:predict", json={"instances": [[1, 99]]})
    assert refused_as_tf_serving(response, 400, "bad_request") == OURS
    tensor = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 99]}
    response = await here.http.post("/v2/models/plain/infer", json={"inputs": [tensor]})
    assert refused_as_tf_serving(response, 400, "bad_request") == OURS


@pytest.mark.usefixtures("embedding")
async def test_a_number_beyond_a_table_is_told_over_grpc(here):
    adder = await here.open()
    async with dialled(here) as stub:
        assert (await failed(stub.step(adder.id, (1, 99)), "INVALID_ARGUMENT", "bad_request"))["error"] == OURS
        told = await tf_serving_failed(stub.channel, PREDICT, predict_request([[1, 99]]))
        assert told == ("INVALID_ARGUMENT", OURS)
    await adder.goes_on()


async def test_a_number_that_the_model_made_of_what_came_is_told_without_an_input(here):
    async def look_up(_):
        return grpc.StatusCode.INVALID_ARGUMENT, THEIRS

    here.puppet.before = look_up
    adder = await here.open()
    sentence = refused(await adder.step((1, 2)), 400, "bad_request")["error"]
    told = "The model looks up whole numbers from 0 to 49; what came leads to 99."
    assert sentence == f"{told} The model server says: {THEIRS}"


@pytest.mark.parametrize(
    ("status", "http", "code"),
    [
        ("INVALID_ARGUMENT", 400, "bad_request"),
        ("OUT_OF_RANGE", 400, "bad_request"),
        ("FAILED_PRECONDITION", 502, "backend_error"),
    ],
)
async def test_what_the_model_says_of_values_is_the_clients_fault_and_what_it_says_of_itself_is_not(
    here, status, http, code
):
    async def fail(_):
        return grpc.StatusCode[status]

    here.puppet.before = fail
    adder = await here.open()
    sentence = refused(await adder.step((1, 2)), http, code)["error"]
    assert f"{status}: as the test told me" in sentence
    here.puppet.before = None
    await adder.goes_on()
