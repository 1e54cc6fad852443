"""Requests that are wrong, over REST and gRPC: each has its status and a sentence, and the server goes on unharmed."""

import base64
import gzip
import json
import socket
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import classification_pb2, inference_pb2, predict_pb2

from tests.model_server.conftest import PATIENCE_S, Server, floats, refused, request

ROW = [[1.0, 2.0, 3.0]]
GOOD = json.dumps({"instances": ROW}).encode()
MEBIBYTE = 1 << 20
SERVICE = "/tensorflow.serving.PredictionService"
Dims = tuple[int, ...]


@pytest.fixture(scope="module")
def server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that has answered correctly and logged no traceback when all is over."""
    running = Server(tmp_path_factory.mktemp("bad"), f"--models={models}")
    yield running
    assert running.post(instances=ROW).json() == {"predictions": [[110.0, 140.0]]}
    running.process.terminate()
    assert "Traceback" not in "".join(running.process.communicate(timeout=PATIENCE_S))
    running.close()


def peak_bytes(server: Server) -> int:
    """The most memory that the process has had."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def of(signature: str, *values: Any) -> dict[str, Any]:
    return {"signature_name": signature, "instances": values}


BODIES: list[Any] = [
    b"", b"null", b"5", b'"text"', b"[]", b"\xff\xfe{", b"{" * 100_000, b"[" * 100_000, b'{"instances": [[1, 2',
    b'{"instances": ' + b"[" * 900 + b"]" * 900 + b"}", b'{"instances": [[1e999, 2, 3]]}',
    b'{"instances": [[' + b"9" * 6000 + b", 2, 3]]}", b'{"instances": [[1, 2, 3]], "signature_name": "\\ud800"}',
    {}, {"instances": ROW, "inputs": ROW}, {"instances": []}, {"inputs": []}, {"inputs": {}}, {"inputs": {"x": []}},
    {"instances": {}}, {"instances": None}, {"instances": [{}]}, {"instances": [{"y": 1}]},
    {"instances": [[1, 2, 3], [4, 5]]}, {"inputs": [[1, 2, 3], [4, 5]]}, {"instances": [{"x": [1, 2, 3]}, [4, 5, 6]]},
    {"instances": [[1, "a", 3]]}, {"instances": [[1, True, 3]]}, {"instances": [[1, None, 3]]},
    {"instances": [[1, {"b64": "AAAA"}, 3]]}, {"instances": ROW, "signature_name": ["serving_default"]},
    of("nosuch", *ROW), of("id_i32", 2**31), of("id_i32", -(2**31) - 1), of("id_i32", 1.5), of("id_i64", 2**63),
    of("id_i64", -(2**63) - 1), of("id_i64", 2**63, -1), of("id_u64", 2**64), of("id_u64", -1), of("id_u32", -1),
    of("id_i8", 2**31), of("id_bool", 1), of("id_bool", True, 0), of("id_f16", 1.0), of("id_bf16", 1.0),
    of("echo", 5), of("echo", None), of("echo", ["a"], "b"), of("echo", {"b64": "!!!"}), of("echo", {"b64": "abc=d"}),
    of("echo", {"b64": 5}), of("echo", {"b64": {"b64": "AAAA"}}), of("echo", {"b64": "AAAA", "more": 1}),
    of("nobatch", 1), of("positive", -1), of("forgotten", 1),
]  # fmt: skip


@pytest.mark.parametrize("body", BODIES, ids=lambda body: str(body)[:50])
def test_a_body_that_cannot_be_used_is_refused_with_a_sentence(server: Server, body: Any) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body)
    reply = server.rest.post("/v1/models/zoo:predict", content=content)
    assert (reply.status_code, reply.json().keys()) == (400, {"error"})
    assert reply.json()["error"]


def test_of_a_ragged_body_the_row_and_the_lengths_are_named(server: Server) -> None:
    said = server.post(instances=[[1, 2, 3], [4, 5]]).json()["error"]
    assert "row 1 has 2 values where row 0 has 3" in said


