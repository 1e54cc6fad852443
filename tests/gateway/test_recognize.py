"""`:recognize` over HTTP: classes and unknowns, methods and levels, what is refused, company in batches, metrics."""

import asyncio
import gzip
import json
from math import exp

import grpc
import numpy as np
import pytest
from scipy import stats

from sluice.policy.calibration_document import parse_calibration
from sluice.policy.contract_document import parse_contract
from sluice.policy.recognition import decide
from tests.gateway.here import Gate, eventually, refused, running
from tests.gateway.puppet import SIDES, side, strangeness
from tests.gateway.sides import HUNDREDTHS, LEFT, RECOGNIZE, RIGHT, STRANGE, document, put


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "calibrations"
    folder.mkdir()
    put(folder, document())
    return folder


@pytest.fixture
async def here(puppet, folder):
    async with running(puppet, calibrations=folder) as here:
        yield here


async def recognize(here, instances, path=RECOGNIZE, headers=None, **more):
    return await here.http.post(path, json={"instances": instances, **more}, headers=headers)


async def results(here, instances, **more):
    response = await recognize(here, instances, **more)
    assert response.status_code == 200, response.text
    return response.json()["results"]


def in_words(results):
    return [(each["label"], each["reason"]) for each in results]


# What is answered.


async def test_each_row_gets_its_class_or_unknown_with_score_and_p_value(here):
    response = await recognize(here, [LEFT, STRANGE, RIGHT])
    body = response.json()
    assert response.headers["content-type"] == "application/json"
    about = {name: body[name] for name in ("model", "version", "method", "level", "threshold")}
    assert about == {"model": "sides", "version": "1", "method": "knn", "level": 0.05, "threshold": 0.95}
    left, strange, right = body["results"]
    powers = [exp(3.6), exp(1), exp(0.4)]
    assert left == {
        "label": "left", "known": True, "closed_set_label": "left", "score": pytest.approx(0.2),
        "p_value": pytest.approx(0.8, abs=0.011), "reason": None,
        "candidates": [
            {"label": name, "probability": pytest.approx(power / sum(powers), rel=1e-6)}
            for name, power in zip(("left", "middle", "right"), powers, strict=True)
        ],
    }  # fmt: skip
    assert (strange["label"], strange["known"], strange["closed_set_label"]) == (None, False, "right")
    assert (strange["reason"], strange["p_value"]) == ("score", pytest.approx(0.03, abs=0.011))
    assert (right["label"], right["reason"]) == ("right", None)


async def test_answers_are_those_of_the_rule_on_the_models_own_outputs(here):
    rows = np.random.default_rng(1).uniform(0, 1, (50, 2)).astype(np.float32)
    contract, calibration = parse_contract(SIDES).recognition, parse_calibration(document())
    outputs = strangeness(rows)
    scores = {name: outputs[f"scores/{name}"] for name in ("knn", "vim")}
    for method, level in (("knn", 0.05), ("max_logit", 0.2), ("knn+max_logit", 0.1), ("vim", 0.5)):
        told = decide(contract, calibration, method, level, outputs["logits"], scores, 2, sets=True)
        found = await results(here, rows.tolist(), method=method, level=level, top_k=2, sets=True)
        assert [(each["label"], each["reason"], each["set"]) for each in found] == [
            (each.label, each.reason, list(each.set)) for each in told
        ]
        assert [each["p_value"] for each in found] == [each.p_value for each in told]
        assert {len(each["candidates"]) for each in found} == {2}


async def test_a_method_of_logits_asks_for_logits_only_and_shares_batches_with_predict(puppet, folder):
    async with running(puppet, calibrations=folder, in_flight=1) as here:
        gate = Gate(puppet)
        first = asyncio.create_task(recognize(here, [LEFT], method="max_logit"))
        await puppet.until_running(1)
        asked = [asyncio.create_task(recognize(here, [RIGHT], method="max_logit")) for _ in range(2)]
        asked.append(asyncio.create_task(here.http.post("/v1/models/sides:predict", json={"instances": [RIGHT]})))
        await eventually(lambda: here.gateway.engine.scheduler.dispatchers["sides"].waiting_rows == 3)
        gate.open()
        assert [response.status_code for response in await asyncio.gather(first, *asked)] == [200] * 4
        assert puppet.batches[0] == ("serving_default", 1)
        assert puppet.batches[1][0] == "serving_default"
        assert len(puppet.batches) == 2


