"""Many sessions on one stream: tags, order within a session, answers out of order, and every way that it ends."""

import asyncio
import signal
from collections.abc import Iterable
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import pytest

from sluice.wire.messages.v1 import sessions_pb2 as pb
from tests.gateway.here import PATIENCE_S, Adder, Gate, eventually, running
from tests.gateway.stub import Stub, dialled, lists, many, tensor
from tests.gateway.test_grpc import goes_on, waiting


@pytest.fixture
async def stub(here):
    async with dialled(here) as stub:
        yield stub


class Talk:
    """One stream."""

    def __init__(self, stub: Stub) -> None:
        self.call = stub.Stream()

    async def send(self, adders: Iterable[Adder], xs: object, tag: int, **more: object) -> None:
        await self.call.write(many([adder.id for adder in adders], xs, tag=tag, **more))

    async def hear(self) -> pb.StepManyResponse:
        async with asyncio.timeout(PATIENCE_S):
            reply = await self.call.read()
        assert reply is not grpc.aio.EOF, await self.call.code()
        return reply

    async def hear_all(self, count: int) -> dict[int, pb.StepManyResponse]:
        replies = [await self.hear() for _ in range(count)]
        found = {reply.tag: reply for reply in replies}
        assert len(found) == count, "a tag came twice"
        return found

    async def over(self) -> grpc.StatusCode:
        async with asyncio.timeout(PATIENCE_S):
            assert await self.call.read() is grpc.aio.EOF
            return await self.call.code()


@asynccontextmanager
async def talking(stub: Stub):
    """A stream that is ended as it should be: all that was asked is answered."""
    talk = Talk(stub)
    yield talk
    await talk.call.done_writing()
    assert await talk.over() is grpc.StatusCode.OK


def answers(reply: pb.StepManyResponse, adders: list[Adder], xs: list[tuple[float, float]]) -> bool:
    rows = [adder.added(x) for adder, x in zip(adders, xs, strict=True)]
    wanted = {name: [row["outputs"][name] for row in rows] for name in ("total", "doubled")}
    return lists(reply.outputs) == wanted and list(reply.steps) == [row["step"] for row in rows] and not reply.errors


async def test_a_stream_steps_many_sessions(here, stub):
    adders = await here.adders(10)
    async with talking(stub) as talk:
        for tag in range(5):
            await talk.send(adders, [(n, tag) for n in range(10)], tag)
            reply = await talk.hear()
            assert reply.tag == tag
            assert answers(reply, adders, [(n, tag) for n in range(10)])
    await asyncio.gather(*(adder.goes_on() for adder in adders))


async def test_steps_of_a_session_run_in_order_of_sending_and_answers_carry_their_tags(puppet):
    async with running(puppet, session_queue_steps=64) as here, dialled(here) as stub:
        shared, *others = await here.adders(6)
        async with talking(stub) as talk:
            for tag in range(50):
                await talk.send([shared, others[tag % 5]], [(2 ** (tag % 20), 1), (tag, 1)], tag)
            replies = await talk.hear_all(50)
        for tag in range(50):
            assert answers(replies[tag], [shared, others[tag % 5]], [(2 ** (tag % 20), 1), (tag, 1)]), tag


async def test_an_answer_does_not_wait_for_a_slower_one(here, stub):
    slow, fast = await here.adders(2)
    gate = Gate(here.puppet)
    async with talking(stub) as talk:
        await talk.send([slow], [(1, 1)], 1)
        await here.puppet.until_running(1)
        here.puppet.before = None
        await talk.send([fast], [(2, 2)], 2)
        reply = await talk.hear()
        assert reply.tag == 2 and answers(reply, [fast], [(2, 2)])
        gate.open()
        reply = await talk.hear()
        assert reply.tag == 1 and answers(reply, [slow], [(1, 1)])


async def test_a_half_closed_stream_is_answered_to_its_end(here, stub):
    gate = Gate(here.puppet)
    adders = await here.adders(3)
    talk = Talk(stub)
    for tag in range(6):
        await talk.send([adders[tag % 3]], [(tag, 1)], tag)
    await talk.call.done_writing()
    await waiting(here, adders[2], 2)
    gate.open()
    replies = await talk.hear_all(6)
    for tag in range(6):
        assert answers(replies[tag], [adders[tag % 3]], [(tag, 1)])
    assert await talk.over() is grpc.StatusCode.OK


