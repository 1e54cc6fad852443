"""HTTP on a connection: requests in any pieces, in any number ahead, of any version, and clients of any manners."""

import asyncio
import json
import signal
import socket
import struct
import urllib.error
import urllib.request

import pytest

from sluice.gateway.http import connection, transport
from tests.gateway.here import PATIENCE_S, Adder, Gate, Here, eventually, running
from tests.gateway.raw import Connection, connected, request


@pytest.fixture
async def raw(here):
    async with connected(here) as connection:
        yield connection


def step(adder: Adder, x: object = (3, 5), **more: str) -> bytes:
    return request(f"/v1/sessions/{adder.id}:step", {"inputs": x}, **more)


async def goes_on(raw: Connection, adder: Adder, x: tuple[float, float] = (3, 5)) -> None:
    await raw.send(step(adder, x))
    answer = await raw.answer()
    assert (answer.status, answer.json) == (200, adder.added(x))


async def waiting(here: Here, adder: Adder, count: int) -> None:
    session = here.gateway.engine.scheduler.sessions.get(adder.id)
    await eventually(lambda: len(session.steps) == count)


# Requests in pieces, and ahead of their answers.


async def test_a_request_may_come_byte_by_byte(here, raw):
    adder = await here.open()
    data = step(adder, (1, 2)) + step(adder, (3, 4))
    await raw.send(*(data[at : at + 1] for at in range(len(data))))
    for x in ((1, 2), (3, 4)):
        assert (await raw.answer()).json == adder.added(x)


@pytest.mark.parametrize("size", [2, 7, 64, 100, 1000])
async def test_a_request_may_be_cut_anywhere(here, raw, size):
    adder = await here.open()
    data = b"".join(step(adder, (n, 1)) for n in range(20))
    await raw.send(*(data[at : at + size] for at in range(0, len(data), size)))
    for n in range(20):
        assert (await raw.answer()).json == adder.added((n, 1))


async def test_a_large_body_may_come_in_many_pieces(here, raw):
    adder = await here.open()
    data = request(f"/v1/sessions/{adder.id}:scan", {"inputs": [[1, 2]] * 4000})
    await raw.send(*(data[at : at + 1000] for at in range(0, len(data), 1000)))
    answer = await raw.answer()
    assert answer.status == 200 and answer.json["step"] == 4000
    assert answer.json["outputs"]["total"][-1] == [4000, 8000]
    adder.total, adder.steps = [4000, 8000], 4000
    await goes_on(raw, adder)


def chunked(path: str, content: bytes, size: int) -> bytes:
    chunks = [content[at : at + size] for at in range(0, len(content), size)]
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    return f"POST {path} HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + body


@pytest.mark.parametrize("size", [1, 5, 1000])
async def test_a_body_may_be_chunked(here, raw, size):
    adder = await here.open()
    content = json.dumps({"inputs": [1, 2]}).encode()
    for _ in range(3):
        await raw.send(chunked(f"/v1/sessions/{adder.id}:step", content, size))
        assert (await raw.answer()).json == adder.added((1, 2))
    data = chunked(f"/v1/sessions/{adder.id}:step", content, size)
    await raw.send(*(data[at : at + 1] for at in range(len(data))))
    assert (await raw.answer()).json == adder.added((1, 2))


async def test_requests_that_are_sent_ahead_are_answered_in_order(here, raw):
    adder, other = await here.adders(2)
    data = b""
    for n in range(50):
        data += step(adder, (n, 1)) + request("/healthz", method="GET") + step(other, (1, 2, 3))
        data += request(f"/v1/sessions/{other.id}", method="GET") + request("/v1/nothing") + step(other, (n, n))
    await raw.send(data)
    for n in range(50):
        assert (await raw.answer()).json == adder.added((n, 1))
        assert (await raw.answer()).json == {"status": "alive"}
        assert (await raw.answer()).is_refused(400, "shape_mismatch")
        assert (await raw.answer()).json["step"] == n
        assert (await raw.answer()).status == 404
        assert (await raw.answer()).json == other.added((n, n))
    await goes_on(raw, adder)


