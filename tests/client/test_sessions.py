"""The same calls and answers over HTTP and gRPC, against a real gateway."""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import UTC
from uuid import uuid4

import numpy as np
import pytest

from sluice.client import AsyncClient, AsyncSession, SluiceError
from sluice.policy.errors import (
    BadRequest,
    DtypeMismatch,
    InputNotFinite,
    ModelNotFound,
    SessionClosed,
    SessionExists,
    SessionNotFound,
    ShapeMismatch,
    StepMismatch,
    UnknownInput,
    VersionNotFound,
)
from tests.client.conftest import Urls


@pytest.fixture
async def session(client: AsyncClient) -> AsyncIterator[AsyncSession]:
    async with await client.open("sum") as session:
        yield session


def row(*numbers: float) -> dict[str, list[float]]:
    return {"x": list(numbers)}


async def test_a_session_is_opened_stepped_scanned_and_closed(client: AsyncClient) -> None:
    session = await client.open("sum")
    assert (session.model, session.version, session.steps_done) == ("sum", "1", 0)
    first = await session.step(row(1, 2))
    assert first.keys() == {"total", "doubled"}
    assert (first["total"].dtype, first["total"].tolist()) == (np.float32, [1, 2])
    rest = await session.scan({"x": np.ones((3, 2), np.float32)})
    assert rest["total"].tolist() == [[2, 3], [3, 4], [4, 5]]
    assert rest["total"].dtype == np.float32
    assert session.steps_done == 4
    await session.close()
    with pytest.raises(SessionClosed):
        await session.step(row(1, 2))


async def test_a_bare_value_is_the_only_input(client: AsyncClient, session: AsyncSession) -> None:
    assert (await session.step([1, 2]))["total"].tolist() == [1, 2]
    assert (await session.scan(np.ones((2, 2))))["total"].tolist() == [[2, 3], [3, 4]]
    assert (await client.step_many("sum", [session], [[1, 1]])).outputs["total"].tolist() == [[4, 5]]
    async with client.stream("sum") as stream:
        assert (await stream.step(session, [1, 1]))["total"].tolist() == [5, 6]


async def test_outputs_can_be_chosen(session: AsyncSession) -> None:
    assert (await session.step(row(1, 2), outputs=["doubled"])).keys() == {"doubled"}
    assert (await session.scan({"x": [[1, 2]]}, outputs=["total"])).keys() == {"total"}


async def test_a_session_can_be_opened_as_one_likes(client: AsyncClient) -> None:
    id = f"my-{uuid4().hex}"
    state = {"h": np.array([10, 20], np.float32)}
    session = await client.open("sum", id, version=1, state=state, ttl_s=30)
    assert session.id == id
    assert (await session.step(row(1, 2)))["total"].tolist() == [11, 22]
    view = await session.view()
    assert (view.expires_at - view.last_used_at).total_seconds() == pytest.approx(30, abs=0.01)
    with pytest.raises(SessionExists):
        await client.open("sum", id)
    again = await client.open("sum", id, if_exists="return")
    assert again.steps_done == 1
    fresh = await client.open("sum", id, if_exists="restart")
    assert fresh.steps_done == 0
    assert (await fresh.step(row(1, 2)))["total"].tolist() == [1, 2]


async def test_a_view_has_numbers_and_times(session: AsyncSession) -> None:
    await session.step(row(1, 2))
    view = await session.view()
    assert (view.session, view.model, view.version, view.step) == (session.id, "sum", "1", 1)
    assert (view.waiting, view.state_bytes) == (0, 8)
    assert view.opened_at.tzinfo == UTC
    assert view.opened_at <= view.last_used_at < view.expires_at
    renewed = await session.renew(60)
    assert renewed.expires_at.timestamp() - renewed.last_used_at.timestamp() == pytest.approx(60, abs=0.01)


async def test_one_goes_on_with_a_session_from_where_it_is(client: AsyncClient, session: AsyncSession) -> None:
    await session.scan({"x": [[1, 2], [3, 4]]})
    same = await client.session(session.id)
    assert (same.model, same.version, same.steps_done) == ("sum", "1", 2)
    assert (await same.step(row(1, 1)))["total"].tolist() == [5, 7]
    with pytest.raises(StepMismatch):
        await session.step(row(1, 2))
    assert session.steps_done == 2
    await session.view()
    assert (await session.step(row(1, 1)))["total"].tolist() == [6, 8]


async def test_a_step_that_was_sent_before_is_answered_from_memory(client: AsyncClient, session: AsyncSession) -> None:
    same = await client.session(session.id)
    first = await session.step(row(1, 2))
    assert not session.replayed
    second = await same.step(row(1, 2))
    assert same.replayed
    assert second["total"].tolist() == first["total"].tolist()