async def test_a_stream_may_be_empty(stub):
    async with talking(stub):
        pass


async def test_tags_are_the_clients_own(here, stub):
    adder = await here.open()
    async with talking(stub) as talk:
        for tag in (0, 0, 7, 2**64 - 1):
            await talk.send([adder], [(1, 1)], tag)
            reply = await talk.hear()
            assert reply.tag == tag and answers(reply, [adder], [(1, 1)])


async def test_errors_are_answers_and_the_stream_goes_on(here, stub):
    adder = await here.open()
    unknown = Adder(here.http, "nobody")
    async with talking(stub) as talk:
        wrong = {
            "bad_request": many([adder.id] * 2, [(1, 1)] * 2),
            "shape_mismatch": many([adder.id], [(1, 1, 1)]),
            "model_not_found": many([adder.id], [(1, 1)], model="nothing"),
            "empty_input": many([], [(1, 1)]),
            "missing_input": pb.StepManyRequest(model="sum", sessions=[adder.id]),
            "input_not_finite": many([adder.id], [(float("nan"), 1)]),
        }
        for tag, (code, request) in enumerate(wrong.items(), 100):
            request.tag = tag
            await talk.call.write(request)
            reply = await talk.hear()
            assert (reply.tag, reply.error.code) == (tag, code)
            assert len(reply.error.message) > 10
            assert not reply.outputs and not reply.steps and not reply.errors
        await talk.send([unknown, adder], [(9, 9), (1, 2)], 1)
        reply = await talk.hear()
        assert [(each.index, each.error.code) for each in reply.errors] == [(0, "session_not_found")]
        assert not reply.HasField("error")
        assert lists(reply.outputs)["total"][1] == adder.added((1, 2))["outputs"]["total"]
        await talk.send([adder], [(1, 1)], 2, steps=[9])
        (error,) = (await talk.hear()).errors
        assert (error.error.code, error.error.details) == ("step_mismatch", '{"current":1}')
        await talk.send([adder], [(3, 3)], 3, steps=[1])
        assert answers(await talk.hear(), [adder], [(3, 3)])


async def test_a_full_queue_says_when_to_come_again(puppet):
    async with running(puppet, session_queue_steps=1) as here, dialled(here) as stub:
        gate = Gate(puppet)
        adder, other = await here.adders(2)
        async with talking(stub) as talk:
            await talk.send([adder], [(1, 1)], 1)
            await puppet.until_running(1)
            await talk.send([adder], [(9, 9)], 2)
            refused = await talk.hear()
            assert refused.tag == 2
            error = refused.error if refused.HasField("error") else refused.errors[0].error
            assert (error.code, error.retry_after_s) == ("session_queue_full", 1)
            gate.open()
            assert answers(await talk.hear(), [adder], [(1, 1)])
            await talk.send([other], [(1, 1)], 3)
            assert answers(await talk.hear(), [other], [(1, 1)])


async def test_each_request_has_its_own_time(here, stub):
    gate = Gate(here.puppet)
    hurried, patient = await here.adders(2)
    async with talking(stub) as talk:
        await talk.send([hurried], [(9, 9)], 1, timeout_ms=30)
        await talk.send([patient], [(1, 1)], 2)
        reply = await talk.hear()
        assert (reply.tag, reply.error.code) == (1, "deadline_exceeded")
        gate.open()
        assert answers(await talk.hear(), [patient], [(1, 1)])
        await eventually(here.nothing_left)
        await talk.send([hurried], [(1, 1)], 3)
        assert answers(await talk.hear(), [hurried], [(1, 1)])


async def test_a_stream_that_is_cancelled_moves_nothing_and_harms_nobody(here, stub):
    gate = Gate(here.puppet)
    adders, other = await here.adders(4), await here.open()
    talk = Talk(stub)
    for tag in range(3):
        await talk.send(adders, [(9, 9)] * 4, tag)
    await waiting(here, adders[0], 3)
    going_on = asyncio.create_task(goes_on(stub, other))
    await waiting(here, other, 1)
    talk.call.cancel()
    for adder in adders:
        await waiting(here, adder, 0)
    gate.open()
    await going_on
    await eventually(here.nothing_left)
    assert [(await adder.view())["step"] for adder in adders] == [0] * 4
    await asyncio.gather(*(goes_on(stub, adder) for adder in adders))