async def test_a_method_of_the_models_own_asks_for_its_score_and_no_other(here):
    asked = []

    async def before(request):
        asked.append((request.model_spec.signature_name, sorted(request.output_filter)))

    here.puppet.before = before
    await results(here, [LEFT])
    await results(here, [LEFT], method="vim+knn", level=0.9)
    assert asked == [
        ("recognize", ["logits", "scores/knn"]),
        ("recognize", ["logits", "scores/knn", "scores/vim"]),
    ]


async def test_the_detector_is_asked_at_the_same_time(here):
    gate = Gate(here.puppet)
    asked = asyncio.create_task(results(here, [LEFT, RIGHT, STRANGE], method="detector"))
    await here.puppet.until_running(2)
    gate.open()
    assert in_words(await asked) == [("left", None), ("right", None), (None, "detector")]
    assert sorted(here.puppet.batches) == [("serving_default", 3), ("serving_default", 3)]
    found = await results(here, [LEFT, STRANGE], method="detector+knn", level=0.1)
    assert in_words(found) == [("left", None), (None, "detector")]
    assert {each["threshold"] for each in found} <= {0.95}


async def test_a_detector_that_fails_or_is_not_there_is_told_and_withdraws_the_other_call(here):
    here.puppet.versions["guard"] = []
    body = refused(await recognize(here, [LEFT], method="detector"), 503, "backend_unavailable")
    assert "'guard'" in body["error"]
    here.puppet.versions["guard"] = [1]
    assert in_words(await results(here, [LEFT], method="detector")) == [("left", None)]

    async def before(request):
        return grpc.StatusCode.UNAVAILABLE if request.model_spec.name == "guard" else None

    here.puppet.before = before
    refused(await recognize(here, [LEFT], method="detector"), 503, "backend_unavailable")
    await eventually(here.nothing_left)
    assert in_words(await results(here, [LEFT])) == [("left", None)]


async def test_a_detector_that_answers_nothing_of_use_is_at_fault(here):
    await results(here, [LEFT], method="detector")
    here.puppet.twist = lambda outputs: {"logits": outputs["logits"] * np.float32(np.nan)}
    assert "guard" in refused(await recognize(here, [LEFT], method="detector"), 502, "backend_error")["error"]


async def test_a_stricter_level_rejects_more_and_never_takes_back(here):
    rows = [[0.9, score] for score in HUNDREDTHS]
    known = {}
    for level in (0.01, 0.05, 0.2, 0.5):
        found = await results(here, rows, level=level)
        known[level] = {row for row, each in enumerate(found) if each["known"]}
        assert len(rows) - len(known[level]) <= level * 100
    assert known[0.01] >= known[0.05] >= known[0.2] >= known[0.5]


async def test_versions_and_labels_are_named_in_the_path(here):
    for which in ("/versions/1", "/labels/stable"):
        response = await recognize(here, [LEFT], path=f"/v1/models/sides{which}:recognize")
        assert in_words(response.json()["results"]) == [("left", None)]
    for version in (7, 10**18, (1 << 63) - 1):
        path = f"/v1/models/sides/versions/{version}:recognize"
        refused(await recognize(here, [LEFT], path=path), 404, "version_not_found")
    refused(await recognize(here, [LEFT], path="/v1/models/nosuch:recognize"), 404, "model_not_found")
    assert (await here.http.get(RECOGNIZE)).status_code == 405


async def test_thresholds_by_class_come_with_each_row(puppet, folder):
    by_class = {"left": HUNDREDTHS, "right": [each / 2 for each in HUNDREDTHS], "middle": HUNDREDTHS}
    put(folder, document(methods={"knn": {"scores": HUNDREDTHS, "class_scores": by_class}}))
    async with running(puppet, calibrations=folder) as here:
        body = (await recognize(here, [[0.1, 0.6], [0.9, 0.6]])).json()
        assert body["threshold"] is None
        assert [(each["label"], each["threshold"]) for each in body["results"]] == [("left", 0.95), (None, 0.475)]


