"""What TensorFlow Serving answers by its own rules where no record says it, asked of both servers over REST."""

import gzip
import json
from typing import Any, NamedTuple

import httpx
import pytest

from tests.golden.conftest import Door
from tests.golden.replay import same, sent_rest
from tests.model_server.conftest import PATIENCE_S

ROW = '{"instances": [[1, 2, 3]]}'
ANSWER = {"predictions": [[110.0, 140.0]]}
CLASSIFIED = {"results": [[["old", 0.7310586], ["young", 0.2689414]]]}


class Case(NamedTuple):
    """A request, and the status and body that answer it; `None`: any body."""

    body: str | bytes
    status: int = 200
    answer: Any = None
    path: str = "/v1/models/zoo:predict"
    method: str = "POST"
    headers: dict[str, str] = {}


def rows(signature: str, values: str, status: int = 200, answer: list[Any] | None = None) -> Case:
    body = f'{{"signature_name": "{signature}", "instances": [{values}]}}'
    return Case(body.encode("latin-1"), status, None if answer is None else {"predictions": answer})


def columns(signature: str, values: str, status: int) -> Case:
    return Case(f'{{"signature_name": "{signature}", "inputs": {values}}}', status)


def examples(features: str, more: str = "", status: int = 200) -> Case:
    body = f'{{"signature_name": "classify", "examples": [{{{features}}}]{more}}}'
    return Case(body.encode("latin-1"), status, CLASSIFIED if status == 200 else None, "/v1/models/zoo:classify")


def at(path: str, status: int, body: str = ROW) -> Case:
    return Case(body, status, path=path)


def got(path: str, status: int) -> Case:
    return Case("", status, path=path, method="GET")


def packed(encoding: str, body: bytes, status: int) -> Case:
    return Case(body, status, headers={"Content-Encoding": encoding})