@pytest.mark.parametrize("kind", ["wrong method", "unknown session", "nonsense", "too large", "unknown model"])
async def test_a_thousand_refused_requests_in_one_go_are_a_thousand_answers(puppet, kind):
    async with running(puppet, body_bytes=1000) as here, connected(here) as raw:
        adder = await here.open()
        wrong = {
            "wrong method": request(f"/v1/sessions/{adder.id}:step", method="PUT"),
            "unknown session": request("/v1/sessions/nobody:step", {"inputs": [1, 2]}),
            "nonsense": request(f"/v1/sessions/{adder.id}:step", b"nonsense"),
            "too large": request(f"/v1/sessions/{adder.id}:step", b" " * 1001),
            "unknown model": request("/v1/models/nothing/sessions:step", {"sessions": ["a"], "inputs": [1]}),
        }[kind]
        sending = asyncio.create_task(raw.send(wrong * 1000 + step(adder, (1, 2))))
        statuses = {(await raw.answer()).status for _ in range(1000)}
        assert len(statuses) == 1 and statuses < {400, 404, 405, 413}
        await sending
        assert (await raw.answer()).json == adder.added((1, 2))
        await goes_on(raw, adder)


async def test_steps_sent_ahead_share_batches_with_others_and_keep_their_order(here, raw):
    gate = Gate(here.puppet)
    adder, other = await here.adders(2)
    await raw.send(b"".join(step(adder, (10**n, 1)) for n in range(5)))
    await here.puppet.until_running(1)
    going_on = asyncio.create_task(other.goes_on())
    gate.open()
    for n in range(5):
        assert (await raw.answer()).json == adder.added((10**n, 1))
    await going_on


# What a request's head may say.


async def test_who_expects_100_is_told_to_go_on(here, raw):
    adder = await here.open()
    head, _, content = step(adder, (1, 2), Expect="100-continue").partition(b"\r\n\r\n")
    await raw.send(head + b"\r\n\r\n")
    assert (await raw.answer()).status == 100
    await raw.send(content)
    assert (await raw.answer()).json == adder.added((1, 2))
    await raw.send(step(adder, (1, 2), Expect="100-continue"))  # the body comes along anyway
    answer = await raw.answer()
    assert (answer if answer.status != 100 else await raw.answer()).json == adder.added((1, 2))
    await goes_on(raw, adder)


@pytest.mark.parametrize("path", ["/v1/sessions/{id}:step", "/v1/models/sum/sessions"])
@pytest.mark.parametrize("comes", [b"", b" " * 2000], ids=["not", "all the same"])
async def test_who_expects_100_and_is_refused_is_told_that_the_connection_ends(puppet, path, comes):
    async with running(puppet, body_bytes=1000) as here, connected(here) as raw:
        adder = await here.open()
        head = f"POST {path.format(id=adder.id)} HTTP/1.1\r\nHost: g\r\nExpect: 100-continue\r\n"
        await raw.send((head + "Content-Length: 2000\r\n\r\n").encode())
        answer = await raw.answer()
        assert answer.is_refused(413, "body_too_large")
        assert answer.headers["connection"] == "close"
        await raw.send(comes + step(adder))  # a body, or a request? Neither is taken
        assert await raw.at_end()
        await adder.goes_on()


@pytest.mark.parametrize("path", ["/v1/sessions/{id}:step", "/v1/models/sum/sessions"])
async def test_an_old_client_is_not_told_to_go_on(here, raw, path):
    adder = await here.open()
    data = request(path.format(id=adder.id), {}, version="1.0", Expect="100-continue")
    await raw.send(data[:-1], data[-1:])
    assert (await raw.answer()).status in (201, 400)


