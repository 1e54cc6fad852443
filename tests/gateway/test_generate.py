"""`:generate`: instances are encoded, join a running batch, and leave it at their end; streams, faults, who leaves."""

import asyncio
import gzip
import json
from math import exp, log

import grpc
import pytest

from sluice.gateway.core import backlog
from tests.gateway.here import Gate, events_of, eventually, refused, running, unread
from tests.gateway.puppet import SPELLER

GENERATE = "/v1/models/speller:generate"
STEP = log(exp(5) / (exp(5) + 26 * exp(-5)))  # the log probability of each token


def said(text, **more):
    return {
        "text": text,
        "score": pytest.approx((len(text) + 1) * STEP),
        "steps": len(text) + 1,
        "finished": "end",
    } | more


async def generate(here, instances, path=GENERATE, **more):
    return await here.http.post(path, json={"instances": instances, **more})


async def events(here, instances, **more):
    """The events of a stream, as (name, data)."""
    body = {"instances": instances, "stream": True, **more}
    async with here.http.stream("POST", GENERATE, json=body) as response:
        return await events_of(response)


async def test_every_instance_is_answered_in_order_whatever_its_length(here):
    words = ["a", "hello", "zebracrossing", "ox", "hello"]
    response = await generate(here, words)
    assert response.json() == {"model": "speller", "version": "1", "results": [said(word) for word in words]}
    versioned = await generate(here, [[ord("o"), ord("x")]], path="/v1/models/speller/versions/1:generate")
    assert versioned.json()["results"] == [said("ox")]


async def test_instances_of_many_clients_share_the_decoders_batches_and_leave_them_at_their_end(puppet):
    async with running(puppet, in_flight=1) as here:
        gate = Gate(puppet)
        words = ["abc", "abcdefgh", "ab", "a"]
        tasks = [asyncio.create_task(generate(here, [words[0]]))]
        await puppet.until_running(1)  # alone; the others wait for it together
        tasks += [asyncio.create_task(generate(here, [word])) for word in words[1:]]
        dispatcher = here.gateway.engine.scheduler.dispatchers["speller"]
        await eventually(lambda: dispatcher.waiting_rows == len(words) - 1)
        gate.open()
        for word, response in zip(words, await asyncio.gather(*tasks), strict=True):
            assert response.json()["results"] == [said(word)]
        decoded = [rows for signature, rows in puppet.batches if signature == "decode"]
        first, others = len(words[0]) + 1, max(len(word) + 1 for word in words[1:])
        assert len(decoded) <= first + others  # it may have ended before they joined
        assert max(decoded) >= len(words) - 1
        metrics = await here.metrics()
        assert metrics['sluice_generations_total{model="speller",outcome="end",version="1"}'] == len(words)
        assert metrics['sluice_generation_steps_total{model="speller",version="1"}'] == sum(len(w) + 1 for w in words)
        assert metrics['sluice_generating_instances{model="speller"}'] == 0


async def test_a_maximum_of_steps_cuts_a_sequence_and_says_so(here):
    [result] = (await generate(here, ["hello"], max_steps=3)).json()["results"]
    assert result == {"text": "hel", "score": pytest.approx(3 * STEP), "steps": 3, "finished": "length"}


async def test_a_stream_tells_each_token_as_it_comes_and_the_whole_at_the_end(here):
    found = await events(here, ["hi", "a"])
    assert [each for each in found if each[1].get("index") == 0] == [
        ("token", {"index": 0, "step": 0, "token": 8, "text": "h"}),
        ("token", {"index": 0, "step": 1, "token": 9, "text": "i"}),
        ("result", {"index": 0, **said("hi")}),
    ]
    assert ("result", {"index": 1, **said("a")}) in found
    assert found[-1] == ("done", {})


async def test_a_beam_gives_the_best_sequences_and_no_token_before(here):
    [best] = (await generate(here, ["hi"], beam={"width": 3, "n_best": 3})).json()["results"]
    assert best[0] == said("hi")
    assert [each["score"] for each in best] == sorted((each["score"] for each in best), reverse=True)
    assert len({each["text"] for each in best}) == 3
    [one] = (await generate(here, ["hi"], beam={"width": 3})).json()["results"]
    assert one == said("hi")
    found = await events(here, ["hi"], beam={"width": 2, "n_best": 2})
    assert [name for name, _ in found] == ["result", "done"]
    assert found[0][1]["results"][0] == said("hi")


async def test_results_of_a_beam_whose_texts_are_equal_are_told_apart_by_their_tokens(puppet, monkeypatch):
    monkeypatch.setitem(SPELLER["generation"], "tokens", ["", *"a" * 26])
    async with running(puppet) as here:
        [best] = (await generate(here, ["hi"], beam={"width": 8, "n_best": 8})).json()["results"]
    texts = [each["text"] for each in best]
    assert len(set(texts)) < len(texts)
    assert ["tokens" in each for each in best] == [texts.count(text) > 1 for text in texts]
    told = [(each["text"], *each.get("tokens", ())) for each in best]
    assert len(set(told)) == len(told)