ALIKE = {
    # Of a key that comes twice the first one counts, and of a feature the last one.
    "twice instances": Case('{"instances": [[1, 2, 3]], "instances" : [[4, 5, 6]]}', answer=ANSWER),
    "twice column": Case('{"inputs": {"x": [[1, 2, 3]], "x": 0}}', answer={"outputs": [[110.0, 140.0]]}),
    "twice signature": Case('{"signature_name": "", "signature_name": 5, "instances": [[1, 2, 3]]}', answer=ANSWER),
    "twice other": Case('{"a": {"b": ":"}, "a": 2, "instances": [[1, 2, 3]]}', answer=ANSWER),
    "twice b64": rows("echo_bytes_single", '{"b64": "YQ==", "b64": "Yg=="}', 400),
    "twice feature": examples('"age": 1.0, "age": 10.0'),
    "twice feature, wrong": examples('"age": null, "age": 10.0', status=400),
    "twice examples": examples('"age": 10.0', ', "examples": []'),
    # The name of an input in rows, or of a feature, ends with the first zero byte; other keys do not.
    "zero in row": Case(r'{"instances": [{"x\u0000y": [1, 2, 3]}]}', answer=ANSWER),
    "zero in row, other name": Case(r'{"instances": [{"y\u0000x": [1, 2, 3]}]}', 400),
    "zero in column": Case(r'{"inputs": {"x\u0000y": [[1, 2, 3]]}}', 400),
    "zero in field": Case(r'{"instances\u0000": [[1, 2, 3]]}', 400),
    "zero in feature": examples(r'"age\u0000": 10.0'),
    # Text is bytes.
    "latin": rows("echo", '"\xe9"', answer=[{"n": 1, "s": "\ufffd"}]),
    "latin feature": examples('"age": 10.0, "name": "\xff"'),
    "latin field": Case(b'{"\xff": 1, "instances": [[1, 2, 3]]}', answer=ANSWER),
    "latin input": Case(b'{"instances": [{"x\xff": [1, 2, 3]}]}', 400),
    "latin signature": rows("\xff", "1", 400),
    "second half": rows("echo", r'"\udc00"', answer=[{"n": 3, "s": "\ufffd\ufffd\ufffd"}]),
    "first half": rows("echo", r'"\udc00\ud83d"', 400),
    "zero": rows("echo", r'"a\u0000b"', answer=[{"n": 3, "s": "a\0b"}]),
    "tab": rows("echo", '"a\tb"', 400),
    "mark": Case(b"\xef\xbb\xbf" + ROW.encode(), answer=ANSWER),
    "utf-16": Case(ROW.encode("utf-16"), 400),
    "b64 with space": rows("echo_bytes_single", r'{"b64": "aGVs\nbG8="}', answer=[{"b64": "aGVsbG8="}]),
    "b64 half padded": rows("echo_bytes_single", '{"b64": "YQ="}', 400),
    "b64 with padding that pads nothing": rows("echo_bytes_single", '{"b64": "YWJj="}', 400),
    "b64 with other space": rows("echo_bytes_single", r'{"b64": "YQ\u001f=="}', 400),
    "b64 of a number": rows("echo_bytes_single", '{"b64": 5}', 400),
    # Numbers.
    "inf": rows("ident", "Inf, -Inf, -NaN", answer=[float("inf"), float("-inf"), float("nan")]),
    "nan in small letters": rows("ident", "nan", 400),
    "too large for float32": rows("ident", "1e39, -1e39", answer=[float("inf"), float("-inf")]),
    "a little too large": rows("id_f64", "10e308", answer=[float("inf")]),
    "too large": rows("id_f64", "-1e309", 400),
    "too small": rows("id_f64", "1e-400", answer=[0.0]),
    "minus zero": rows("id_u64", "-0", answer=[0]),
    "too large for int64": rows("id_i64", "9223372036854775808", 400),
    "cut to int8": rows("id_i8", "128, -129", answer=[-128, 127]),
    # What JSON has no form for.
    "half": rows("id_f16", "0.1", 400),
    "half in columns": columns("id_f16", "[0.1]", 501),
    "uint16 in columns": columns("id_u16", '{"x": [1]}', 501),
    "object for half": columns("id_bf16", "[{}]", 400),
    # Names.
    "other column": Case('{"inputs": {"x": [[1, 2, 3]], "y": 0}}', answer={"outputs": [[110.0, 140.0]]}),
    "other row": Case('{"instances": [{"x": [1, 2, 3], "y": 0}]}', 400),
    # A model is looked for before the rows are.
    "no model, no rows": at("/v1/models/nosuch:predict", 404, "{}"),
    "no model, no object": at("/v1/models/nosuch:predict", 400, "[]"),
    "no model, no signature": at("/v1/models/nosuch:predict", 400, '{"signature_name": 5}'),
    "no model, no label": at("/v1/models/nosuch/labels/new:predict", 400),
    "no model, no label, status": got("/v1/models/nosuch/labels/new", 404),
    "no label": at("/v1/models/zoo/labels/new:predict", 400),
    "no label, metadata": got("/v1/models/zoo/labels/new/metadata", 400),
    # Paths are taken apart before they are decoded.
    "slash in name": at("/v1/models/a%2Fb:predict", 404),
    "colon in path": at("/v1/models/zoo%3Apredict", 400),
    "digit in path": at("/v1/models/zoo/versions/%31:predict", 400),
    "word in path": at("/v1/%6Dodels/zoo:predict", 400),
    "empty query": at("/v1/models/zoo:predict?", 400),
    "query in name": got("/v1/models/zoo?x=1", 404),
    "long version": at("/v1/models/zoo/versions/000000000000000000000005:predict", 200),
    "no version": at("/v1/models/zoo/versions/9223372036854775808:predict", 400),
    "METADATA": got("/v1/models/zoo/METADATA", 200),
    "slash": got("/v1/models/zoo/", 400),
    "no name, version": got("/v1/models/versions/5", 400),
    "metadata as name": got("/v1/models/metadata", 404),
    "metadata of metadata": got("/v1/models/metadata/metadata", 404),
    "metadata by label": got("/v1/models/zoo/labels/stable/metadata", 200),
    **{method: Case("", 400, method=method) for method in ("HEAD", "PUT", "DELETE", "PATCH", "GET")},
    **{method: Case("", 501, method=method) for method in ("TRACE", "PROPFIND")},
    "gzip": packed("gzip", gzip.compress(ROW.encode()), 200),
    "no gzip": packed("gzip", ROW.encode(), 400),
}  # fmt: skip

