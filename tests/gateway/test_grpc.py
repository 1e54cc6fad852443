"""Sessions over gRPC, by gRPC's own client: every method, every error, deadlines, and calls that are given up."""

import asyncio

import grpc
import grpc.aio
import ml_dtypes
import numpy as np
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from sluice.gateway.upstream import catalog
from sluice.wire.arrays import read_array
from sluice.wire.envelope import SavedState, seal
from sluice.wire.messages.v1 import sessions_pb2 as pb
from sluice.wire.tensors import read_tensor
from tests.gateway.here import PATIENCE_S, Adder, Gate, Here, eventually, running
from tests.gateway.stub import SERVICE, Stub, dialled, failed, lists, many, tensor
from tests.gateway.test_faults import answered, spoiled

SECONDS = pytest.approx


@pytest.fixture
async def stub(here):
    async with dialled(here) as stub:
        yield stub


async def open_one(here: Here, stub: Stub, **fields: object) -> Adder:
    reply = await stub.Open(model="sum", **fields)
    assert reply.created
    assert (reply.session.model, reply.session.version, reply.session.step) == ("sum", "1", 0)
    return Adder(here.http, reply.session.session)


async def goes_on(stub: Stub, adder: Adder, x: tuple[float, float] = (3, 5)) -> None:
    assert await stub.step(adder.id, x) == adder.added(x)


# Every method.


async def test_every_method_is_there(stub):
    for method in SERVICE.methods:
        if method.name != "Stream":
            call = stub.channel.unary_unary(f"/{SERVICE.full_name}/{method.name}")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(b"", timeout=PATIENCE_S)
            assert caught.value.code().name in ("NOT_FOUND", "INVALID_ARGUMENT"), method.name


async def test_a_session_is_opened_stepped_scanned_and_closed(here, stub):
    adder = await open_one(here, stub, session="station-7", ttl_s=1000)
    assert adder.id == "station-7"
    await goes_on(stub, adder, (1, 2))
    await adder.goes_on((10, 10))  # the same session over HTTP
    reply = await stub.Scan(session=adder.id, inputs={"x": tensor([[1, 1], [2, 2]])})
    rows = [adder.added((1, 1)), adder.added((2, 2))]
    assert lists(reply.outputs) == {name: [row["outputs"][name] for row in rows] for name in ("total", "doubled")}
    assert (reply.step, reply.replayed) == (4, False)
    await stub.Close(session=adder.id)
    await failed(stub.Close(session=adder.id), "FAILED_PRECONDITION", "session_closed")


async def test_a_session_is_shown_as_over_http(here, stub):
    adder = await open_one(here, stub)
    await goes_on(stub, adder)
    shown, view = await stub.Get(session=adder.id), await adder.view()
    for name in ("session", "model", "version", "step", "waiting", "state_bytes"):
        assert getattr(shown, name) == view[name]
    for name in ("opened_at", "last_used_at", "expires_at"):
        told = Timestamp()
        told.FromJsonString(view[name])
        assert getattr(shown, name).ToMilliseconds() == told.ToMilliseconds()


async def test_sessions_are_listed_page_by_page(here, stub):
    for n in (3, 1, 2, 5, 4):
        await stub.Open(model="sum", session=f"id-{n}")
    pages, after = [], ""
    while True:
        page = await stub.List(model="sum", limit=2, after=after)
        pages.append([each.session for each in page.sessions])
        if not (after := page.next):
            break
    assert pages == [["id-1", "id-2"], ["id-3", "id-4"], ["id-5"]]
    assert len((await stub.List(model="sum")).sessions) == 5
    for limit in (-1, 1001):
        await failed(stub.List(model="sum", limit=limit), "INVALID_ARGUMENT", "bad_request")
    await failed(stub.List(model="nothing"), "NOT_FOUND", "model_not_found")