EXAMPLES: list[Any] = [
    {}, {"examples": []}, {"examples": {}}, {"examples": [5]}, {"examples": [{}]}, {"examples": [{"age": None}]},
    {"examples": [{"age": [1.0, "a"]}]}, {"examples": [{"age": {"b64": "!!"}}]}, {"examples": [{"age": 2**63}]},
    {"examples": [{"age": [[1.0]]}]}, {"examples": [{"age": 1.0}], "context": []}, {"examples": [{"age": "old"}]},
    {"examples": [{"age": 1.0}], "signature_name": "nosuch"}, {"examples": [{"age": 1.0}], "signature_name": ""},
]  # fmt: skip


@pytest.mark.parametrize("verb", ["classify", "regress"])
@pytest.mark.parametrize("body", EXAMPLES, ids=str)
def test_examples_that_cannot_be_used_are_refused_with_a_sentence(server: Server, body: Any, verb: str) -> None:
    reply = server.rest.post(f"/v1/models/zoo:{verb}", json={"signature_name": verb, **body})
    assert (reply.status_code, reply.json().keys()) == (400, {"error"})


NAMES = {
    "nosuch": 404, "%2e%2e": 404, "..": 404, "a%00b": 404, "%ff%fe": 404, "zoo%20": 404, "z%C3%A9": 404, "ZOO": 404,
    "a" * 5000: 404, "%2e%2e%2f%2e%2e%2fetc": 404, "..%5C..": 404, "": 400, "zoo/versions/99": 404,
    "zoo/versions/-1": 400, "zoo/versions/1.5": 400, f"zoo/versions/{2**63}": 400, "zoo/labels/nosuch": 400,
    "zoo/labels/": 400, "zoo/labels/a/b": 400, "zoo%zz": 400, "zoo:predict": 400, "${jndi:x}": 400,
}  # fmt: skip


def asked(server: Server, method: str, path: str, *headers: str, body: bytes = GOOD) -> tuple[int, bytes]:
    """The last status and the body that come back for a request as it is written here."""
    head = "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", *headers])
    with socket.create_connection(("127.0.0.1", server.rest_port), PATIENCE_S) as connection:
        connection.sendall(f"{head}\r\nContent-Length: {len(body)}\r\n\r\n".encode("latin-1") + body)
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    *_, last, content = received.split(b"\r\n\r\n")
    return int(last.split()[1]), content


@pytest.mark.parametrize(("name", "status"), NAMES.items(), ids=lambda each: str(each)[:30])
def test_a_name_that_is_not_served_is_refused_whatever_it_looks_like(server: Server, name: str, status: int) -> None:
    found, content = asked(server, "POST", f"/v1/models/{name}:predict")
    assert found == status
    assert content == b"" or b"<H1>Bad Request</H1>" in content or json.loads(content).keys() == {"error"}


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "HEAD"])
def test_a_method_that_a_call_does_not_have_is_refused(server: Server, method: str) -> None:
    assert asked(server, method, "/v1/models/zoo:predict")[0] == 400


@pytest.mark.parametrize("kind", ["text/plain", "image/png", "multipart/form-data; boundary=x", ""])
def test_a_content_type_is_not_looked_at(server: Server, kind: str) -> None:
    assert asked(server, "POST", "/v1/models/zoo:predict", f"Content-Type: {kind}")[0] == 200


def test_who_waits_to_be_told_to_go_on_is_told(server: Server) -> None:
    assert asked(server, "POST", "/v1/models/zoo:predict", "Expect: 100-continue")[0] == 200


ENCODED = {
    "gzip": ("gzip", gzip.compress(GOOD), 200),
    "in capitals": ("GZIP", gzip.compress(GOOD), 400),
    "deflate": ("deflate", zlib.compress(GOOD), 400),
    "of old": ("x-gzip", gzip.compress(GOOD), 200),
    "as it is": ("identity", GOOD, 200),
    "not compressed": ("gzip", GOOD, 400),
    "empty": ("gzip", b"", 400),
    "cut off": ("gzip", gzip.compress(GOOD)[:-9], 400),
    "not JSON": ("gzip", gzip.compress(b"not JSON"), 400),
    "another encoding": ("br", GOOD, 200),
}


