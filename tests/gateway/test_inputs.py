"""What a client can send wrongly, and the answer that tells it so. No mistake touches anybody's state."""

import httpx
import pytest

from sluice.gateway.http.rest import OpenSession
from tests.gateway.here import refused, refused_as_tf_serving, running

OPENS_WITH = ", ".join(OpenSession.model_fields)
JSON = {"content-type": "application/json"}


async def post(here, path, text, headers=None):
    content = text if isinstance(text, bytes) else text.encode()
    return await here.http.post(path, content=content, headers=JSON | (headers or {}))


# By path, a body around what is in it.
BODIES = {
    "/v1/sessions/{}:step": '{"inputs": %s}',
    "/v1/sessions/{}:scan": '{"inputs": [%s]}',
    "/v1/models/sum/sessions:step": '{"sessions": ["{}"], "inputs": [%s]}',
    "/v1/models/sum/sessions": '{"ttl_s": 5, "state": {"h": %s}}',
    "/v1/models/plain:predict": '{"instances": [%s]}',
    "/v1/models/sides:recognize": '{"instances": [%s]}',
    "/v1/models/speller:generate": '{"instances": [%s]}',
    "/v2/models/plain/infer": '{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": %s}]}',
}


@pytest.mark.parametrize("path", BODIES)
async def test_a_body_that_is_nested_too_deeply_is_told_so_by_every_door(here, path):
    adder = await here.open()
    body = (BODIES[path] % ("[" * 5000 + "]" * 5000)).replace("{}", adder.id)
    response = await post(here, path.format(adder.id), body)
    assert (response.status_code, response.headers["sluice-code"]) == (400, "bad_request")
    assert "nested too deeply" in response.json()["error"]
    await adder.goes_on()


@pytest.mark.parametrize("path", [each for each in BODIES if "sides" not in each and "speller" not in each])
async def test_a_body_may_begin_with_a_byte_order_mark(here, path):
    adder = await here.open()
    body = (BODIES[path] % "[1, 2]").replace("{}", adder.id)
    response = await post(here, path.format(adder.id), b"\xef\xbb\xbf" + body.encode())
    assert response.status_code in (200, 201), response.text


async def test_what_came_is_shown_as_it_was_written(here):
    adder = await here.open()
    step, many = f"/v1/sessions/{adder.id}:step", "/v1/models/sum/sessions:step"
    for path, body, shown in (
        (step, '{"inputs": [1, 2], "step": true}', "got true."),
        (step, '{"inputs": [1, 2], "outputs": [null]}', "got [null]."),
        (many, '{"sessions": null, "inputs": [[1, 2]]}', "got null."),
        (many, '{"sessions": ["a"], "inputs": [[1, 2]], "steps": {"a": false}}', 'got {"a": false}.'),
        ("/v1/models/sides:recognize", '{"instances": [[1, 2]], "level": true}', "got true."),
        ("/v1/models/sides:recognize", '{"instances": [[1, 2]], "method": ["knn"]}', 'got ["knn"].'),
        ("/v1/models/plain:predict", '{"signature_name": null, "instances": [[1, 2]]}', "got null."),
        ("/v1/models/plain:predict", '{"instances": [[1, 2]], "inputs": [[1, 2]]}', "it has both."),
        ("/v1/models/plain:predict", "null", "got null."),
        ("/v1/models/plain:classify", '{"examples": [null]}', "example 0 is null."),
        ("/v2/models/plain/infer", '{"inputs": {"x": true}}', 'got {"x": true}.'),
    ):
        response = await post(here, path, body)
        assert response.status_code == 400
        assert response.json()["error"].endswith(shown)


async def test_inputs_of_different_sizes_are_told_with_how_many_each_has(here):
    adder = await here.open()
    response = await here.columns([adder.id], [[1, 2], [3, 4]])
    said = refused(response, 400, "shape_mismatch")["error"]
    assert said == "Each input needs as many rows as there are sessions, 1; 'x' has 2."