# What is refused.


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ({}, "missing_input", "instances"),
        ([], "bad_request", "instances"),
        ({"instances": []}, "empty_input", "one row"),
        ({"instances": "left"}, "bad_request", "list of rows"),
        ({"instances": [LEFT], "dance": 1}, "bad_request", "'dance'"),
        ({"instances": [LEFT], "inputs": [LEFT]}, "bad_request", "'inputs'"),
        ({"instances": [[0.1, 0.2, 0.3]]}, "shape_mismatch", "feature=2"),
        ({"instances": [LEFT, [0.1]]}, "shape_mismatch", "feature=2"),
        ({"instances": [["a", "b"]]}, "dtype_mismatch", "float32"),
        ({"instances": [[True, 0.5]]}, "dtype_mismatch", "true or false"),
        ({"instances": [[True, 0.5]], "sets": True}, "dtype_mismatch", "true or false"),
        ({"instances": [{"y": LEFT}]}, "unknown_input", "'y'"),
        ({"instances": [LEFT, [0, 200]]}, "bad_request", "Row 1 of input 'x' has values from 0 to 200"),
        ({"instances": [LEFT], "method": "magic"}, "bad_request", "knn"),
        ({"instances": [LEFT], "method": ""}, "bad_request", "knn"),
        ({"instances": [LEFT], "method": 7}, "bad_request", "name"),
        ({"instances": [LEFT], "method": "knn+knn"}, "bad_request", "two of them"),
        ({"instances": [LEFT], "method": "energy"}, "bad_request", "--method energy"),
        ({"instances": [LEFT], "level": 0}, "bad_request", "between 0 and 1"),
        ({"instances": [LEFT], "level": 1.0}, "bad_request", "between 0 and 1"),
        ({"instances": [LEFT], "level": -0.1}, "bad_request", "between 0 and 1"),
        ({"instances": [LEFT], "level": "5 %"}, "bad_request", "between 0 and 1"),
        ({"instances": [LEFT], "level": True}, "bad_request", "between 0 and 1"),
        ({"instances": [LEFT], "level": 0.001}, "bad_request", "999"),
        ({"instances": [LEFT], "level": 5e-324}, "bad_request", "999999999"),
        ({"instances": [LEFT], "level": 5e-324, "method": "knn+max_logit"}, "bad_request", "999999999"),
        ({"instances": [LEFT], "level": 0.05, "method": "vim"}, "bad_request", "19"),
        ({"instances": [LEFT], "level": 0.01, "method": "knn+max_logit"}, "bad_request", "199"),
        ({"instances": [LEFT], "top_k": 0}, "bad_request", "top_k"),
        ({"instances": [LEFT], "top_k": 2.0}, "bad_request", "top_k"),
        ({"instances": [LEFT], "sets": "yes"}, "bad_request", "true or false"),
    ],
)
async def test_what_cannot_be_recognized_is_refused_before_anything_runs(here, body, code, words):
    assert words in refused(await here.http.post(RECOGNIZE, json=body), 400, code)["error"]
    assert here.puppet.batches == []


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e39"])
async def test_values_that_are_no_numbers_are_refused_with_their_row(here, value):
    body = f'{{"instances": [[0.1, 0.2], [0.1, {value}]]}}'
    error = refused(await here.http.post(RECOGNIZE, content=body), 400, "input_not_finite")
    assert error["details"] == {"row": 1}
    assert here.puppet.batches == []


async def test_bytes_where_0_to_1_is_meant_are_noticed_and_said(here):
    error = refused(await recognize(here, [LEFT, [0, 255]]), 400, "bad_request")
    assert "dividing them by 255" in error["error"]
    assert error["details"] == {"row": 1, "expected": [0, 1], "got": [0, 255]}
    assert in_words(await results(here, [[1.5, 0.2]])) == [("right", None)]  # odd, and an answer


async def test_models_without_a_recognition_contract_say_so(here):
    for model in ("sum", "plain"):
        body = refused(await recognize(here, [LEFT], path=f"/v1/models/{model}:recognize"), 400, "unsupported_by_model")
        assert "contract" in body["error"]