@pytest.mark.parametrize(("encoding", "body", "status"), ENCODED.values(), ids=ENCODED)
def test_a_compressed_body_is_read_or_refused(server: Server, encoding: str, body: bytes, status: int) -> None:
    assert asked(server, "POST", "/v1/models/zoo:predict", f"Content-Encoding: {encoding}", body=body)[0] == status


def test_a_body_that_inflates_beyond_the_limit_is_refused_before_it_is_whole(server: Server) -> None:
    packer = zlib.compressobj(9, wbits=16 + zlib.MAX_WBITS)
    bomb = b"".join([*(packer.compress(bytes(MEBIBYTE)) for _ in range(1024)), packer.flush()])
    before = peak_bytes(server)
    status, content = asked(server, "POST", "/v1/models/zoo:predict", "Content-Encoding: gzip", body=bomb)
    assert (status, json.loads(content).keys()) == (413, {"error"})
    assert peak_bytes(server) - before < 600 * MEBIBYTE


def tensor(dims: Dims = (1, 3), dtype: int = 1, **fields: Any) -> tensor_pb2.TensorProto:
    """A tensor as it is said to be; an unknown `dtype` too."""
    made = tensor_pb2.TensorProto.FromString(b"\x08" + dtype.to_bytes(1)) if dtype else tensor_pb2.TensorProto()
    made.MergeFrom(tensor_pb2.TensorProto(**fields))
    for size in dims:
        made.tensor_shape.dim.add().size = size
    return made


FLOAT, INT32, STRING, BOOL, COMPLEX128 = 1, 3, 7, 10, 18
TENSORS = {
    "negative size": tensor((-1, 3), float_val=[1, 2, 3]),
    "most negative size": tensor((-(2**63),), float_val=[1]),
    "negative beside nothing": tensor((0, -1)),
    "product overflows 64 bits": tensor((2**62, 4), float_val=[1]),
    "product overflows to nothing": tensor((2**32, 2**32), float_val=[1]),
    "largest size": tensor((2**63 - 1,), float_val=[1]),
    "large beside nothing": tensor((0, 2**62)),
    "more axes than there can be": tensor((1,) * 300, float_val=[1]),
    "unknown rank": tensor((), tensor_shape={"unknown_rank": True}, float_val=[1]),
    "too few bytes": tensor((3,), tensor_content=b"x" * 8),
    "too many bytes": tensor((3,), tensor_content=b"x" * 16),
    "a part of a number": tensor((3,), tensor_content=b"x" * 11),
    "another dtype": tensor((1, 3), INT32, int_val=[1, 2, 3]),
    "text": tensor((3,), STRING, string_val=[b"a", b"b", b"c"]),
    "no dtype": tensor((1,), 0, float_val=[1]),
    "a resource": tensor((1,), 20),
    "a variant": tensor((1,), 21),
    "a reference": tensor((1,), 101, float_val=[1]),
    "a dtype that is not known": tensor((1,), 120, float_val=[1]),
    "a shape far larger than its content": tensor((2**26,), COMPLEX128),
    "text far longer than its content": tensor((2**26,), STRING),
}


@pytest.mark.parametrize("given", TENSORS.values(), ids=TENSORS)
def test_a_tensor_that_does_not_fit_itself_or_the_input_is_refused(
    server: Server, given: tensor_pb2.TensorProto
) -> None:
    asked = predict_pb2.PredictRequest(inputs={"x": given})
    asked.model_spec.name, asked.model_spec.signature_name = "zoo", "ident"
    before = peak_bytes(server)
    with refused("INVALID_ARGUMENT"):
        server.client.predictions.Predict(asked, PATIENCE_S)
    assert peak_bytes(server) - before < 64 * MEBIBYTE