# What the gateway does in its own way: see docs/tf-serving-compatibility.md.
OWN = {
    "no half": columns("id_f16", "[]", 200),
    "deflate": packed("deflate", ROW.encode(), 200),
    "br": packed("br", ROW.encode(), 200),
    "KNOWS-NOBODY": Case("", 501, method="KNOWS-NOBODY"),
    "version without words": Case("", 400, path="/v1/models/zoo/versions/99999999999999999999", method="GET"),
    "host": got("//x:80/v1/models/zoo", 200),
    "host and user": got("//a:b@x/v1/models/zoo", 200),
    "below v1": got("/v1/foo", 400),
    "v1 decoded": at("/%761/models/zoo:predict", 404),
    "no path": at("/", 404),
    **{
        f"OPTIONS of {origin}": Case("", status, method="OPTIONS", headers={"Origin": origin})
        for origin, status in {"https://a.b:8": 200, "null": 400, "chrome-extension://a": 400}.items()
    },
    "OPTIONS of a path that is none": Case("", 404, path="/", method="OPTIONS", headers={"Origin": "http://a"}),
}


def answered(door: Door, case: Case) -> httpx.Response:
    with httpx.Client(base_url=door.url, timeout=PATIENCE_S) as client:
        reply = client.request(case.method, case.path, headers=case.headers, content=case.body)
    assert reply.status_code == case.status, reply.text
    if case.answer is not None:
        assert same(json.loads(reply.content), case.answer), reply.text
    return reply


@pytest.mark.parametrize("case", [pytest.param(each, id=name) for name, each in (ALIKE | OWN).items()])
def test_the_model_server_follows_tensorflow_servings_rules(served: Door, case: Case) -> None:
    answered(served, case)


@pytest.mark.parametrize("case", [pytest.param(each, id=name) for name, each in ALIKE.items()])
def test_the_gateway_follows_tensorflow_servings_rules(passed_on: Door, case: Case) -> None:
    answered(passed_on, case)


def test_a_version_that_is_no_number_is_refused_without_a_word(served: Door) -> None:
    reply = answered(served, OWN["version without words"])
    assert (reply.headers["content-type"], reply.content) == ("application/json", b"")


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("GET http://x/v1/models/zoo HTTP/1.0", 200),
        ("GET http://x HTTP/1.1", 404),
        ("GET /v1/models/zoo HTTP/2.0", 400),
        ("GET /v1/models/zoo", 400),
        ("CONNECT x:80 HTTP/1.1", 501),
        ("CONNECT /v1/models/zoo HTTP/1.1", 501),
    ],
)
def test_the_model_server_reads_requests_of_http_1_0_and_1_1(served: Door, line: str, status: int) -> None:
    raw = f"{line}\r\nConnection: close\r\n\r\n"
    assert sent_rest(served.url, {"method": "RAW", "raw_request": raw}).status_code == status


@pytest.mark.parametrize("method", ["get", "Post", "KNOWS-NOBODY"])
def test_a_method_that_nobody_knows_is_not_implemented(served: Door, method: str) -> None:
    raw = f"{method} /v1/models/zoo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    reply = sent_rest(served.url, {"method": "RAW", "raw_request": raw})
    assert (reply.status_code, reply.headers["content-type"]) == (501, "text/html")
    assert "<H1>Not Implemented</H1>" in reply.text