@pytest.mark.parametrize(
    ("model", "rows", "advice"),
    [
        ("plain", "[[1, 2], [3]]", "Lists beside each other have the same length."),
        ("sum", "[[[1, 2]], [[1, 2], [3, 4]]]", "send those of another length in a request of their own"),
        ("spans", "[[[1, 2], [3]]]", "Lists beside each other have the same length."),
    ],
)
async def test_lists_that_differ_are_told_with_where_and_what_to_do(here, model, rows, advice):
    response = await post(here, f"/v1/models/{model}:predict", f'{{"instances": {rows}}}')
    said = refused_as_tf_serving(response, 400, "shape_mismatch")
    assert " 1 has " in said
    assert advice in said


STEP_MISTAKES = {
    "shape_mismatch": ["[1, 2, 3]", "1", "[[1, 2]]", '{"x": [[1, 2], [3, 4]]}', "[[1], [2, 3]]", "[1]"],
    "dtype_mismatch": ['["a", "b"]', "[null, 1]", "[true, false]", '{"x": ["1", "2"]}', "[{}, {}]", '[1, "2"]'],
    "missing_input": ["{}"],
    "unknown_input": ['{"y": [1, 2]}', '{"x": [1, 2], "y": 1}', '{"h": [1, 2], "x": [1, 2]}'],
    "input_not_finite": ["[NaN, 1]", "[1, Infinity]", "[1, -Infinity]", "[1e39, 0]", "[-1e300, 0]"],
    "empty_input": ["[]", '{"x": []}'],
}


@pytest.mark.parametrize(("code", "value"), [(code, each) for code, values in STEP_MISTAKES.items() for each in values])
async def test_a_wrong_row_is_refused_with_its_code(here, code, value):
    adder, other = await here.adders(2)
    await adder.goes_on()
    body = refused(await post(here, f"/v1/sessions/{adder.id}:step", f'{{"inputs": {value}}}'), 400, code)
    assert "'x'" in body["error"] or "'y'" in body["error"] or "'h'" in body["error"]
    assert (await adder.view())["step"] == 1
    await adder.goes_on()
    await other.goes_on()


@pytest.mark.parametrize("value", ["[1e999, 0]", "[-1e999, 0]", "[NaN, 1e999]"])
async def test_a_number_that_no_float_holds_is_refused(here, value):
    adder = await here.open()
    response = await post(here, f"/v1/sessions/{adder.id}:step", f'{{"inputs": {value}}}')
    assert response.json()["code"] in ("bad_request", "input_not_finite")
    assert response.status_code == 400
    await adder.goes_on()


SCAN_MISTAKES = {
    "shape_mismatch": ["[1, 2]", "[[1, 2, 3]]", "[[[1, 2]]]", "[[1, 2], [3]]"],
    "empty_input": ["[]"],
    "input_not_finite": ["[[1, 2], [NaN, 1]]"],
}


@pytest.mark.parametrize(("code", "value"), [(code, each) for code, values in SCAN_MISTAKES.items() for each in values])
async def test_a_wrong_chunk_is_refused_with_its_code(here, code, value):
    adder = await here.open()
    refused(await post(here, f"/v1/sessions/{adder.id}:scan", f'{{"inputs": {value}}}'), 400, code)
    await adder.goes_on()


async def test_a_wrong_shape_is_told_in_words_with_what_came(here):
    adder = await here.open()
    body = refused(await adder.step((1, 2, 3)), 400, "shape_mismatch")
    assert "float32 [feature=2], what to add" in body["error"]
    assert "[3]" in body["error"]
    assert body["details"] == {"expected": [2], "got": [3]}
    body = refused(await adder.scan([[1, 2, 3]]), 400, "shape_mismatch")
    assert "[time, feature=2]" in body["error"] and "[1, 3]" in body["error"]
    assert body["details"] == {"expected": [None, 2], "got": [1, 3]}


