"""What the server answers to calls, on every way in; what goes wrong has TensorFlow Serving's codes."""

from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
)

from tests.model_server.conftest import PATIENCE_S, Client, Server, floats, refused, request
from tests.model_server.zoo import IDENTITIES

ROW = [[1.0, 2.0, 3.0]]


@pytest.fixture(params=["unix", "tcp"])
def client(server: Server, request: pytest.FixtureRequest) -> Client:
    return server.client if request.param == "unix" else server.tcp


def test_predict_answers_on_the_socket_and_on_the_port(client: Client) -> None:
    np.testing.assert_array_equal(client.predict(x=floats(*ROW))["y"], floats([110, 140]))


def test_an_answer_names_model_version_and_signature(client: Client) -> None:
    spec = client.predictions.Predict(request("zoo", x=floats(*ROW)), PATIENCE_S).model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("zoo", 5, "serving_default")


@pytest.mark.parametrize("name", IDENTITIES)
def test_every_dtype_comes_back_as_it_went(client: Client, name: str) -> None:
    values = np.array([0, 1, 1], IDENTITIES[name].as_numpy_dtype)
    back = client.predict(signature=f"id_{name}", x=values)["y"]
    assert back.dtype == values.dtype
    np.testing.assert_array_equal(back, values)


def test_bytes_come_back_as_they_went(client: Client) -> None:
    texts = np.array([b"\xff\x00", "h\u00e9".encode()], object)
    back = client.predict(signature="echo", s=texts)
    assert back["s"].tolist() == texts.tolist()
    assert back["n"].tolist() == [2, 3]


def test_a_single_text_comes_back_whole(client: Client) -> None:
    back = client.predict(signature="echo_one", s=np.array(b"a\xff\x00", object))["s"]
    assert (back.shape, back.item()) == ((), b"a\xff\x00")


def test_an_output_filter_chooses_outputs(client: Client) -> None:
    answer = client.predict(signature="multi", outputs=("bb",), a=floats([1, 2]), b=np.array([[3, 4]], np.int32))
    assert {name: array.tolist() for name, array in answer.items()} == {"bb": [[6, 8]]}


@pytest.mark.parametrize("wanted", [("nope",), ("y", "y"), ("ly:0",)])
def test_an_output_filter_that_names_no_output_or_one_twice_is_refused(client: Client, wanted: tuple[str, ...]) -> None:
    with refused("INVALID_ARGUMENT"):
        client.predict(outputs=wanted, x=floats(*ROW))


CALLS = [
    ("NOT_FOUND", {"model": "nosuch", "x": floats(*ROW)}),
    ("NOT_FOUND", {"version": 77, "x": floats(*ROW)}),
    ("INVALID_ARGUMENT", {"model": "", "x": floats(*ROW)}),
    ("FAILED_PRECONDITION", {"signature": "nosuch", "x": floats(*ROW)}),
    ("FAILED_PRECONDITION", {"model": "nodefault", "x": floats(1)}),
    ("INVALID_ARGUMENT", {"z": floats(*ROW)}),
    ("INVALID_ARGUMENT", {"x": floats(*ROW), "z": floats(1)}),
    ("INVALID_ARGUMENT", {}),
    ("INVALID_ARGUMENT", {"x": np.array(ROW, np.float64)}),
    ("INVALID_ARGUMENT", {"x": np.array([["a", "b", "c"]])}),
    ("INVALID_ARGUMENT", {"x": floats(1, 2, 3)}),
    ("INVALID_ARGUMENT", {"x": floats([1, 2])}),
    ("INVALID_ARGUMENT", {"signature": "positive", "x": floats(4, -9)}),
    ("INVALID_ARGUMENT", {"signature": "looked_up", "at": np.array([9], np.int32)}),
    ("FAILED_PRECONDITION", {"signature": "forgotten", "at": np.array([1], np.int32)}),
]


@pytest.mark.parametrize(("code", "call"), CALLS, ids=[f"{code}-{i}" for i, (code, _) in enumerate(CALLS)])
def test_a_call_that_cannot_be_answered_has_its_code(client: Client, code: str, call: dict[str, Any]) -> None:
    with refused(code):
        client.predict(**call)


def test_an_assertion_in_the_graph_keeps_its_text(client: Client) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        client.predict(signature="positive", x=floats(4, -9))
    assert "x must be positive" in caught.value.details()


@pytest.mark.parametrize("label", ["nosuch", ""])
def test_a_version_label_that_is_not_known_is_refused(client: Client, label: str) -> None:
    asked = request("zoo", x=floats(*ROW))
    asked.model_spec.version_label = label
    with refused("INVALID_ARGUMENT"):
        client.predictions.Predict(asked, PATIENCE_S)


def test_a_tensor_that_cannot_be_read_is_refused_with_the_name_of_its_input(client: Client) -> None:
    asked = request("zoo", x=floats(*ROW))
    asked.inputs["x"].tensor_content = b"1234"
    with pytest.raises(grpc.RpcError) as caught:
        client.predictions.Predict(asked, PATIENCE_S)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "'x'" in caught.value.details()