async def test_a_session_is_renewed(here, stub):
    adder = await open_one(here, stub)
    before = await stub.Get(session=adder.id)
    renewed = await stub.Renew(session=adder.id, ttl_s=5000)
    left_s = renewed.expires_at.ToMilliseconds() - renewed.last_used_at.ToMilliseconds()
    assert left_s == SECONDS(5_000_000, abs=2)
    assert renewed.last_used_at.ToMilliseconds() >= before.last_used_at.ToMilliseconds()
    await failed(stub.Renew(session=adder.id, ttl_s=0), "INVALID_ARGUMENT", "bad_request")


async def test_a_session_is_opened_with_a_state_a_version_or_over_another(here, stub):
    adder = await open_one(here, stub, session="a", state={"h": tensor([10, 20])}, version="1")
    adder.total = [10, 20]
    await goes_on(stub, adder)
    await failed(stub.Open(model="sum", state={"": tensor([1, 2])}), "INVALID_ARGUMENT", "unknown_input")
    await failed(stub.Open(model="sum", session="a"), "ALREADY_EXISTS", "session_exists")
    returned = await stub.Open(model="sum", session="a", if_exists=pb.IF_EXISTS_RETURN)
    assert (returned.created, returned.session.step) == (False, 1)
    restarted = await stub.Open(model="sum", session="a", if_exists=pb.IF_EXISTS_RESTART)
    assert (restarted.created, restarted.session.step) == (True, 0)
    await goes_on(stub, Adder(here.http, "a"))


async def test_a_fork_goes_on_by_itself(here, stub):
    parent = await open_one(here, stub)
    await goes_on(stub, parent)
    shown = await stub.Fork(session=parent.id, fork="child")
    assert (shown.session, shown.step) == ("child", 1)
    child = Adder(here.http, "child", [*parent.total], parent.steps)
    await goes_on(stub, child, (1, 1))
    await goes_on(stub, parent, (2, 2))
    await failed(stub.Fork(session=parent.id, fork="child"), "ALREADY_EXISTS", "session_exists")
    assert (await stub.Fork(session=parent.id)).session.startswith("s-")


async def test_a_state_goes_out_and_comes_back(here, stub):
    adder = await open_one(here, stub)
    await goes_on(stub, adder)
    envelope = (await stub.GetState(session=adder.id)).envelope
    assert envelope == (await here.http.get(f"/v1/sessions/{adder.id}/state")).content
    reply = await stub.PutState(session="copy", envelope=envelope)
    assert (reply.created, reply.session.step) == (True, 1)
    await goes_on(stub, Adder(here.http, "copy", [*adder.total], 1))
    reply = await stub.PutState(session="copy", envelope=envelope)
    assert (reply.created, reply.session.step) == (False, 1)
    await goes_on(stub, Adder(here.http, "copy", [*adder.total], 1))
    await failed(stub.PutState(session="copy", envelope=envelope[:-1]), "INVALID_ARGUMENT", "bad_request")
    wrong = seal(SavedState("sum", 9, 1, {}))
    await failed(stub.PutState(session="copy", envelope=wrong), "FAILED_PRECONDITION", "state_incompatible")


async def test_many_sessions_step_in_one_call(here, stub):
    adders = await here.adders(4)
    closed = await here.open()
    await here.http.delete(f"/v1/sessions/{closed.id}")
    ids = [adders[0].id, closed.id, *(adder.id for adder in adders[1:])]
    reply = await stub.StepMany(**_fields(many(ids, [(n, 1) for n in range(5)], steps=[0, 0, -1, 0, 7])))
    assert list(reply.steps) == [1, -1, 1, 1, -1]
    assert [(error.index, error.error.code) for error in reply.errors] == [(1, "session_closed"), (4, "step_mismatch")]
    assert reply.errors[1].error.details == '{"current":0}'
    assert all(len(error.error.message) > 10 for error in reply.errors)
    total = lists(reply.outputs)["total"]
    for row, adder in [(0, adders[0]), (2, adders[1]), (3, adders[2])]:
        assert total[row] == adder.added((row, 1))["outputs"]["total"]
    assert total[1] == total[4] == [0, 0]
    for adder in adders:
        await goes_on(stub, adder)