async def test_sessions_without_numbers_can_be_stepped_by_many(client: AsyncClient, session: AsyncSession) -> None:
    others = [await client.session(session.id, numbered=False) for _ in range(3)]
    await asyncio.gather(*(other.step(row(1, 2)) for other in others))
    assert (await session.view()).step == 3


async def test_calls_that_are_made_at_once_run_in_order(session: AsyncSession) -> None:
    answers = await asyncio.gather(*(session.step(row(number, 1)) for number in range(10)))
    assert [int(answer["total"][0]) for answer in answers] == np.cumsum(range(10)).tolist()
    assert session.steps_done == 10


async def test_sessions_are_listed_page_by_page(client: AsyncClient) -> None:
    prefix = f"zz-{uuid4().hex}-"
    ids = [(await client.open("sum", f"{prefix}{index}")).id for index in range(3)]
    page = await client.list("sum", limit=2, after=prefix)
    assert [view.session for view in page.sessions] == ids[:2]
    assert page.next is not None
    page = await client.list("sum", limit=2, after=page.next)
    assert [view.session for view in page.sessions][:1] == ids[2:]
    for id in ids:
        await (await client.session(id)).close()


async def test_refusals_are_exceptions_of_their_own(client: AsyncClient, session: AsyncSession) -> None:
    refused: list[tuple[type[SluiceError], object]] = [
        (ShapeMismatch, session.step(row(1, 2, 3))),
        (DtypeMismatch, session.step({"x": ["one", "two"]})),
        (UnknownInput, session.step({"y": [1, 2]})),
        (InputNotFinite, session.step(row(1, float("nan")))),
        (BadRequest, session.step(row(1, 2), outputs=["nothing"])),
        (ModelNotFound, client.open("nothing")),
        (VersionNotFound, client.open("sum", version=7)),
        (SessionNotFound, client.session("nobody")),
        (ModelNotFound, client.list("nothing")),
    ]
    for kind, call in refused:
        with pytest.raises(kind) as caught:
            await call  # type: ignore[misc]
        assert len(caught.value.message) > 10
    assert session.steps_done == 0


async def test_a_fork_goes_its_own_way(session: AsyncSession) -> None:
    await session.step(row(1, 2))
    fork = await session.fork()
    assert (fork.model, fork.version, fork.steps_done) == ("sum", "1", 1)
    assert (await fork.step(row(1, 1)))["total"].tolist() == [2, 3]
    assert (await session.step(row(5, 5)))["total"].tolist() == [6, 7]
    named = await session.fork(f"fork-{uuid4().hex}")
    assert named.id.startswith("fork-")


async def test_a_state_can_be_kept_and_put_back(client: AsyncClient, session: AsyncSession) -> None:
    await session.step(row(1, 2))
    kept = await session.state()
    assert isinstance(kept, bytes)
    await session.step(row(100, 100))
    await session.put_state(kept)
    assert session.steps_done == 1
    assert (await session.step(row(1, 1)))["total"].tolist() == [2, 3]
    copy = await client.restore(f"copy-{uuid4().hex}", kept)
    assert copy.steps_done == 1
    assert (await copy.step(row(1, 1)))["total"].tolist() == [2, 3]
    with pytest.raises(BadRequest):
        await session.put_state(kept[:-1])


async def test_many_sessions_step_in_one_call(client: AsyncClient) -> None:
    sessions = [await client.open("sum") for _ in range(5)]
    await sessions[0].step(row(100, 100))
    await sessions[3].close()
    x = np.arange(10, dtype=np.float32).reshape(5, 2)
    columns = await client.step_many("sum", sessions, {"x": x})
    assert columns.steps == [2, 1, 1, None, 1]
    assert [type(error) for error in columns.errors] == [type(None)] * 3 + [SessionClosed, type(None)]
    assert columns.outputs["total"].dtype == np.float32
    assert columns.outputs["total"].tolist() == [[100, 101], [2, 3], [4, 5], [0, 0], [8, 9]]
    assert [session.steps_done for session in sessions] == [2, 1, 1, 0, 1]


async def test_columns_keep_the_order_of_calls_and_can_be_chosen(client: AsyncClient) -> None:
    sessions = [await client.open("sum") for _ in range(3)]
    x = np.ones((3, 2), np.float32)
    first, alone, second = await asyncio.gather(
        client.step_many("sum", sessions, {"x": x}, outputs=["total"]),
        sessions[1].step(row(5, 5)),
        client.step_many("sum", sessions, {"x": x}),
    )
    assert first.outputs.keys() == {"total"}
    assert alone["total"].tolist() == [6, 6]
    assert second.outputs["total"].tolist() == [[2, 2], [7, 7], [2, 2]]