def test_metadata_describes_every_signature(client: Client) -> None:
    reply = client.metadata("zoo", "signature_def")
    found = get_model_metadata_pb2.SignatureDefMap()
    assert reply.metadata["signature_def"].Unpack(found)
    assert reply.model_spec.version.value == 5
    assert "multi" in found.signature_def
    x = found.signature_def["serving_default"].inputs["x"]
    assert (x.name, [dim.size for dim in x.tensor_shape.dim]) == ("lx:0", [-1, 3])


def test_tensorflows_own_signatures_are_not_shown(client: Client) -> None:
    found = get_model_metadata_pb2.SignatureDefMap()
    client.metadata("nodefault", "signature_def").metadata["signature_def"].Unpack(found)
    assert [*found.signature_def] == ["only"]


@pytest.mark.parametrize("fields", [(), ("nope",), ("signature_def", "nope")])
def test_other_metadata_is_refused(client: Client, fields: tuple[str, ...]) -> None:
    with refused("INVALID_ARGUMENT"):
        client.metadata("zoo", *fields)


def test_metadata_of_an_unknown_model_is_not_found(client: Client) -> None:
    with refused("NOT_FOUND"):
        client.metadata("nosuch", "signature_def")


def test_only_the_newest_version_is_served(client: Client) -> None:
    assert client.state("zoo") == {5: ("AVAILABLE", "")}


def test_the_status_of_an_unknown_version_is_not_found(client: Client) -> None:
    asked = get_model_status_pb2.GetModelStatusRequest()
    asked.model_spec.name, asked.model_spec.version.value = "zoo", 77
    with refused("NOT_FOUND"):
        client.models.GetModelStatus(asked, PATIENCE_S)


def test_what_is_not_served_is_told_with_what_is(server: Server) -> None:
    nosuch = server.post("nosuch", instances=ROW).json()["error"]
    assert nosuch.endswith("there is no model 'nosuch' that is served; the models here are: nodefault, zoo")
    version = server.rest.post("/v1/models/zoo/versions/2:predict", json={"instances": ROW}).json()["error"]
    assert version.endswith("model 'zoo' has no version 2 that is served; it has 5")


def test_rest_predicts_rows_and_columns(server: Server) -> None:
    assert server.post(instances=ROW).json() == {"predictions": [[110.0, 140.0]]}
    assert server.post(inputs={"x": ROW}).json() == {"outputs": [[110.0, 140.0]]}


def test_rest_and_grpc_give_the_same_numbers(server: Server) -> None:
    values = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
    rest = server.post(instances=values.tolist()).json()["predictions"]
    np.testing.assert_array_equal(np.array(rest, np.float32), server.client.predict(x=values)["y"])


BODIES = [
    (404, "nosuch", {"instances": ROW}),
    (400, "zoo", {"signature_name": "nosuch", "instances": ROW}),
    (400, "nodefault", {"instances": [1.0]}),
    (400, "zoo", {"instances": [{"z": [1, 2, 3]}]}),
    (400, "zoo", {"instances": [["a", "b", "c"]]}),
    (400, "zoo", {"instances": [1, 2, 3]}),
    (400, "zoo", {"signature_name": "positive", "instances": [4, -9]}),
    (400, "zoo", {"signature_name": "forgotten", "instances": [1]}),
    (400, "zoo", {"signature_name": "id_c64", "instances": [1.0]}),
]


@pytest.mark.parametrize(("status", "model", "body"), BODIES)
def test_rest_refuses_with_a_status_and_a_sentence(
    server: Server, status: int, model: str, body: dict[str, Any]
) -> None:
    reply = server.post(model, **body)
    assert reply.status_code == status
    assert reply.json().keys() == {"error"}
    assert reply.json()["error"]


def test_rest_finds_a_version_by_number(server: Server) -> None:
    assert server.rest.post("/v1/models/zoo/versions/5:predict", json={"instances": ROW}).status_code == 200
    assert server.rest.post("/v1/models/zoo/versions/2:predict", json={"instances": ROW}).status_code == 404
    assert server.rest.post("/v1/models/zoo/versions/nope:predict", json={"instances": ROW}).status_code == 400