BAD_BODIES = [
    "", "{", "nonsense", "[]", "null", "3", '"text"', '{"inputs": [1, 2]', "\x00", '{"inputs": [1, 2]}}', "[" * 100_000,
    '{"inputs": ' + "[" * 100_000 + "]" * 100_000 + "}", '{"a":' * 100_000 + "1" + "}" * 100_000,
    '{"inputs": [1, 2], "step": "0"}', '{"inputs": [1, 2], "step": -1}', '{"inputs": [1, 2], "step": 0.0}',
    '{"inputs": [1, 2], "step": true}', '{"inputs": [1, 2], "step": NaN}', '{"inputs": [1, 2], "step": [0]}',
    '{"inputs": [1, 2], "step": ' + "9" * 5000 + "}", '{"inputs": [1, NaN], "step": ' + "9" * 5000 + "}",
    '{"inputs": [1, 2], "outputs": "total"}', '{"inputs": [1, 2], "outputs": []}', '{"inputs": [1, 2], "outputs": [1]}',
    '{"inputs": [1, 2], "outputs": ["nothing"]}', '{"inputs": [1, 2], "outputs": ["h"]}',
    '{"inputs": [1, 2], "output": []}', '{"inputs": [NaN, 2], "\\ud800": 1}',
    '{"inputs": [NaN, 2], "outputs": ["\\ud800"]}',
]  # fmt: skip


@pytest.mark.parametrize("text", BAD_BODIES, ids=lambda text: f"{text[:40]!r}")
@pytest.mark.parametrize("call", ["step", "scan"])
async def test_a_body_that_is_not_a_step_is_a_bad_request(here, call, text):
    adder = await here.open()
    refused(await post(here, f"/v1/sessions/{adder.id}:{call}", text), 400, "bad_request")
    await adder.goes_on()


async def test_bytes_that_are_not_utf8_are_a_bad_request(here):
    adder = await here.open()
    refused(await post(here, f"/v1/sessions/{adder.id}:step", b'{"inputs": "\xff\xfe"}'), 400, "bad_request")
    refused(await post(here, "/v1/models/sum/sessions", b'{"session": "\xff\xfe"}'), 400, "bad_request")


async def test_unknown_fields_are_named(here):
    adder = await here.open()
    body = refused(await adder.step((1, 2), inptus=1, number=2), 400, "bad_request")
    assert "'inptus', 'number'" in body["error"]
    response = await here.http.post("/v1/models/sum/sessions", json={"sesion": "a"})
    assert "sesion" in refused(response, 400, "bad_request")["error"]
    response = await here.http.post(f"/v1/sessions/{adder.id}:renew", json={"ttl": 3})
    assert "ttl" in refused(response, 400, "bad_request")["error"]


async def test_a_step_without_inputs_misses_them(here):
    adder = await here.open()
    refused(await post(here, f"/v1/sessions/{adder.id}:step", "{}"), 400, "missing_input")


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "3",
        "{",
        '{"session": 3}',
        '{"session": ""}',
        '{"session": "a b"}',
        '{"session": "ä"}',
        '{"session": "%s"}' % ("a" * 129),
        '{"session": "a\\n"}',
        '{"ttl_s": 0}',
        '{"ttl_s": -1}',
        '{"ttl_s": "3"}',
        '{"ttl_s": NaN}',
        '{"ttl_s": Infinity}',
        '{"ttl_s": 1e12}',
        '{"version": 1}',
        '{"version": "one"}',
        '{"version": "-1"}',
        '{"state": []}',
        '{"\\ud800": 1}',
        '{"session": "\\ud800"}',
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"state": {"h": {}}, "x": ' + "9" * 5000 + "}",
    ],
    ids=lambda text: f"{text[:30]!r}",
)
async def test_a_body_that_opens_nothing_is_a_bad_request(here, text):
    refused(await post(here, "/v1/models/sum/sessions", text), 400, "bad_request")
    assert len(here.gateway.engine.scheduler.sessions) == 0


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "abc", "", "1e3", "9" * 10, "9" * 5000, "٣", "1_000"])
async def test_a_timeout_is_whole_milliseconds(here, value):
    adder = await here.open()
    headers = [(b"sluice-timeout-ms", value.encode())]
    response = await here.http.post(f"/v1/sessions/{adder.id}:step", json={"inputs": [1, 2]}, headers=headers)
    assert "Sluice-Timeout-Ms" in refused(response, 400, "bad_request")["error"]
    await adder.goes_on()