GET_PATHS = [
    "/healthz", "/readyz", "/metrics", "/v1/models", "/v1/models/sum/contract", "/v1/models/nothing/contract",
    "/v1/sessions/{id}", "/v1/sessions/{id}/state", "/v1/sessions/nobody", "/v1/sessions/{id}:renew", "/docs",
    "/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/plain", "/v2/models/plain/ready",
    "/v2/models/nothing/versions/1/ready", "/v1/nothing",
]  # fmt: skip


async def test_head_is_answered_as_get_without_a_body(here, raw):
    adder = await here.open()
    for path in (each.format(id=adder.id) for each in GET_PATHS):
        answers = []
        for method in ("GET", "HEAD"):
            await raw.send(request(path, method=method, X_Request_Id="r"))
            answers.append(await raw.answer(method))
            answers[-1].headers.pop("date")
            if path == "/metrics":
                answers[-1].headers.pop("content-length")  # the GET itself is counted
        got, head = answers
        assert got.body and head.body == b""
        assert (head.status, head.headers) == (got.status, got.headers), path
        refused = await here.http.put(path)
        if refused.status_code == 405 and "GET" in refused.headers["allow"]:
            assert "HEAD" in refused.headers["allow"]
    await goes_on(raw, adder)


@pytest.mark.parametrize("path", ["/v1/sessions/{id}:step", "/v1/models/sum/sessions:step"])
async def test_a_body_that_is_too_large_is_refused_and_the_connection_goes_on(puppet, path):
    async with running(puppet, body_bytes=1000) as here, connected(here) as raw:
        adder = await here.open()
        path = path.format(id=adder.id)
        for size in (1001, 5000, 200_000):
            await raw.send(request(path, b" " * size))
            assert (await raw.answer()).is_refused(413, "body_too_large")
            await raw.send(chunked(path, b" " * size, 500))
            assert (await raw.answer()).is_refused(413, "body_too_large")
            await goes_on(raw, adder)
        await raw.send(request(path, b" " * 1000))
        assert (await raw.answer()).is_refused(400, "bad_request")
        await goes_on(raw, adder)


async def test_a_body_that_is_too_large_is_refused_before_it_has_come(puppet):
    async with running(puppet, body_bytes=1000) as here:
        adder = await here.open()
        for head in ("Content-Length: 99999999999", "Transfer-Encoding: chunked"):
            async with connected(here) as raw:
                await raw.send(f"POST /v1/sessions/{adder.id}:step HTTP/1.1\r\nHost: g\r\n{head}\r\n\r\n".encode())
                if head.startswith("T"):
                    await raw.send(b"2000\r\n" + b" " * 0x2000)
                assert (await raw.answer()).is_refused(413, "body_too_large")
        await adder.goes_on()


@pytest.mark.parametrize("path", ["/v1/sessions/{id}:step", "/v1/models/sum/sessions"])
@pytest.mark.parametrize("form", ["urllib", "chunked", "1.0", "method"])
async def test_a_refusal_reaches_a_client_that_closes_and_still_sends(puppet, path, form):
    async with running(puppet, body_bytes=1000) as here:
        adder = await here.open()
        path, body = path.format(id=adder.id), bytes(8 * 2**20)  # more than sockets hold
        if form == "urllib":
            url = urllib.request.Request(f"http://127.0.0.1:{here.port}{path}", body)
            with pytest.raises(urllib.error.HTTPError) as caught:
                await asyncio.to_thread(urllib.request.urlopen, url, timeout=PATIENCE_S)
            with caught.value as refused:
                assert (refused.code, json.load(refused)["code"]) == (413, "body_too_large")
        else:
            async with connected(here) as raw:
                sent = {
                    "chunked": chunked(path, body, 2**16).replace(b"Host", b"Connection: close\r\nHost", 1),
                    "1.0": request(path, body, version="1.0"),
                    "method": request(path, body, method="PUT", Connection="close"),
                }[form]
                sending = asyncio.create_task(raw.send(sent))
                answer = await raw.answer()
                assert answer.status == (405 if form == "method" and ":step" in path else 413)
                assert answer.headers["connection"] == "close"
                assert await raw.at_end()
                await sending
        await adder.goes_on()