def _fields(request: pb.StepManyRequest) -> dict[str, object]:
    return {field.name: value for field, value in request.ListFields()}


async def test_more_sessions_than_the_largest_batch_holds_are_divided(puppet):
    async with running(puppet, allowed_batch_sizes="1,2,4") as here, dialled(here) as stub:
        adders = await here.adders(11)
        reply = await stub.StepMany(**_fields(many([each.id for each in adders], [(n, 1) for n in range(11)])))
        assert lists(reply.outputs)["total"] == [[n, 1] for n in range(11)]
        assert list(reply.steps) == [1] * 11 and not reply.errors


async def test_numbers_outputs_and_the_only_input_are_as_over_http(here, stub):
    adder = await open_one(here, stub)
    await stub.step(adder.id, (1, 2), step=0)
    reply = await stub.Step(session=adder.id, inputs={"x": tensor([1, 2])}, step=0)
    assert (reply.replayed, reply.step, lists(reply.outputs)["total"]) == (True, 1, [1, 2])
    facts = await failed(stub.step(adder.id, (1, 2), step=5), "ABORTED", "step_mismatch")
    assert facts["current"] == 1
    await failed(stub.step(adder.id, (1, 2), step=-1), "INVALID_ARGUMENT", "bad_request")
    reply = await stub.Step(session=adder.id, inputs={"": tensor([1, 2])}, outputs=["doubled"])
    assert lists(reply.outputs) == {"doubled": [4, 8]}


# Tensors.


WRONG_TENSORS = {
    "no dtype": (pb.Tensor(shape=[2], data=bytes(8)), "bad_request"),
    "an unknown dtype": (pb.Tensor(dtype="float7", shape=[2], data=bytes(8)), "bad_request"),
    "short data": (pb.Tensor(dtype="float32", shape=[2], data=bytes(7)), "bad_request"),
    "long data": (pb.Tensor(dtype="float32", shape=[2], data=bytes(12)), "bad_request"),
    "no data": (pb.Tensor(dtype="float32", shape=[2]), "bad_request"),
    "a negative size": (pb.Tensor(dtype="float32", shape=[-2], data=bytes(8)), "bad_request"),
    "an enormous size": (pb.Tensor(dtype="float32", shape=[2**62, 2**62], data=bytes(8)), "bad_request"),
    "an enormous size of nothing": (pb.Tensor(dtype="float32", shape=[2**62, 0]), ("bad_request", "empty_input")),
    "many axes": (pb.Tensor(dtype="float32", shape=[1] * 100, data=bytes(4)), ("bad_request", "shape_mismatch")),
    "strings for numbers": (pb.Tensor(dtype="float32", shape=[2], strings=[b"a", b"b"]), "bad_request"),
    "another shape": (tensor([1, 2, 3]), "shape_mismatch"),
    "another rank": (tensor([[1, 2]]), "shape_mismatch"),
    "text": (tensor([b"a", b"b"], object), "dtype_mismatch"),
    "truth": (tensor([True, False], bool), "dtype_mismatch"),
    "complex numbers": (tensor([1, 2], np.complex64), "dtype_mismatch"),
    "not a number": (tensor([np.nan, 1]), "input_not_finite"),
    "too large a number": (tensor([1e300, 1], np.float64), "input_not_finite"),
    "nothing": (tensor([]), "empty_input"),
}


@pytest.mark.parametrize(("wrong", "code"), WRONG_TENSORS.values(), ids=WRONG_TENSORS)
async def test_a_wrong_tensor_is_refused_and_moves_nothing(here, stub, wrong, code):
    adder = await open_one(here, stub)
    call = stub.Step(session=adder.id, inputs={"x": wrong})
    if isinstance(code, tuple):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert dict(caught.value.trailing_metadata())["sluice-code"] in code
    else:
        await failed(call, "INVALID_ARGUMENT", code)
    await goes_on(stub, adder)