async def test_the_session_of_the_header_must_be_that_of_the_path(here):
    adder = await here.open()
    refused(await adder.step(headers={"Sluice-Session": "another"}), 400, "bad_request")
    refused(await adder.step(headers=[(b"sluice-session", b"\xff")]), 400, "bad_request")
    response = await adder.step(headers={"Sluice-Session": adder.id})
    assert response.json() == adder.added((1, 2))


async def test_a_body_that_is_too_large_is_refused_declared_or_not(puppet):
    async with running(puppet, body_bytes=1000) as here:
        adder = await here.open()

        async def chunks():
            for _ in range(50):
                yield b" " * 100

        for path in (f"/v1/sessions/{adder.id}:step", f"/v1/sessions/{adder.id}:scan", "/v1/models/sum/sessions"):
            body = refused(await post(here, path, b" " * 1001), 413, "body_too_large")
            assert body["details"] == {"limit": 1000}
            refused(await here.http.post(path, content=chunks()), 413, "body_too_large")
        for content in (b" " * 1001, chunks()):
            response = await here.http.post("/v1/models/sum:predict", content=content)
            assert "1000" in refused_as_tf_serving(response, 413, "body_too_large")
        await adder.goes_on()


async def test_a_sequence_that_is_too_long_is_refused(puppet):
    async with running(puppet, scan_steps=5) as here:
        adder = await here.open()
        body = refused(await adder.scan([[1, 1]] * 6), 413, "sequence_too_long")
        assert body["details"] == {"limit": 5}
        response = await adder.scan([[1, 1]] * 5)
        assert response.json()["step"] == 5
        adder.total, adder.steps = [5, 5], 5
        await adder.goes_on()


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "PATCH"])
async def test_a_hot_path_takes_post_only(here, method):
    adder = await here.open()
    for path in (f"/v1/sessions/{adder.id}:step", f"/v1/sessions/{adder.id}:scan"):
        response = await here.http.request(method, path)
        assert (response.status_code, response.headers["allow"]) == (405, "POST")
        assert response.headers["sluice-code"] == "bad_request"


async def test_a_wrong_method_elsewhere_is_told_what_is_allowed(here):
    response = await here.http.put("/v1/models/sum/sessions")
    assert response.status_code == 405
    assert {each.strip() for each in response.headers["allow"].split(",")} & {"GET", "POST"}
    assert response.json()["code"] == "bad_request"


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/nothing", "/v1/sessions/a b:step", "/v1/sessions/a:jump", "//"])
async def test_an_unknown_path_is_404_with_an_error_body(here, path):
    response = await here.http.post(path, json={})
    assert response.status_code == 404
    assert response.headers["x-request-id"]
    assert response.json()["code"] == response.headers["sluice-code"]


async def test_a_request_id_is_given_back_or_made(here):
    adder = await here.open()
    for path in (f"/v1/sessions/{adder.id}:step", "/v1/models/sum:predict", "/healthz", "/v1/nothing"):
        response = await here.http.post(path, json={}, headers={"X-Request-Id": "mine-1"})
        assert response.headers.get_list("x-request-id") == ["mine-1"]
        one, two = [(await here.http.post(path, json={})).headers["x-request-id"] for _ in range(2)]
        assert one != two


async def test_a_request_id_of_any_length_does_no_harm(here):
    adder = await here.open()
    response = await adder.step(headers={"X-Request-Id": "x" * 10_000})
    assert response.json() == adder.added((1, 2))
    assert len(response.headers["x-request-id"]) <= 128


async def test_a_step_to_a_model_that_is_percent_encoded_is_still_that_model(here):
    response = await here.http.post("/v1/models/s%75m:predict", json={"instances": [[[1, 1]]]})
    assert response.status_code == 200