async def test_bodies_that_cannot_be_read_say_so_and_compressed_ones_can(here):
    for content in (b"x", b"\xff", b"[" * 100_000):
        assert "JSON" in refused(await here.http.post(RECOGNIZE, content=content), 400, "bad_request")["error"]
    body = gzip.compress(json.dumps({"instances": [LEFT]}).encode())
    response = await here.http.post(RECOGNIZE, content=body, headers={"Content-Encoding": "gzip"})
    assert in_words(response.json()["results"]) == [("left", None)]


async def test_too_many_rows_are_refused_and_more_than_a_batch_are_answered_in_order(puppet, folder):
    async with running(puppet, calibrations=folder, queue_rows=30, allowed_batch_sizes="1,2,4,8") as here:
        refused(await recognize(here, [LEFT] * 31), 413, "batch_too_large")
        rows = [[n / 30, n / 30] for n in range(30)]
        found = await results(here, rows)
        assert [each["score"] for each in found] == pytest.approx([n / 30 for n in range(30)], abs=1e-6)
        assert max(rows for _, rows in puppet.batches) == 8


# Answers that are of no use, and clients that leave.


async def test_one_rows_useless_answer_fails_its_own_request_only(puppet, folder):
    async with running(puppet, calibrations=folder, in_flight=1) as here:
        gate = Gate(puppet)
        first = asyncio.create_task(recognize(here, [LEFT]))
        await puppet.until_running(1)
        asked = [asyncio.create_task(recognize(here, [[0.1, each]])) for each in (0.2, 0.5, 0.97)]
        await eventually(lambda: here.gateway.engine.scheduler.dispatchers["sides"].waiting_rows == 3)

        def spoil(outputs):
            knn = outputs["scores/knn"]
            return outputs | {"scores/knn": np.where(knn == np.float32(0.5), np.float32(np.nan), knn)}

        puppet.twist = spoil
        gate.open()
        one, spoilt, other = await asyncio.gather(*asked)
        await first
        assert (in_words(one.json()["results"]), in_words(other.json()["results"])) == (
            [("left", None)], [(None, "score")],
        )  # fmt: skip
        assert "knn" in refused(spoilt, 502, "backend_error")["error"]
        metrics = await here.metrics()
        assert metrics['sluice_requests_total{call="recognize",model="sides",outcome="backend_error"}'] == 1


async def test_many_clients_with_methods_and_levels_of_their_own_get_their_own_answers(puppet, folder):
    async with running(puppet, calibrations=folder, in_flight=1) as here:
        dice = np.random.default_rng(3)
        kinds = [("knn", 0.05), ("max_logit", 0.3), ("knn+max_logit", 0.1), ("detector", 0.1), ("detector+knn", 0.2)]
        contract, calibration = parse_contract(SIDES).recognition, parse_calibration(document())

        async def client(number):
            method, level = kinds[number % len(kinds)]
            rows = dice.uniform(0, 1, (1 + number % 3, 2)).astype(np.float32)
            found = await results(here, rows.tolist(), method=method, level=level)
            scores = {"knn": rows[:, 1], "detector": 1 / (1 + np.exp(4 - 8 * rows[:, 1].astype(float)))}
            told = decide(contract, calibration, method, level, side(rows)["logits"], scores)
            assert in_words(found) == [(each.label, each.reason) for each in told]

        await asyncio.gather(*(client(number) for number in range(60)))
        assert len(puppet.batches) < 60
        await eventually(here.nothing_left)


async def test_clients_that_leave_harm_nobody(puppet, folder, logs):
    async with running(puppet, calibrations=folder, in_flight=1) as here:
        for method in ("knn", "detector"):
            gate = Gate(puppet)
            leaving = [asyncio.create_task(recognize(here, [LEFT], method=method)) for _ in range(4)]
            staying = asyncio.create_task(results(here, [RIGHT], method=method))
            await puppet.until_running(1)
            for task in leaving:
                task.cancel()
            gate.open()
            assert in_words(await staying) == [("right", None)]
            await eventually(here.nothing_left)
            puppet.before = None
        assert not [event for event in logs if event["log_level"] == "error"]