@pytest.mark.parametrize("method", ["Predict", "Classify", "Regress", "MultiInference", "GetModelMetadata"])
def test_a_message_that_cannot_be_read_is_an_error_of_its_own(server: Server, method: str) -> None:
    call = server.client._channel.unary_unary(f"{SERVICE}/{method}")
    for message in (b"\xff", b"\x0a\x02\x0a", b"\x0a\x04\x0a\x02\xff\xfe"):  # cut off, cut off inside, text not UTF-8
        with refused("INTERNAL"):
            call(message, timeout=PATIENCE_S)
    with refused("INVALID_ARGUMENT"):
        call(b"", timeout=PATIENCE_S)


@pytest.mark.parametrize("method", ["SessionRun", "NoSuchMethod"])
def test_a_method_that_is_not_there_is_not_implemented(server: Server, method: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        server.client._channel.unary_unary(f"{SERVICE}/{method}")(b"", timeout=PATIENCE_S)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("name", ["..", "../../etc/passwd", "a\0b", "zo\u00f6", "\U0001f600" * 50_000, "a" * 100_000])
def test_a_hostile_name_over_grpc_is_a_name_that_is_not_served(server: Server, name: str) -> None:
    with refused("NOT_FOUND"):
        server.client.predict(name, x=floats(*ROW))


@pytest.mark.parametrize("version", [-1, 0, 2**63 - 1])
def test_a_version_that_is_not_served_is_not_found(server: Server, version: int) -> None:
    with refused("NOT_FOUND"):
        server.client.predict(version=version, x=floats(*ROW))


@pytest.mark.parametrize(
    ("signature", "value", "sentence"),
    [
        ("id_u8", 1.5, "Input 'x' takes uint8 [batch]; fractions came."),
        ("id_i16", 2**40, "Input 'x' takes int16 [batch]; a number came that int16 cannot hold."),
        ("anyrank", "a", "Input 'x' takes float32 of any shape; text came."),
    ],
)
def test_a_refusal_names_the_signatures_own_dtype_and_shape(
    server: Server, signature: str, value: Any, sentence: str
) -> None:
    assert server.post(**of(signature, value)).json() == {"error": sentence}


def test_a_serialized_example_that_is_none_is_refused_on_both_ways_in(server: Server) -> None:
    nonsense = base64.b64encode(b"garbage").decode()
    assert server.post(**of("example_predict", {"b64": nonsense})).status_code == 400
    with refused("INVALID_ARGUMENT"):
        server.client.predict(signature="example_predict", inputs=[b"garbage"])


def test_classify_and_regress_need_an_example_and_a_signature_for_them(server: Server) -> None:
    asked = classification_pb2.ClassificationRequest()
    asked.model_spec.name = "zoo"
    with refused("INVALID_ARGUMENT"):
        server.client.predictions.Classify(asked, PATIENCE_S)
    asked.input.example_list.examples.add()
    with refused("INVALID_ARGUMENT"):
        server.client.predictions.Classify(asked, PATIENCE_S)


@pytest.mark.parametrize(
    ("code", "second"),
    [
        ("INVALID_ARGUMENT", {"model_spec": {"name": "zoo", "signature_name": "echo"}}),  # twice the same
        ("INVALID_ARGUMENT", {"model_spec": {"name": "nodefault", "signature_name": "only"}}),  # another model
    ],
)
def test_tasks_that_do_not_go_together_are_refused(server: Server, code: str, second: dict[str, Any]) -> None:
    first = {"model_spec": {"name": "zoo", "signature_name": "echo"}, "method_name": "tensorflow/serving/classify"}
    asked = inference_pb2.MultiInferenceRequest(tasks=[first, second])
    asked.input.example_list.examples.add()
    with refused(code):
        server.client.predictions.MultiInference(asked, PATIENCE_S)


def test_many_wrong_calls_leave_the_right_ones_alone(server: Server) -> None:
    wrong = [
        server.client.predictions.Predict.future(request("zoo", x=floats(*ROW * 2, [4, 5, 6])[:, :i]), PATIENCE_S)
        for i in (1, 2) * 50
    ]
    assert server.client.predict(x=floats(*ROW))["y"].tolist() == [[110.0, 140.0]]
    assert {call.code() for call in wrong} == {grpc.StatusCode.INVALID_ARGUMENT}