@pytest.mark.parametrize("bound", ["time", "bytes"])
async def test_who_does_not_stop_sending_what_was_refused_is_read_for_so_long_and_so_much_only(
    puppet, monkeypatch, bound
):
    if bound == "time":
        monkeypatch.setattr(connection, "DRAIN_S", 0.05)
    else:
        monkeypatch.setattr(transport, "_DRAIN_BYTES", 10_000)
    async with running(puppet, body_bytes=1000) as here, connected(here) as raw:
        await eventually(lambda: len(here.server.server_state.connections) == 1)
        await raw.send(request("/v1/sessions/a:step", bytes(2**20), Connection="close")[:5000])
        assert (await raw.answer()).is_refused(413, "body_too_large")
        assert await raw.at_end()
        if bound == "bytes":
            raw.writer.write(bytes(2**16))
        await eventually(lambda: not here.server.server_state.connections)


@pytest.mark.parametrize("length", ["-1", "1e3", "0x10", "12 13", "9" * 30, ""])
async def test_a_length_that_is_none_is_refused_and_nothing_moves(here, raw, length):
    adder = await here.open()
    head = f"POST /v1/sessions/{adder.id}:step HTTP/1.1\r\nHost: g\r\nContent-Length: {length}\r\n\r\n"
    await raw.send(head.encode() + b'{"inputs": [1, 2]}')
    assert (await raw.answer()).status == 400
    assert (await adder.view())["step"] == 0
    await adder.goes_on()


async def test_an_old_client_is_answered_and_parted_from(here):
    adder = await here.open()
    for more in ({}, {"Connection": "keep-alive"}):
        async with connected(here) as raw:
            await raw.send(step(adder, (1, 2), version="1.0", **more))
            answer = await raw.answer()
            assert answer.json == adder.added((1, 2))
            assert answer.headers["connection"] == "close"
            assert await raw.at_end()


async def test_who_asks_to_close_is_parted_from_after_the_answer(here, raw):
    adder = await here.open()
    await raw.send(step(adder, (1, 2)) + step(adder, (3, 4), Connection="close"))
    assert "connection" not in (first := await raw.answer()).headers
    assert first.json == adder.added((1, 2))
    last = await raw.answer()
    assert (last.json, last.headers["connection"]) == (adder.added((3, 4)), "close")
    assert await raw.at_end()
    await adder.goes_on()