async def test_a_client_that_hangs_up_in_the_middle_takes_its_stream_along(here):
    gate = Gate(here.puppet)
    adders = await here.adders(4)
    async with dialled(here) as leaving:
        talk = Talk(leaving)
        for tag in range(3):
            await talk.send(adders, [(9, 9)] * 4, tag)
        await waiting(here, adders[0], 3)
    for adder in adders:
        await waiting(here, adder, 0)
    gate.open()
    await eventually(here.nothing_left)
    await asyncio.gather(*(adder.goes_on() for adder in adders))


async def test_two_streams_share_sessions_and_batches(puppet):
    async with running(puppet, session_queue_steps=64) as here, dialled(here) as stub:
        adders = await here.adders(4)
        one, two = Talk(stub), Talk(stub)
        for tag in range(10):
            await one.send(adders, [(1, tag)] * 4, tag)
            await two.send(adders[::-1], [(1, tag)] * 4, tag)
        heard = [await one.hear_all(10), await two.hear_all(10)]
        for adder in adders:
            steps = sorted(reply.steps[n] for replies in heard for reply in replies.values() for n in range(4))
            assert steps == sorted(list(range(1, 21)) * 4)
            adder.total, adder.steps = [20, 90], 20
            await adder.goes_on()
        for talk in (one, two):
            await talk.call.done_writing()
            assert await talk.over() is grpc.StatusCode.OK


async def test_a_message_that_cannot_be_read_ends_its_stream_and_no_other(here, stub):
    adder = await here.open()
    raw = stub.channel.stream_stream("/sluice.v1.Sessions/Stream")()
    async with talking(stub) as talk:
        await raw.write(b"\xff\xff\xff")
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                while await raw.read() is not grpc.aio.EOF:
                    pass
                raise AssertionError(await raw.code())
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert dict(caught.value.trailing_metadata())["sluice-code"] == "bad_request"
        await talk.send([adder], [(1, 1)], 1)
        assert answers(await talk.hear(), [adder], [(1, 1)])


async def test_who_sends_without_reading_is_held_back(here, stub):
    adder, other = await here.adders(2)
    talk, sent = Talk(stub), [0]
    request = many([adder.id], [(1, 1)], model="n" * 5000)  # the answer, an error, repeats the name

    async def flood():
        while True:
            await talk.call.write(request)
            sent[0] += 1

    flooding = asyncio.create_task(flood())
    seen: list[int] = []

    def stands_still():
        seen.append(sent[0])
        return len(seen) > 300 and seen[-300] == sent[0] > 0

    await eventually(stands_still)
    await goes_on(stub, other)
    assert not flooding.done()
    flooding.cancel()
    await asyncio.gather(flooding, return_exceptions=True)
    talk.call.cancel()
    await eventually(here.nothing_left)
    await goes_on(stub, adder)


async def test_a_gateway_that_drains_answers_what_it_has_and_ends_streams(puppet):
    async with running(puppet) as here, dialled(here) as stub:
        gate = Gate(puppet)
        adder = await here.open()
        talk, quiet = Talk(stub), Talk(stub)
        await talk.send([adder], [(1, 2)], 1)
        await puppet.until_running(1)
        here.server.handle_exit(signal.SIGTERM, None)
        await eventually(lambda: here.gateway.draining)
        gate.open()
        assert answers(await talk.hear(), [adder], [(1, 2)])
        for each in (talk, quiet):
            async with asyncio.timeout(PATIENCE_S):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    while await each.call.read() is not grpc.aio.EOF:
                        pass
                    raise AssertionError(await each.call.code())
            assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


async def test_a_session_that_is_closed_under_a_stream_is_told_row_by_row(here, stub):
    gate = Gate(here.puppet)
    adder, other = await here.adders(2)
    async with talking(stub) as talk:
        await talk.send([adder, other], [(9, 9), (1, 1)], 1)
        await here.puppet.until_running(1)
        await here.http.delete(f"/v1/sessions/{adder.id}")
        gate.open()
        reply = await talk.hear()
        assert [(each.index, each.error.code) for each in reply.errors] == [(0, "session_closed")]
        assert lists(reply.outputs)["total"][1] == other.added((1, 1))["outputs"]["total"]
        await talk.call.write(
            pb.StepManyRequest(model="sum", sessions=[other.id], inputs={"": tensor([(2, 2)])}, tag=2)
        )
        assert answers(await talk.hear(), [other], [(2, 2)])