@pytest.mark.parametrize("dtype", ["float64", "float16", "int8", "int64", "uint16"])
async def test_numbers_of_another_dtype_are_taken_where_they_mean_the_same(here, stub, dtype):
    adder = await open_one(here, stub)
    reply = await stub.Step(session=adder.id, inputs={"x": tensor([1, 2], dtype)})
    assert lists(reply.outputs)["total"] == adder.added((1, 2))["outputs"]["total"]
    assert reply.outputs["total"].dtype == "float32"


async def test_names_must_be_those_of_the_model(here, stub):
    adder = await open_one(here, stub)
    await failed(stub.Step(session=adder.id, inputs={"y": tensor([1, 2])}), "INVALID_ARGUMENT", "unknown_input")
    await failed(stub.Step(session=adder.id), "INVALID_ARGUMENT", "missing_input")
    both = {"": tensor([1, 2]), "x": tensor([1, 2])}
    await failed(stub.Step(session=adder.id, inputs=both), "INVALID_ARGUMENT", "unknown_input")
    await failed(stub.step(adder.id, (1, 2), outputs=["h"]), "INVALID_ARGUMENT", "bad_request")
    await goes_on(stub, adder)


async def test_bfloat16_goes_in_and_comes_out(here, stub):
    ids = [(await stub.Open(model="halves")).session.session for _ in range(2)]
    x = tensor([0.5, 2], ml_dtypes.bfloat16)
    reply = await stub.Step(session=ids[0], inputs={"x": x})
    assert (reply.outputs["total"].dtype, reply.outputs["total"].data) == ("bfloat16", x.data)
    columns = tensor([[1, 1], [2, 2]], ml_dtypes.bfloat16)
    reply = await stub.StepMany(model="halves", sessions=ids, inputs={"x": columns})
    assert read_array(reply.outputs["total"]).astype(float).tolist() == [[1.5, 3], [2, 2]]


async def test_text_goes_in_and_comes_out_byte_for_byte(here, stub):
    id = (await stub.Open(model="words")).session.session
    for number, word in enumerate([b"\xff\0raw", b"", "ä".encode()]):
        reply = await stub.Step(session=id, inputs={"x": tensor(word, object)})
        assert (reply.outputs["said"].strings, reply.step) == ([b"%d " % number + word], number + 1)
    reply = await stub.Step(session=id, inputs={"x": tensor("ä".encode(), object)}, step=2)
    assert reply.replayed
    with_many = stub.StepMany(model="words", sessions=[id], inputs={"x": tensor([b"a"], object)})
    await failed(with_many, "INVALID_ARGUMENT", "unsupported_by_model")


async def test_bytes_that_are_no_message_are_refused(stub):
    for method in SERVICE.methods:
        if method.name != "Stream":
            call = stub.channel.unary_unary(f"/{SERVICE.full_name}/{method.name}")
            await failed(call(b"\xff\xff\xff", timeout=PATIENCE_S), "INVALID_ARGUMENT", "bad_request")


async def test_a_method_that_is_not_there_is_unimplemented(stub):
    for path in (f"/{SERVICE.full_name}/Dance", "/nothing.v1.Nothing/Step"):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.channel.unary_unary(path)(b"", timeout=PATIENCE_S)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_message_that_is_too_large_is_refused(puppet):
    async with running(puppet, body_bytes=1000) as here, dialled(here) as stub:
        adder = await open_one(here, stub)
        big = {"x": pb.Tensor(dtype="float32", shape=[2], data=bytes(2000))}
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Step(session=adder.id, inputs=big)
        assert caught.value.code().name in ("RESOURCE_EXHAUSTED", "INVALID_ARGUMENT")
        assert dict(caught.value.trailing_metadata() or ()).get("sluice-code") == "body_too_large"
        await goes_on(stub, adder)


# Errors.