HOT = ["/v1/sessions/{id}:step", "/v1/sessions/{id}:scan", "/v1/models/sum/sessions:step"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"])
@pytest.mark.parametrize("path", HOT)
async def test_a_hot_path_takes_post_only(here, raw, path, method):
    adder = await here.open()
    await raw.send(request(path.format(id=adder.id), method=method))
    answer = await raw.answer(method)
    assert (answer.status, answer.headers["allow"], answer.headers["sluice-code"]) == (405, "POST", "bad_request")
    if method == "HEAD":
        assert answer.body == b"" and int(answer.headers["content-length"]) > 10
    await goes_on(raw, adder)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_another_method_on_a_path_of_tensorflow_serving_is_no_call_as_there(here, raw, method):
    await raw.send(request("/v1/models/sum:predict", method=method))
    answer = await raw.answer(method)
    assert (answer.status, answer.headers["sluice-code"]) == (400, "bad_request")
    await raw.send(request("/healthz", method="GET"))
    assert (await raw.answer()).json == {"status": "alive"}


async def test_a_wrong_method_may_have_a_body(here, raw):
    adder = await here.open()
    await raw.send(request(f"/v1/sessions/{adder.id}:step", {"inputs": [1, 2]}, method="PUT"))
    assert (await raw.answer()).status == 405
    await goes_on(raw, adder)


async def test_a_target_may_be_written_in_several_ways(here, raw):
    adder = await here.open(session="a~b.c-d")
    for target in (
        "/v1/sessions/a~b.c-d:step",
        "/v1/sessions/a%7Eb%2ec-d:step",
        "/v1/sessions/a~b.c-d%3astep",
        "/v1/sessions/a~b.c-d:step?",
        "/v1/sessions/a~b.c-d:step?x=1&y=%00",
        "http://g/v1/sessions/a~b.c-d:step",
        "http://somewhere.else:99/v1/sessions/a~b.c-d:step?x",
    ):
        await raw.send(request(target, {"inputs": [1, 2]}))
        answer = await raw.answer()
        assert answer.json == adder.added((1, 2)), target
        assert answer.headers["sluice-session"] == "a~b.c-d"


@pytest.mark.parametrize(
    "target",
    [
        "/v1/sessions/a%0d%0aSet-Cookie:x:step",
        "/v1/sessions/a%0ab:step",
        "/v1/sessions/a%00b:step",
        "/v1/sessions/a%20b:step",
        "/v1/sessions/a%2fb:step",
        "/v1/sessions/%C3%A4:step",
        "/v1/sessions/:step",
        "/v1/sessions//a:step",
        "/v1/sessions/a:step/",
        "//v1/sessions/a:step",
        "/v1/sessions/a:Step",
        "/v1/sessions/a:step:step",
        "/v1/sessions/" + "a" * 129 + ":step",
        "/v1/sessions/a%:step",
        "/v1/sessions/a%zz:step",
    ],
)
async def test_a_target_that_names_nothing_is_not_found(here, raw, target):
    await raw.send(request(target, {"inputs": [1, 2]}))
    answer = await raw.answer()
    assert answer.status == 404
    assert "set-cookie" not in answer.headers
    await goes_on(raw, await here.open())


@pytest.mark.parametrize("target", ["*", "g:80", "nonsense", "/\x01", "http://", "http:///"])
async def test_a_target_that_is_none_is_refused(here, target):
    async with connected(here) as raw:
        await raw.send(request(target, {"inputs": [1, 2]}))
        assert (await raw.answer()).status in (400, 404)
    await (await here.open()).goes_on()


@pytest.mark.parametrize("id", [b"a\r\nx: y", b"a\nx: y", b"a\x00b", b"a\rb", b"a\x1bb", b"\x7f"])
async def test_a_request_id_cannot_bring_headers_along(here, id):
    adder = await here.open()
    for path in (f"/v1/sessions/{adder.id}:step", "/healthz"):
        async with connected(here) as raw:
            data = request(path, {"inputs": [1, 2]}, X_Request_Id="MARK").replace(b"MARK", id)
            await raw.send(data)
            answer = await raw.answer()
            assert answer.status in (200, 400, 405)
            assert "x" not in answer.headers
            assert not set(answer.headers.get("x-request-id", "")) & set("\r\n\x00\x1b\x7f")


async def test_a_request_id_of_other_bytes_comes_back_as_it_was(here, raw):
    adder = await here.open()
    data = request(f"/v1/sessions/{adder.id}:step", {"inputs": [1, 2]}, X_Request_Id="MARK")
    await raw.send(data.replace(b"MARK", b't\tx y="z"'))
    assert (await raw.answer()).headers["x-request-id"] == 't\tx y="z"'


async def test_bytes_that_are_no_http_are_refused_and_harm_nobody(here):
    adder = await here.open()
    more = bytes(8 * 2**20)  # than sockets hold
    for data in (
        b"nonsense\r\n\r\n", b"\x00" * 100, b"\x16\x03\x01\x02\x00", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", more
    ):  # fmt: skip
        async with connected(here) as raw:
            await raw.send(data)
            assert (await raw.answer()).is_refused(400, "bad_request")
            assert await raw.at_end()
    await adder.goes_on()


async def test_nonsense_behind_a_request_does_not_take_its_answer(here, raw):
    gate = Gate(here.puppet)
    adder = await here.open()
    await raw.send(step(adder, (1, 2)))
    await here.puppet.until_running(1)
    await raw.send(b"nonsense\r\n\r\n")
    gate.open()
    await eventually(here.nothing_left)
    adder.total, adder.steps = {0: ([0, 0], 0), 1: ([1, 2], 1)}[(await adder.view())["step"]]
    await adder.goes_on()


# Clients of all manners.


STAGES = ["nothing", "half a head", "a head", "half a body", "a step", "a step and half a head", "several steps"]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("how", ["abort", "close", "half close"])
async def test_a_client_may_leave_at_any_stage(here, stage, how):
    gate = Gate(here.puppet)
    adder, other = await here.adders(2)
    data = step(adder, (9, 9))
    head = data.index(b"\r\n\r\n") + 4
    sent = {
        "nothing": b"",
        "half a head": data[: head // 2],
        "a head": data[:head],
        "half a body": data[: (head + len(data)) // 2],
        "a step": data,
        "a step and half a head": data + data[: head // 2],
        "several steps": data * 5,
    }[stage]
    async with connected(here) as raw:
        await raw.send(sent)
        if "step" in stage:
            await waiting(here, adder, 1)
        if how == "half close":
            raw.writer.write_eof()
        elif how == "close":
            raw.writer.close()
            await raw.writer.wait_closed()
    if stage != "several steps":
        await waiting(here, adder, 0)
    gate.open()
    await other.goes_on()
    await eventually(lambda: len(here.server.server_state.connections) <= 2)  # those of `here.http`
    await eventually(here.nothing_left)
    done = (await adder.view())["step"]
    # A connection with requests ahead is not read, so that the end of it is met when the first answer is written.
    assert done in (range(3) if stage == "several steps" else [0])
    adder.total, adder.steps = [9 * done] * 2, done
    await adder.goes_on()


@pytest.fixture
async def patient(puppet):
    async with running(puppet, half_closed_s=600) as here:
        yield here


async def half_close(here: Here, raw: Connection) -> None:
    raw.writer.write_eof()
    await eventually(lambda: any(each._half_closed for each in here.server.server_state.connections))


async def test_who_sends_no_more_is_answered_and_parted_from(patient):
    adder = await patient.open()
    hot, cold = step(adder, (1, 2)), request("/healthz", method="GET")
    body = chunked(f"/v1/sessions/{adder.id}:step", b'{"inputs": [1, 2]}', 5)
    for sent in ([hot], [cold], [body], [hot, cold, hot], [cold, hot, cold]):
        for rest in (b"", hot[:30], hot[:-1]):  # which will not come whole, and so not run
            async with connected(patient) as raw:
                await raw.send(b"".join(sent) + rest)
                raw.writer.write_eof()
                for each in sent:
                    answer = await raw.answer()
                    assert answer.json == ({"status": "alive"} if each is cold else adder.added((1, 2)))
                assert await raw.at_end()
    await adder.goes_on()


async def test_who_sends_no_more_while_its_step_runs_is_told_that_the_connection_ends(patient):
    gate = Gate(patient.puppet)
    adder = await patient.open()
    async with connected(patient) as raw:
        await raw.send(step(adder))
        await waiting(patient, adder, 1)
        await half_close(patient, raw)
        gate.open()
        answer = await raw.answer()
        assert (answer.json, answer.headers["connection"]) == (adder.added((3, 5)), "close")
        assert await raw.at_end()


async def test_who_sends_no_more_has_long_answers_to_the_end(patient):
    adder = await patient.open()
    async with connected(patient) as raw:
        data = request(f"/v1/sessions/{adder.id}:scan", {"inputs": [[1, 1]] * 4000})

        async def send():
            await raw.send(data * 5)
            raw.writer.write_eof()

        sending = asyncio.create_task(send())
        for n in range(1, 6):
            assert (await raw.answer()).json["step"] == 4000 * n
        await sending
        assert await raw.at_end()


async def test_who_is_found_to_have_left_is_withdrawn_at_once(patient):
    gate = Gate(patient.puppet)
    adder, other = await patient.adders(2)
    async with connected(patient) as raw:
        await raw.send(step(adder))
        await waiting(patient, adder, 1)
        await half_close(patient, raw)
        connection = raw.writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing resets it
    await waiting(patient, adder, 0)
    await eventually(lambda: len(patient.server.server_state.connections) <= 2)  # those of `patient.http`
    gate.open()
    await other.goes_on()
    assert (await adder.view())["step"] == 0


async def test_a_client_that_does_not_read_is_held_back_and_harms_nobody(here):
    adder, other = await here.adders(2)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", here.port))
    raw = Connection(*await asyncio.open_connection(sock=client, limit=1024))
    rows = [[1, 1]] * 500
    asked, sent = request(f"/v1/sessions/{adder.id}:scan", {"inputs": rows}), 0

    async def flood():
        nonlocal sent
        while True:
            await raw.send(asked)
            sent += 1

    flooding, seen = asyncio.create_task(flood()), []

    def stands_still():
        seen.append((sent, here.gateway.sessions.get(adder.id).step))
        return len(seen) > 300 and seen[-300] == seen[-1] and sent

    await eventually(stands_still)
    assert not flooding.done()
    assert here.gateway.sessions.get(adder.id).step // 500 < sent  # there are requests that it has not even begun
    (connection,) = [each for each in here.server.server_state.connections if each.flow.write_paused]
    assert connection.transport.get_write_buffer_size() < 2**20
    await other.goes_on()
    done = here.gateway.sessions.get(adder.id).step // 500
    for n in range(1, done + 2):  # when it reads, it goes on
        assert (await raw.answer()).json["step"] == 500 * n
    flooding.cancel()
    await asyncio.gather(flooding, return_exceptions=True)
    await raw.leave()
    await eventually(lambda: connection not in here.server.server_state.connections)  # what it sent ahead is forgotten
    await eventually(here.nothing_left)
    adder.steps = (await adder.view())["step"]
    adder.total = [adder.steps] * 2
    await adder.goes_on()


async def test_connections_last_as_long_as_the_settings_say(puppet):
    for first, limits in ("idle", (0.05, 3.0)), ("arriving", (3.0, 0.05)):
        async with (
            running(puppet, keep_alive_s=limits[0], arrival_s=limits[1]) as here,
            connected(here) as idle,
            connected(here) as arriving,
        ):
            await arriving.send(request("/v1/sessions/a:step", {"inputs": 1})[:-1])
            connections = {"idle": idle, "arriving": arriving}
            ends = {name: asyncio.create_task(each.reader.read()) for name, each in connections.items()}
            ended, _ = await asyncio.wait(ends.values(), timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
            assert ended == {ends[first]}
            assert (await ends[first])[:12] == {"idle": b"", "arriving": b"HTTP/1.1 408"}[first]
            for each in ends.values():
                each.cancel()


# The end of the gateway.


@pytest.mark.parametrize("stage", ["running", "half a body", "sent ahead", "idle"])
async def test_a_gateway_that_stops_answers_what_it_has_begun(puppet, stage):
    async with running(puppet) as here:
        gate = Gate(puppet)
        adder = await here.open()
        async with connected(here) as raw:
            data = step(adder, (1, 2))
            if stage == "idle":
                gate.open()
                await goes_on(raw, adder)
            else:
                await raw.send(data[:-5] if stage == "half a body" else data * (2 if stage == "sent ahead" else 1))
            if stage in ("running", "sent ahead"):
                await puppet.until_running(1)
            here.server.handle_exit(signal.SIGTERM, None)
            await eventually(lambda: here.gateway.draining)
            if stage == "half a body":
                await raw.send(data[-5:])
                await puppet.until_running(1)
            gate.open()
            if stage != "idle":
                answer = await raw.answer()
                assert answer.json == adder.added((1, 2))
            rest = await raw.reader.read()
            assert rest.count(b"HTTP/1.1 200") <= (stage == "sent ahead")


async def test_what_never_ends_is_told_that_the_gateway_stops(puppet):
    async with running(puppet, drain_s=0.05) as here:
        Gate(puppet)
        adder = await here.open()
        async with connected(here) as raw:
            await raw.send(step(adder))
            await puppet.until_running(1)
            here.server.handle_exit(signal.SIGTERM, None)
            assert (await raw.answer()).is_refused(503, "draining")
            assert await raw.at_end()


async def test_an_answer_that_cannot_be_written_is_told_as_a_bug(here, raw, monkeypatch):
    adder = await here.open()

    def stumble(*_):
        raise RuntimeError("secret")

    with monkeypatch.context() as patched:
        patched.setattr("sluice.gateway.http.hot.step_body", stumble)
        patched.setattr("sluice.gateway.http.hot.many_body", stumble)
        for data in (
            step(adder),
            request("/v1/models/sum/sessions:step", {"sessions": [adder.id], "inputs": [[1, 1]]}),
        ):
            await raw.send(data)
            answer = await raw.answer()
            assert answer.is_refused(500, "internal") and b"secret" not in answer.body
    adder.total, adder.steps = [4, 6], 2
    await goes_on(raw, adder)


# Offers of other protocols.


@pytest.mark.parametrize("offered", ["h2c", "websocket"])
async def test_an_offer_to_upgrade_does_not_keep_a_hot_call_from_its_answer(here, raw, offered):
    adder = await here.open()
    await raw.send(step(adder, (3, 5), Upgrade=offered, Connection="Upgrade, HTTP2-Settings"))
    answer = await raw.answer()
    assert (answer.status, answer.json) == (200, adder.added((3, 5)))
    await goes_on(raw, adder)
    await raw.send(request("/healthz", method="GET", Upgrade="h2c", Connection="Upgrade, HTTP2-Settings"))
    assert (await raw.answer()).status == 200


async def test_who_takes_the_gateway_for_a_proxy_is_told(raw):
    await raw.send(b"CONNECT models.example:443 HTTP/1.1\r\nHost: models.example:443\r\n\r\n")
    answer = await raw.answer()
    assert answer.is_refused(400, "bad_request")
    assert "no proxy" in answer.json["error"]
    assert await raw.at_end()


async def test_a_target_without_a_path_is_told(raw):
    await raw.send(b"GET http://models.example HTTP/1.1\r\nHost: models.example\r\n\r\n")
    answer = await raw.answer()
    assert answer.is_refused(400, "bad_request")
    assert "its target has no path; 'http://models.example' came" in answer.json["error"]


async def test_header_fields_without_end_are_not_kept(raw):
    await raw.send(b"GET /healthz HTTP/1.1\r\nx: ", b"x" * 200_000)
    assert (await raw.answer()).is_refused(431, "bad_request")


async def test_fields_without_end_behind_a_body_are_not_kept(raw):
    await raw.send(b"POST /v1/models/plain:predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx: ")
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await raw.send(*[b"x" * 8000] * 100)
        await raw.answer()


async def test_a_body_may_be_larger_than_header_fields(raw):
    await raw.send(request("/v1/models/plain:predict", b'{"instances": [[1, 2]]%b}' % (b" " * 200_000)))
    assert (await raw.answer()).json == {"predictions": [[2.0, 4.0]]}


async def test_what_cannot_be_read_as_a_request_is_told_why(raw):
    await raw.send("GET /v1/models/wärme HTTP/1.1\r\n\r\n".encode())
    answer = await raw.answer()
    assert answer.is_refused(400, "bad_request")
    assert "Invalid char in url path" in answer.json["error"]


async def test_requests_that_are_sent_far_ahead_wait_on_the_connection_and_are_all_answered(here, raw):
    adder = await here.open()
    count = 600
    sending = asyncio.create_task(raw.send(b"".join(step(adder, (n, 1)) for n in range(count))))
    for n in range(count):
        assert (await raw.answer()).json == adder.added((n, 1))
    await sending