def test_rest_tells_status_and_metadata(server: Server) -> None:
    available = {"version": "5", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    assert server.rest.get("/v1/models/zoo").json() == {"model_version_status": [available]}
    found = server.rest.get("/v1/models/zoo/metadata").json()
    assert found["model_spec"] == {"name": "zoo", "version": "5", "signature_name": ""}
    x = found["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]["x"]
    assert (x["dtype"], [dim["size"] for dim in x["tensor_shape"]["dim"]]) == ("DT_FLOAT", ["-1", "3"])


@pytest.mark.parametrize(
    ("status", "method", "path"),
    [
        (404, "GET", "/v1/models/nosuch"),
        (400, "GET", "/v1/models"),
        (400, "GET", "/v1/models/zoo:predict"),
        (400, "POST", "/v1/models/zoo"),
        (400, "POST", "/v1/models/zoo:predict?x=1"),
    ],
)
def test_rest_refuses_other_paths_and_methods(server: Server, status: int, method: str, path: str) -> None:
    reply = server.rest.request(method, path)
    assert (reply.status_code, reply.json().keys()) == (status, {"error"})


def test_a_large_tensor_goes_through(client: Client) -> None:
    rows = np.ones((400_000, 3), np.float32)
    assert client.predict(x=rows)["y"].shape == (400_000, 2)


def test_many_calls_at_once_get_their_own_answers(client: Client) -> None:
    calls = [
        client.predictions.Predict.future(request("zoo", "id_i64", x=np.array([i])), PATIENCE_S) for i in range(200)
    ]
    answers = [int.from_bytes(call.result().outputs["y"].tensor_content, "little") for call in calls]
    assert answers == [*range(200)]


def test_a_request_that_is_no_message_is_an_error_and_the_server_goes_on(client: Client) -> None:
    raw = client._channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    with refused("INTERNAL"):
        raw(b"\xff\xff\xff\xff", timeout=PATIENCE_S)
    assert isinstance(client.predictions.Predict(request("zoo", x=floats(*ROW))), predict_pb2.PredictResponse)


SERVICES = ["tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"]
HEALTHY = ["", *SERVICES, "PredictionService", "ModelService"]


@pytest.mark.parametrize("service", HEALTHY)
def test_the_server_and_its_services_are_healthy_by_any_of_their_names(client: Client, service: str) -> None:
    health, asked = health_pb2_grpc.HealthStub(client._channel), health_pb2.HealthCheckRequest(service=service)
    assert health.Check(asked, PATIENCE_S).status == health_pb2.HealthCheckResponse.SERVING
    watched = health.Watch(asked, PATIENCE_S)
    assert next(watched).status == health_pb2.HealthCheckResponse.SERVING
    watched.cancel()


def test_the_health_of_a_service_that_is_not_there_is_not_found(client: Client) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        health_pb2_grpc.HealthStub(client._channel).Check(health_pb2.HealthCheckRequest(service="nosuch"), PATIENCE_S)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.fixture(scope="module")
def of_tf2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of a SavedModel with a variable, as TensorFlow 2 writes it: z = 3·x·by; `by` is 2 if left out."""
    root = tmp_path_factory.mktemp("tf2")
    module = tf.Module()
    module.weight = tf.Variable(3.0)
    inputs = [tf.TensorSpec([None], tf.float32, "x"), tf.TensorSpec([], tf.float32, "by")]

    @tf.function(input_signature=inputs)
    def scaled(x: Any, by: Any = tf.constant(2.0)) -> dict[str, Any]:
        return {"z": x * by * module.weight}

    module.scaled = scaled
    tf.saved_model.save(module, str(root / "scaled" / "1"), signatures=scaled)
    running = Server(root, f"--models={root}")
    yield running
    running.close()


def test_a_saved_model_of_tensorflow_2_is_served_with_its_variables(of_tf2: Server) -> None:
    answer = of_tf2.client.predict("scaled", x=floats(1, 2), by=np.float32(10))
    np.testing.assert_array_equal(answer["z"], floats(30, 60))


def test_an_input_with_a_default_may_be_left_out_over_grpc(of_tf2: Server) -> None:
    np.testing.assert_array_equal(of_tf2.client.predict("scaled", x=floats(1, 2))["z"], floats(6, 12))
    with refused("INVALID_ARGUMENT"):
        of_tf2.client.predict("scaled", by=np.float32(10))
    told = of_tf2.rest.get("/v1/models/scaled/metadata").json()["metadata"]["signature_def"]["signature_def"]
    assert told["serving_default"]["defaults"]["by"]["float_val"] == [2.0]


def test_metadata_tell_what_tensorflow_runs_at_the_start_and_nobody_can_call_it(of_tf2: Server) -> None:
    told = of_tf2.rest.get("/v1/models/scaled/metadata").json()["metadata"]["signature_def"]["signature_def"]
    assert told["__saved_model_init_op"]["inputs"] == {}
    assert of_tf2.post("scaled", signature_name="__saved_model_init_op", inputs={}).status_code == 400


def test_half_precision_is_an_answer_of_grpc_and_not_of_rest(server: Server) -> None:
    assert server.client.predict(signature="halved", x=floats(1.5))["y"].dtype == np.float16
    reply = server.post(signature_name="halved", instances=[1.5])
    assert (reply.status_code, "float16, which JSON answers do not carry" in reply.text) == (400, True)
    assert server.post(signature_name="halved", inputs=[]).json() == {"outputs": []}


def test_the_status_of_no_model_is_refused_and_of_one_without_a_name_not_found(server: Server) -> None:
    asked = get_model_status_pb2.GetModelStatusRequest()
    with refused("INVALID_ARGUMENT"):
        server.client.models.GetModelStatus(asked)
    asked.model_spec.SetInParent()
    with refused("NOT_FOUND"):
        server.client.models.GetModelStatus(asked)