async def test_sessions_that_are_not_open_are_told_apart(puppet):
    async with running(puppet, sessions_per_model=2, session_evict=True) as here, dialled(here) as stub:
        closed = await open_one(here, stub)
        await stub.Close(session=closed.id)
        expired = await open_one(here, stub, ttl_s=1e-3)
        sessions = here.gateway.engine.scheduler.sessions
        await eventually(lambda: sessions.find(expired.id) is None)
        evicted = await open_one(here, stub)
        rest = [await open_one(here, stub) for _ in range(2)]
        lost = rest[0].id.replace(here.gateway.sessions.generation, "19a0b1c2d3e")
        ended = {closed.id: "closed", expired.id: "expired", evicted.id: "evicted", lost: "lost"}
        for id, why in ended.items():
            for call in (stub.Get(session=id), stub.step(id, (1, 2)), stub.GetState(session=id), stub.Fork(session=id)):
                await failed(call, "FAILED_PRECONDITION", f"session_{why}")
        for call in (stub.Get(session="nobody"), stub.Close(session="nobody"), stub.Renew(session="nobody")):
            await failed(call, "NOT_FOUND", "session_not_found")
        await goes_on(stub, rest[1])


async def test_versions_and_models_that_are_not_served_are_told(puppet):
    async with running(puppet) as here, dialled(here) as stub:
        adder = await open_one(here, stub)
        await failed(stub.Open(model="nothing"), "NOT_FOUND", "model_not_found")
        await failed(stub.Open(model="sum", version="9"), "NOT_FOUND", "version_not_found")
        await failed(stub.Open(model="sum", version="one"), "INVALID_ARGUMENT", "bad_request")
        await failed(stub.Open(model="sum", version=f"{10**18}"), "NOT_FOUND", "version_not_found")
        await failed(stub.Open(model="plain"), "INVALID_ARGUMENT", "unsupported_by_model")
        await failed(stub.Open(model="sum", session="a b"), "INVALID_ARGUMENT", "bad_request")
        await failed(stub.Open(model="sum", ttl_s=-1), "INVALID_ARGUMENT", "bad_request")
        await failed(stub.Open(model="sum", state={"g": tensor([1, 2])}), "INVALID_ARGUMENT", "unknown_input")
        puppet.versions["sum"] = [2]
        await eventually(lambda: 1 not in here.gateway.catalog.models["sum"].served)
        await failed(stub.step(adder.id, (1, 2)), "FAILED_PRECONDITION", "session_version_gone")


async def test_full_queues_and_full_models_say_when_to_come_again(puppet):
    limits = {"session_queue_steps": 1, "queue_rows": 1, "in_flight": 1, "sessions_per_model": 3}
    async with running(puppet, **limits) as here, dialled(here) as stub:
        adders = [await open_one(here, stub) for _ in range(3)]
        assert (await failed(stub.Open(model="sum"), "UNAVAILABLE", "sessions_full"))["limit"] == 3
        gate = Gate(puppet)
        first = asyncio.create_task(goes_on(stub, adders[0]))
        await puppet.until_running(1)
        second = asyncio.create_task(goes_on(stub, adders[1]))
        await eventually(lambda: here.gateway.engine.scheduler.dispatchers["sum"].waiting_rows == 1)
        await failed(stub.step(adders[2].id, (1, 1)), "RESOURCE_EXHAUSTED", "queue_full")
        await failed(stub.step(adders[0].id, (1, 1)), "RESOURCE_EXHAUSTED", "session_queue_full")
        envelope = (await stub.GetState(session=adders[0].id)).envelope
        await failed(stub.PutState(session=adders[0].id, envelope=envelope), "ABORTED", "session_conflict")
        two = many([adders[0].id, adders[2].id], [(1, 1), (1, 1)])
        await failed(stub.StepMany(**_fields(two)), "INVALID_ARGUMENT", "batch_too_large")
        gate.open()
        await asyncio.gather(first, second)
        await goes_on(stub, adders[2])