async def test_a_request_that_takes_too_long_is_given_up(here):
    gate = Gate(here.puppet)
    for method in ("knn", "detector"):
        response = await recognize(here, [LEFT], method=method, headers={"Sluice-Timeout-Ms": "50"})
        refused(response, 504, "deadline_exceeded")
    gate.open()
    await eventually(here.nothing_left)


# What is counted.


async def test_rows_are_counted_by_class_and_outcome_with_their_p_values(here):
    await results(here, [LEFT, LEFT, STRANGE])
    await results(here, [STRANGE], method="detector+knn", level=0.1)
    metrics = await here.metrics()

    def rows(method, label, outcome):
        labels = f'label="{label}",method="{method}",model="sides",outcome="{outcome}",version="1"'
        return metrics.get(f"sluice_recognitions_total{{{labels}}}", 0)

    assert (rows("knn", "left", "accepted"), rows("knn", "right", "score")) == (2, 1)
    assert rows("detector+knn", "right", "detector") == 1
    about = 'method="knn",model="sides",version="1"'
    assert metrics[f"sluice_recognition_p_values_count{{{about}}}"] == 3
    for bound, count in (("0.05", 1), ("0.7", 1), ("+Inf", 3)):
        assert metrics[f'sluice_recognition_p_values_bucket{{le="{bound}",{about}}}'] == count
    assert metrics['sluice_requests_total{call="recognize",model="sides",outcome="ok"}'] == 2


async def test_rows_that_are_not_like_the_calibrations_show_as_drift(here):
    about = '{method="knn",model="sides",version="1"}'

    async def drift():
        metrics = await here.metrics()
        return metrics[f"sluice_recognition_drift{about}"], metrics[f"sluice_recognition_drift_critical{about}"]

    await results(here, [[0.1, each] for each in HUNDREDTHS])
    distance, critical = await drift()
    assert distance < 0.03 < critical
    await results(here, [[0.1, 0.2]] * 500)
    distance, critical = await drift()
    assert distance > critical


async def test_of_two_methods_that_must_agree_each_is_watched_by_itself(here):
    rows = np.array([[0.1, each] for each in HUNDREDTHS])
    scores = {"knn": rows[:, 1], "detector": 1 / (1 + np.exp(4 - 8 * rows[:, 1]))}
    await results(here, rows.tolist(), method="detector+knn")
    metrics = await here.metrics()
    watched = {each for each in metrics if each.startswith("sluice_recognition_drift{")}
    about = {method: f'sluice_recognition_drift{{method="{method}",model="sides",version="1"}}' for method in scores}
    assert watched == {*about.values()}
    for method, found in scores.items():  # as float32, a score may change places with the one it equals
        assert metrics[about[method]] == pytest.approx(stats.ks_2samp(HUNDREDTHS, found).statistic, abs=0.02)
    assert metrics[about["knn"]] < 0.03
    assert metrics[about["detector"]] > 0.1
    await results(here, [[0.1, 0.97]] * 99)  # the window is that of the method asked for by itself, too
    assert (await here.metrics())[about["knn"]] == pytest.approx(
        stats.ks_2samp(HUNDREDTHS, [*HUNDREDTHS, *[0.97] * 99]).statistic, abs=0.02
    )


async def test_a_new_calibration_and_a_version_that_goes_end_the_watch(here, folder):
    about = '{method="knn",model="sides",version="1"}'
    await results(here, [[0.1, 0.2]] * 200)
    put(folder, document(rows=100))
    await here.http.post("/v1/calibrations:reload")
    await results(here, [[0.1, each] for each in HUNDREDTHS])
    assert (await here.metrics())[f"sluice_recognition_drift{about}"] < 0.03
    here.puppet.versions["sides"] = [2]

    async def gone():
        return f"sluice_recognition_drift{about}" not in await here.metrics()

    await eventually(gone)


async def test_optional_fields_may_be_null(here):
    nulls = dict.fromkeys(("method", "level", "top_k", "sets"))
    assert await results(here, [[0.1, 0.2]], **nulls) == await results(here, [[0.1, 0.2]])