async def test_a_predict_body_that_is_wrong_answers_as_tensorflow_serving(here):
    mistakes = {
        "{": "bad_request",
        "[" * 100_000: "bad_request",
        "[]": "bad_request",
        '{"instances": 3}': "bad_request",
        '{"instances": [[[1, 2]]], "signature_name": 3}': "bad_request",
        "{}": "missing_input",
        '{"instances": []}': "empty_input",
        '{"instances": [[[1, 2, 3]]]}': "shape_mismatch",
        '{"instances": [[["a", "b"]]]}': "dtype_mismatch",
        '{"instances": [{"y": [[1, 2]]}]}': "unknown_input",
        '{"instances": [[[1, 2]]], "signature_name": "none"}': "signature_not_found",
    }
    for text, code in mistakes.items():
        refused_as_tf_serving(await post(here, "/v1/models/sum:predict", text), 400, code)
    response = await post(here, "/v1/models/nothing:predict", '{"instances": [1]}')
    refused_as_tf_serving(response, 404, "model_not_found")
    response = await post(here, "/v1/models/sum/versions/7:predict", '{"instances": [1]}')
    refused_as_tf_serving(response, 404, "version_not_found")


async def test_an_answer_is_json_whoever_asks(here):
    adder = await here.open()
    response = await adder.step()
    assert response.headers["content-type"] == "application/json"
    assert int(response.headers["content-length"]) == len(response.content)
    assert isinstance(response, httpx.Response)


@pytest.mark.parametrize("path", ["/v1/models/a:b:predict", "/v1/models/sum/versions/x:predict", "/v1/models/:predict"])
async def test_a_predict_path_that_is_malformed_answers_as_tensorflow_serving(here, path):
    refused_as_tf_serving(await here.http.post(path, json={"instances": [1]}), 400, "bad_request")


@pytest.mark.parametrize(
    ("call", "body", "sentence"),
    [
        ("sum/sessions", {"version": 1}, "version takes text; 1 came: put it in quotes."),
        ("sum/sessions", {"version": "one"}, 'version takes a whole number, such as 1; "one" came.'),
        ("sum/sessions", {"ttl_s": "", "state": 1}, 'state takes an object; 1 came; ttl_s takes a number; "" came.'),
        ("sum/sessions", {"if_exists": "keep"}, "if_exists takes 'error', 'return' or 'restart'; \"keep\" came."),
        ("sum/sessions", {"sesion": 1}, f"body: unknown fields 'sesion'; it takes {OPENS_WITH}."),
        ("sum/sessions", [], "body takes an object; [] came."),
        ("speller:generate", {"instances": "a"}, 'instances takes a list; "a" came.'),
        ("speller:generate", {"max_steps": 2}, "instances is missing."),
        ("speller:generate", {"instances": ["a"], "max_steps": 1.5}, "max_steps takes a whole number; 1.5 came."),
        ("speller:generate", {"instances": ["a"], "stream": 1}, "stream takes true or false; 1 came."),
        ("speller:generate", {"instances": ["a"], "beam": {}}, "beam.width is missing."),
    ],
)  # fmt: skip
async def test_a_field_of_another_kind_is_told_with_what_it_takes(here, call, body, sentence):
    response = await here.http.post(f"/v1/models/{call}", json=body)
    assert refused(response, 400, "bad_request")["error"] == f"The request cannot be read: {sentence}"


async def test_so_is_a_field_of_a_query(here):
    response = await here.http.get("/v1/models/sum/sessions", params={"limit": "0", "after": "a" * 200})
    assert refused(response, 400, "bad_request")["error"] == (
        'The request cannot be read: limit takes a number from 1; "0" came; '
        f'after takes text of up to 128 characters; "{"a" * 79} came.'
    )


async def test_a_body_that_is_no_json_is_told_where(here):
    response = await here.http.post("/v1/models/sum/sessions", content=b'{"ttl_s": }', headers=JSON)
    sentence = "The request cannot be read: the body is not JSON: Expecting value at character 10."
    assert refused(response, 400, "bad_request")["error"] == sentence