async def test_a_scan_that_is_too_long_is_refused(puppet):
    async with running(puppet, scan_steps=3) as here, dialled(here) as stub:
        adder = await open_one(here, stub)
        call = stub.Scan(session=adder.id, inputs={"x": tensor([[1, 1]] * 4)})
        assert (await failed(call, "INVALID_ARGUMENT", "sequence_too_long"))["limit"] == 3
        id = (await stub.Open(model="halves")).session.session
        call = stub.Scan(session=id, inputs={"x": tensor([[1, 1]])})
        await failed(call, "INVALID_ARGUMENT", "unsupported_by_model")


async def test_a_state_that_would_not_be_finite_stays_as_it_was(here, stub):
    adder = await open_one(here, stub)
    here.puppet.twist = spoiled
    await failed(stub.step(adder.id, (5000, 0)), "FAILED_PRECONDITION", "state_not_finite")
    here.puppet.twist = None
    await goes_on(stub, adder)


async def test_the_model_servers_faults_are_told(here, stub):
    adder = await open_one(here, stub)
    here.puppet.twist = lambda outputs: {}
    await failed(stub.step(adder.id, (1, 1)), "INTERNAL", "backend_error")
    here.puppet.twist = None
    await here.puppet.stop()
    await failed(stub.step(adder.id, (1, 1)), "UNAVAILABLE", "backend_unavailable")
    await here.puppet.start()
    await eventually(lambda: answered(here))
    await goes_on(stub, adder)


async def test_a_bug_is_told_without_its_secrets(here, stub, monkeypatch):
    adder = await open_one(here, stub)

    def stumble(*_):
        raise RuntimeError("secret")

    monkeypatch.setattr(here.gateway.sessions, "renew", stumble)
    facts = await failed(stub.Renew(session=adder.id), "INTERNAL", "internal")
    assert "secret" not in facts["error"]


async def test_a_gateway_that_stops_opens_nothing(here, stub):
    adder = await open_one(here, stub)
    here.gateway.draining = True
    await failed(stub.Open(model="sum"), "UNAVAILABLE", "draining")
    await failed(stub.Fork(session=adder.id), "UNAVAILABLE", "draining")
    await goes_on(stub, adder)


# Deadlines and calls that are given up.


async def test_a_deadline_that_passes_moves_nothing(here, stub):
    gate = Gate(here.puppet)
    adder, other = await open_one(here, stub), await open_one(here, stub)
    going_on = asyncio.create_task(goes_on(stub, other))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Step(session=adder.id, inputs={"x": tensor([9, 9])}, timeout=0.05)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await waiting(here, adder, 0)
    gate.open()
    await going_on
    await eventually(here.nothing_left)
    await asyncio.gather(goes_on(stub, adder), goes_on(stub, other))


async def test_a_call_without_a_deadline_has_the_gateways(puppet):
    async with running(puppet, timeout_ms=30) as here, dialled(here) as stub:
        gate = Gate(puppet)
        adder = await open_one(here, stub)
        call = stub.Step(session=adder.id, inputs={"x": tensor([9, 9])}, timeout=None)
        await failed(call, "DEADLINE_EXCEEDED", "deadline_exceeded")
        gate.open()
        await eventually(here.nothing_left)


async def test_calls_of_high_priority_go_first(puppet):
    async with running(puppet, in_flight=1, allowed_batch_sizes="1") as here, dialled(here) as stub:
        gate, answered = Gate(puppet), []
        adders = [await open_one(here, stub) for _ in range(4)]

        async def stepped(number, priority):
            metadata = [("sluice-priority", priority)] if priority else None
            await stub.step(adders[number].id, [1, 2], metadata=metadata)
            answered.append(number)

        tasks = [asyncio.create_task(stepped(0, None))]
        await puppet.until_running(1)
        for number, priority in ((1, "low"), (2, None), (3, "high")):
            tasks.append(asyncio.create_task(stepped(number, priority)))
            await waiting(here, adders[number], 1)
        gate.open()
        await asyncio.gather(*tasks)
        assert answered == [0, 3, 2, 1]