async def test_sampling_gives_the_same_answer_for_the_same_seed_whoever_shares_the_batch(here):
    options = {"sampling": {"temperature": 8.0, "seed": 3}}
    [alone] = (await generate(here, ["hello"], **options)).json()["results"]
    crowd = [generate(here, ["crowd"], sampling={"temperature": 8.0, "seed": n}) for n in range(20)]
    together, *_ = await asyncio.gather(generate(here, ["hello", "other"], **options), *crowd)
    assert together.json()["results"][0] == alone
    others = {(await generate(here, ["hello"], sampling={"temperature": 8.0, "seed": n})).text for n in range(5)}
    assert len(others) > 1


@pytest.mark.parametrize(
    ("body", "status", "code", "word"),
    [
        ({"instances": ["hi"], "max_steps": 0}, 400, "bad_request", "max_steps"),
        ({"instances": ["hi"], "max_steps": 99}, 400, "bad_request", "from 1 to 17"),
        ({"instances": ["hi"], "beam": {"width": 17}}, 400, "bad_request", "beam.width"),
        ({"instances": ["hi"], "beam": {"width": 2, "n_best": 0}}, 400, "bad_request", "from 1 to 2 here; got 0"),
        ({"instances": ["hi"], "beam": {"width": 2}, "sampling": {"seed": 1}}, 400, "bad_request", "either"),
        ({"instances": ["hi"], "sampling": {}}, 400, "bad_request", "seed"),
        ({"instances": ["hi"], "dance": 1}, 400, "bad_request", "dance"),
        ({"instances": []}, 400, "empty_input", "one row"),
        ({"instances": ["hi", ""]}, 400, "empty_input", "Row 1"),
        ({"instances": ["hi", "abcdefghijklmnopq"]}, 413, "sequence_too_long", "16"),
        ({"instances": [["a"]]}, 400, "dtype_mismatch", "Row 0"),
        ({}, 400, "bad_request", "instances"),
    ],
)
async def test_what_cannot_be_generated_is_refused_before_anything_runs(here, body, status, code, word):
    assert word in refused(await here.http.post(GENERATE, json=body), status, code)["error"]
    assert here.puppet.batches == []


@pytest.mark.parametrize(
    ("given", "nulls"),
    [
        ({}, dict.fromkeys(("max_steps", "beam", "sampling", "stream"))),
        ({"beam": {"width": 2}}, {"beam": {"width": 2, "n_best": None, "length_penalty": None}}),
        ({"sampling": {"seed": 1}}, {"sampling": {"seed": 1, "temperature": None, "top_k": None, "top_p": None}}),
    ],
)
async def test_optional_fields_may_be_null(here, given, nulls):
    answers = [await generate(here, ["hi"], **each) for each in (given, nulls)]
    assert answers[1].status_code == 200, answers[1].text
    assert answers[0].json() == answers[1].json()


async def test_models_that_do_not_generate_say_what_they_offer(here):
    body = refused(await generate(here, ["hi"], path="/v1/models/spans:generate"), 400, "unsupported_by_model")
    assert "sequences" in body["error"]
    refused(await generate(here, ["hi"], path="/v1/models/nosuch:generate"), 404, "model_not_found")
    refused(await generate(here, ["hi"], path="/v1/models/speller/versions/9:generate"), 404, "version_not_found")


async def test_too_many_instances_or_beams_are_refused(puppet):
    async with running(puppet, queue_rows=4, allowed_batch_sizes="1,2,4") as here:
        refused(await generate(here, ["hi"] * 5), 413, "batch_too_large")
        refused(await generate(here, ["hi"] * 3, beam={"width": 2}), 413, "batch_too_large")
        assert puppet.batches == []


async def test_a_full_queue_refuses_who_comes_and_nobody_who_is_being_generated(puppet):
    async with running(puppet, queue_rows=4, allowed_batch_sizes="1,2,4", in_flight=1) as here:
        words = ["abcdefgh", "abcdef", "abc", "abcdefghij"]
        running_ = asyncio.create_task(generate(here, words))
        await eventually(lambda: any(signature == "decode" for signature, _ in puppet.batches))
        others = [generate(here, ["hello"] * 4) for _ in range(6)]
        codes = [response.status_code for response in await asyncio.gather(*others)]
        assert set(codes) <= {200, 429}
        assert (await running_).json()["results"] == [said(word) for word in words]