async def test_columns_of_sessions_that_are_all_gone_have_errors_only(client: AsyncClient) -> None:
    session = await client.open("sum")
    await session.close()
    columns = await client.step_many("sum", [session], {"x": [[1, 2]]})
    assert (columns.outputs, columns.steps) == ({}, [None])
    assert isinstance(columns.errors[0], SessionClosed)


async def test_columns_that_cannot_be_read_are_refused_as_a_whole(client: AsyncClient) -> None:
    sessions = [await client.open("sum") for _ in range(2)]
    with pytest.raises(ShapeMismatch):
        await client.step_many("sum", sessions, {"x": [[1], [2]]})
    with pytest.raises(ValueError, match="sessions=2"):
        await client.step_many("sum", sessions, {"x": [[1, 2]]})
    with pytest.raises(BadRequest):
        await client.step_many("sum", [sessions[0], sessions[0]], {"x": [[1, 2], [1, 2]]})


async def test_a_stream_carries_many_sessions(client: AsyncClient) -> None:
    sessions = [await client.open("sum") for _ in range(8)]
    async with client.stream("sum") as stream:
        answers = await asyncio.gather(
            *(stream.step(session, row(number, step)) for step in range(4) for number, session in enumerate(sessions))
        )
    totals = [answer["total"].tolist() for answer in answers]
    assert totals == [[number * (step + 1), sum(range(step + 1))] for step in range(4) for number in range(8)]
    assert answers[0]["total"].dtype == np.float32
    assert {session.steps_done for session in sessions} == {4}
    assert (await sessions[0].view()).step == 4


async def test_a_streams_refusals_leave_it_open(client: AsyncClient, session: AsyncSession) -> None:
    async with client.stream("sum") as stream:
        with pytest.raises(ShapeMismatch):
            await stream.step(session, row(1))
        assert (await stream.step(session, row(1, 2), outputs=["total"])).keys() == {"total"}
        gone = await client.open("sum")
        await gone.close()
        with pytest.raises(SessionClosed):
            await stream.step(gone, row(1, 2))


async def test_a_session_steps_by_turns_alone_and_on_a_stream(client: AsyncClient, session: AsyncSession) -> None:
    async with client.stream("sum") as stream:
        await asyncio.gather(session.step(row(1, 1)), stream.step(session, row(2, 2)), session.step(row(3, 3)))
    assert session.steps_done == 3
    assert (await session.step(row(0, 0)))["total"].tolist() == [6, 6]


async def test_one_session_over_both_transports(urls: Urls) -> None:
    async with AsyncClient(urls.http) as http, AsyncClient(urls.grpc) as grpc:
        session = await http.open("sum")
        await session.step(row(1, 2))
        same = await grpc.session(session.id)
        assert (await same.step(row(1, 1)))["total"].tolist() == [2, 3]


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://127.0.0.1", "http://", "", None])
async def test_an_url_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="http://HOST:PORT"):
        AsyncClient(url)


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1/models/sum:predict", "/v2"])
@pytest.mark.parametrize("scheme", ["http", "https", "grpc"])
async def test_an_url_ends_after_the_port(scheme: str, path: str) -> None:
    with pytest.raises(ValueError, match=rf"ends after the port, as in {scheme}://gateway:80; got '.*{path}'"):
        AsyncClient(f"{scheme}://gateway:80{path}")


@pytest.mark.parametrize("port", ["0", "65536", "99999"])
@pytest.mark.parametrize("scheme", ["http", "https", "grpc"])
async def test_a_port_that_is_none_is_refused(scheme: str, port: str) -> None:
    with pytest.raises(ValueError, match=rf"^A port is 1 to 65535; got {port} in '{scheme}://gateway:{port}'\.$"):
        AsyncClient(f"{scheme}://gateway:{port}")
    async with AsyncClient(f"{scheme}://gateway:65535"):
        pass


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "gateway", "gateway:", "gateway:abc"])
async def test_an_url_of_grpc_names_its_port(host: str) -> None:
    with pytest.raises(
        ValueError, match=rf"names its port, as in grpc://127.0.0.1:8081; got 'grpc://{re.escape(host)}'\.$"
    ):
        AsyncClient(f"grpc://{host}")


async def test_an_url_of_grpc_has_no_path() -> None:
    with pytest.raises(ValueError, match="grpc://HOST:PORT"):
        AsyncClient("grpc://gateway:8081/sluice")


async def test_an_url_may_have_the_path_that_a_proxy_gives_the_gateway() -> None:
    async with AsyncClient("http://proxy/sluice"), AsyncClient("https://proxy:8443/teams/v1"):
        pass