async def test_another_priority_than_the_three_is_refused(stub):
    call = stub.Step(session="any", inputs={"x": tensor([1, 2])}, metadata=[("sluice-priority", "urgent")])
    assert "high, normal, low; got 'urgent'" in (await failed(call, "INVALID_ARGUMENT", "bad_request"))["error"]


async def waiting(here: Here, adder: Adder, count: int) -> None:
    session = here.gateway.engine.scheduler.sessions.get(adder.id)
    await eventually(lambda: len(session.steps) == count)


@pytest.mark.parametrize("method", ["Step", "Scan", "StepMany"])
async def test_a_call_that_is_cancelled_moves_nothing_and_harms_nobody(here, stub, method):
    gate = Gate(here.puppet)
    adder, other = await open_one(here, stub), await open_one(here, stub)
    for times in (1, 2):
        if method == "StepMany":
            call = stub.StepMany(**_fields(many([adder.id], [(9, 9)])))
        else:
            inputs = tensor([9, 9] if method == "Step" else [[9, 9]])
            call = getattr(stub, method)(session=adder.id, inputs={"x": inputs})
        going_on = asyncio.create_task(goes_on(stub, other))
        await waiting(here, adder, 1)
        await here.puppet.until_running(times if method == "Scan" else 1)
        call.cancel()
        await waiting(here, adder, 0)
        gate.open()
        await going_on
        await eventually(here.nothing_left)
        assert (await stub.Get(session=adder.id)).step == 0
        gate = Gate(here.puppet)
    gate.open()
    await asyncio.gather(goes_on(stub, adder), goes_on(stub, other))


async def test_a_client_that_hangs_up_takes_its_calls_along(here, stub):
    gate = Gate(here.puppet)
    adders = [await open_one(here, stub) for _ in range(5)]
    async with dialled(here) as leaving:
        calls = [leaving.Step(session=adder.id, inputs={"x": tensor([9, 9])}) for adder in adders]
        for adder in adders:
            await waiting(here, adder, 1)
    for adder in adders:
        await waiting(here, adder, 0)
    await asyncio.gather(*calls, return_exceptions=True)
    gate.open()
    await eventually(here.nothing_left)
    await asyncio.gather(*(goes_on(stub, adder) for adder in adders))


async def test_a_session_that_is_closed_tells_its_calls(here, stub):
    gate = Gate(here.puppet)
    adder = await open_one(here, stub)
    calls = [stub.Step(session=adder.id, inputs={"x": tensor([9, 9])}) for _ in range(3)]
    await waiting(here, adder, 3)
    await stub.Close(session=adder.id)
    for call in calls:
        await failed(call, "FAILED_PRECONDITION", "session_closed")
    gate.open()


# Health, reflection, counts.


async def health(stub: Stub, service: str = "") -> str:
    call = stub.channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        health_pb2.HealthCheckRequest.SerializeToString,
        health_pb2.HealthCheckResponse.FromString,
    )
    reply = await call(health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE_S)
    return health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)


async def test_health_follows_the_model_server(here, stub, monkeypatch):
    monkeypatch.setattr(catalog, "_ASK_TIMEOUT_S", 0.2)

    async def all_are(status):
        return {await health(stub, service) for service in ("", SERVICE.full_name)} == {status}

    await goes_on(stub, await open_one(here, stub))
    await eventually(lambda: all_are("SERVING"))
    await here.puppet.stop()
    await eventually(lambda: all_are("NOT_SERVING"))
    await here.puppet.start()
    await eventually(lambda: all_are("SERVING"))
    here.gateway.draining = True
    await eventually(lambda: all_are("NOT_SERVING"))