async def test_bodies_that_cannot_be_read_say_so_and_compressed_ones_can(here):
    for content in (b"x", b"\xff", b"[" * 100_000, b"9" * 5000):
        assert "JSON" in refused(await here.http.post(GENERATE, content=content), 400, "bad_request")["error"]
    body = gzip.compress(json.dumps({"instances": ["hi"]}).encode())
    response = await here.http.post(GENERATE, content=body, headers={"Content-Encoding": "gzip"})
    assert response.json()["results"] == [said("hi")]
    response = await here.http.post(GENERATE, content=body, headers={"Content-Encoding": "br"})
    refused(response, 400, "bad_request")
    text = json.dumps({"instances": ["\ud800"]})
    refused(await here.http.post(GENERATE, content=text), 400, "dtype_mismatch")
    text = json.dumps({"label": "\ud800"})
    refused(await here.http.post("/v1/models/sum/sessions", content=text), 400, "bad_request")


def dies_at(puppet, step):
    """The model server fails at the decoder's batch number `step`."""
    seen = 0

    async def before(request):
        nonlocal seen
        seen += request.model_spec.signature_name == "decode"
        return grpc.StatusCode.UNAVAILABLE if seen == step else None

    puppet.before = before


async def test_a_model_server_that_dies_in_the_middle_leaves_no_answer_that_looks_whole(here):
    dies_at(here.puppet, 2)
    refused(await generate(here, ["hello"]), 503, "backend_unavailable")
    dies_at(here.puppet, 2)
    found = await events(here, ["hello"])
    assert [name for name, _ in found] == ["token", "error", "done"]
    assert found[1][1]["code"] == "backend_unavailable"
    assert found[1][1]["index"] == 0
    metrics = await here.metrics()
    name = 'sluice_generations_total{model="speller",outcome="backend_unavailable",version="1"}'
    assert metrics[name] == 2
    assert metrics['sluice_requests_total{call="generate",model="speller",outcome="backend_unavailable"}'] == 2
    assert 'sluice_requests_total{call="generate",model="speller",outcome="ok"}' not in metrics


async def test_an_instance_whose_tokens_nobody_reads_fails(puppet, monkeypatch):
    monkeypatch.setattr(backlog, "_LEAST", 3)
    async with running(puppet, queue_rows=4) as here:
        rest = asyncio.Event()

        async def before(request):
            if request.model_spec.signature_name == "decode":
                await rest.wait()

        puppet.before = before
        body = {"instances": ["abcdefghijklmnop"], "stream": True}
        async with here.http.stream("POST", GENERATE, json=body) as response:
            with unread(here):
                rest.set()
                await eventually(here.nothing_left)
            *tokens, (name, data), done = await events_of(response)
        assert "".join(data["text"] for _, data in tokens) == "abcdefghijklmnop"[: len(tokens)]
        assert 4 <= len(tokens) < 16
        assert (name, data["index"], data["code"], data["details"]) == ("error", 0, "queue_full", {"limit": 4})
        assert done == ("done", {})
        name = 'sluice_requests_total{call="generate",model="speller",outcome="queue_full"}'
        assert (await here.metrics())[name] == 1
        assert (await events(here, ["abcdefghijklmnop"]))[-2:] == [  # who reads never meets the limit
            ("result", {"index": 0, **said("abcdefghijklmnop")}),
            ("done", {}),
        ]


async def test_a_model_that_answers_without_its_states_is_at_fault(here):
    here.puppet.twist = lambda outputs: {name: array for name, array in outputs.items() if name != "at"}
    refused(await generate(here, ["hello"]), 502, "backend_error")


async def test_a_client_that_leaves_frees_its_row_at_the_next_step(puppet, logs):
    async with running(puppet, in_flight=1) as here:
        noticed = asyncio.Event()

        async def before(request):
            if request.model_spec.signature_name == "decode":
                await noticed.wait()

        async def generating():
            return (await here.metrics()).get('sluice_generating_instances{model="speller"}')

        async def all_begun():
            return await generating() == 6

        async def none_left():
            return await generating() == 0

        puppet.before = before
        leaving = {
            "stream": asyncio.create_task(events(here, ["abcdefghijklmnop"] * 3)),
            "unary": asyncio.create_task(generate(here, ["abcdefghijklmnop"] * 3)),
        }
        await eventually(all_begun)
        for task in leaving.values():
            task.cancel()
        await eventually(none_left)
        noticed.set()
        await eventually(here.nothing_left)
        metrics = await here.metrics()
        assert metrics['sluice_generations_total{model="speller",outcome="client_gone",version="1"}'] == 6
        assert not [event for event in logs if event["log_level"] == "error"]
        assert (await generate(here, ["hi"])).json()["results"] == [said("hi")]


async def test_a_generation_that_takes_too_long_is_given_up(here):
    gate = Gate(here.puppet)
    response = await here.http.post(GENERATE, json={"instances": ["hi"]}, headers={"Sluice-Timeout-Ms": "50"})
    refused(response, 504, "deadline_exceeded")
    gate.open()
    await eventually(here.nothing_left)