async def test_health_of_a_service_that_is_not_there_is_not_found(stub):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await health(stub, "nothing.v1.Nothing")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_health_can_be_watched(here, stub):
    call = stub.channel.unary_stream(
        "/grpc.health.v1.Health/Watch",
        health_pb2.HealthCheckRequest.SerializeToString,
        health_pb2.HealthCheckResponse.FromString,
    )
    watch = call(health_pb2.HealthCheckRequest(service=SERVICE.full_name))
    seen = []

    async def see(status):
        async with asyncio.timeout(PATIENCE_S):
            while not seen or seen[-1] != status:
                seen.append((await watch.read()).status)

    await goes_on(stub, await open_one(here, stub))
    await see(health_pb2.HealthCheckResponse.SERVING)
    here.gateway.draining = True
    await see(health_pb2.HealthCheckResponse.NOT_SERVING)
    here.gateway.draining = False
    await see(health_pb2.HealthCheckResponse.SERVING)
    watch.cancel()


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_tells_of_the_service_and_its_messages(stub, version):
    call = stub.channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )
    asked = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE.full_name),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="nothing.v1.Nothing"),
    ]
    services, files, unknown = [answer async for answer in call(iter(asked))]
    names = {each.name for each in services.list_services_response.service}
    assert {SERVICE.full_name, "grpc.health.v1.Health"} <= names
    assert pb.DESCRIPTOR.serialized_pb in files.file_descriptor_response.file_descriptor_proto
    assert unknown.error_response.error_code


async def test_reflection_calls_other_services_by_their_official_names(here):
    def learned():
        with grpc.insecure_channel(f"127.0.0.1:{here.app.state.grpc.port}") as channel:
            pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
            service = pool.FindServiceByName("tensorflow.serving.PredictionService")
            return {method.name: (method.input_type.full_name, _types(method.input_type)) for method in service.methods}

    told = await asyncio.to_thread(learned)
    assert told.keys() == {"Predict", "Classify", "Regress", "MultiInference", "GetModelMetadata"}
    name, fields = told["Predict"]
    assert name == "tensorflow.serving.PredictRequest"
    assert fields == {
        "model_spec": "tensorflow.serving.ModelSpec",
        "output_filter": None,
        "inputs": "tensorflow.TensorProto",
    }


def _types(message):
    """Field → the message in it; of a map the message that is its value."""
    found = {each.name: each.message_type for each in message.fields}
    for name, kind in found.items():
        if kind is not None and kind.GetOptions().map_entry:
            found[name] = kind.fields_by_name["value"].message_type
    return {name: kind and kind.full_name for name, kind in found.items()}


async def test_calls_are_counted_by_outcome_and_tell_of_no_session(here, stub):
    adder = await open_one(here, stub, session="very-secret-id")
    await goes_on(stub, adder)
    await failed(stub.step(adder.id, (1, 2), step=7), "ABORTED", "step_mismatch")
    await stub.StepMany(**_fields(many([adder.id], [(1, 2)])))
    await failed(stub.Get(session="never-was"), "NOT_FOUND", "session_not_found")
    await failed(stub.Open(model="made-up"), "NOT_FOUND", "model_not_found")
    metrics = await here.metrics()
    for call, outcome in [("step", "ok"), ("step", "step_mismatch"), ("step_many", "ok"), ("open_session", "ok")]:
        assert metrics[f'sluice_requests_total{{call="{call}",model="sum",outcome="{outcome}"}}'] == 1
    assert not [name for name in metrics if "secret" in name or "never-was" in name or "made-up" in name]


async def test_a_step_that_the_model_refuses_does_not_spoil_its_mates(here, stub):
    async def reject(request):
        return grpc.StatusCode.INVALID_ARGUMENT if (read_tensor(request.inputs["x"]) == 666).any() else None

    here.puppet.before = reject
    bad, *others = [await open_one(here, stub) for _ in range(4)]
    refusal = failed(stub.step(bad.id, (666, 0)), "INVALID_ARGUMENT", "bad_request")
    await asyncio.gather(refusal, *(goes_on(stub, other) for other in others))
    await goes_on(stub, bad)
