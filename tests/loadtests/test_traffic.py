"""What the load is made of: requests in a fixed order, and checks that let nothing wrong pass."""

from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import orjson
import pytest

from loadtests.traffic.checks import (
    TOLERANCE,
    Recognizable,
    check_evaluation,
    check_forecast,
    check_generated,
    check_nothing,
    check_opened,
    check_predictions,
    check_recognized,
    check_started,
)
from loadtests.traffic.exchange import WrongAnswer
from loadtests.traffic.library import LABELLED, POOL, NoTraffic, file_of, load
from loadtests.traffic.models import DATES, DIGITS, METHODS, TEMPERATURE
from loadtests.traffic.steps import closing, forking, opening, scanning, stepping

MONTHS = 60
PREDICTIONS = [np.array([[1.0], [2.0]]), np.array([[3.0]])]
SCORES = np.array([-3.0, 2.0])
RECOGNIZABLE = Recognizable("energy", np.array([[0, 9, 0, 0, 0, 0], [5, 0, 0, 0, 0, 5.0]]), SCORES)
KNOWN = {"label": "1", "known": True, "closed_set_label": "1", "score": -3.0}
UNKNOWN = {"label": None, "known": False, "closed_set_label": "5", "score": 2.0}
GENERATED = {"text": "2024-03-05", "steps": 11, "finished": "end", "score": -0.02}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Answers of no network: a forecast is the sum of the months so far."""
    folder = tmp_path_factory.mktemp("traffic")
    dice = np.random.default_rng(1)
    months = dice.uniform(18, 30, MONTHS).astype(np.float32)
    forecasts = np.full((MONTHS, MONTHS), np.nan, np.float32)
    for start in range(MONTHS):
        forecasts[start, : MONTHS - start] = np.cumsum(months[start:])
    np.savez(file_of(folder, TEMPERATURE), months=months, forecasts=forecasts, mse=0.2, stateless_mse=0.3)
    (folder / LABELLED).write_bytes(b"rows")
    pictures, logits = dice.random((40, 8, 8, 1), np.float32), dice.normal(size=(40, 7)).astype(np.float32)
    scores = {method: dice.normal(size=40) for method in METHODS}
    np.savez(file_of(folder, DIGITS), pictures=pictures, known=np.arange(40) < 20, logits=logits, **scores)
    texts = np.array([f"{day}. 3. 2024" for day in range(1, 29)])
    ended, steps = np.ones(28, bool), np.full(28, 11)
    np.savez(file_of(folder, DATES), texts=texts, answers=texts, steps=steps, ended=ended, scores=np.zeros(28))
    return folder


def _predicted(*values: object) -> dict[str, object]:
    return {"predictions": [*values]}


def _recognized(*results: dict[str, object], **fields: object) -> dict[str, object]:
    return {"method": "energy", "threshold": 0.0, "results": [*results], **fields}


def _evaluated(status: str, mse: float | None = 0.2) -> dict[str, object]:
    return {"status": status, "reason": "gone", "metrics": {"mse": {"value": mse}}}


PREDICT = partial(check_predictions, PREDICTIONS)
RECOGNIZE = partial(check_recognized, RECOGNIZABLE)
GENERATE = partial(check_generated, [GENERATED])
EVALUATE = partial(check_evaluation, {"mse": 0.2})
UPLOAD = partial(check_started, "upload")
RIGHT = [
    (PREDICT, _predicted([[1.0], [2.0]], [[3.0]])),
    (PREDICT, _predicted([[1.0 + TOLERANCE / 2], [2.0]], [[3.0]])),
    (RECOGNIZE, _recognized(KNOWN, UNKNOWN)),
    (RECOGNIZE, _recognized(KNOWN, {**UNKNOWN, "closed_set_label": "0"})),  # as likely as "5"
    (RECOGNIZE, _recognized(KNOWN, {**UNKNOWN, "known": True, "label": "5"}, threshold=2.0)),
    (RECOGNIZE, _recognized(KNOWN, UNKNOWN, threshold=2.0)),
    (GENERATE, {"results": [GENERATED]}),
    (EVALUATE, _evaluated("running", None)),
    (EVALUATE, _evaluated("done")),
]
WRONG = [
    (PREDICT, _predicted([[1.0], [2.0]]), "expected 2 results, one for each instance, got 1"),
    (PREDICT, _predicted([[1.0], [2.1]], [[3.0]]), "prediction 0 at [1, 0]: Keras says 2, got 2"),
    (PREDICT, _predicted([[1.0]], [[3.0]]), "prediction 0: expected the shape [2, 1], got [1, 1]"),
    (PREDICT, _predicted([[1.0], [2.0], [0.0]], [[3.0]]), "expected the shape [2, 1], got [3, 1]"),
    (PREDICT, _predicted([[1.0], [2.0]], [[None]]), "Keras says 3, got nan"),
    (PREDICT, _predicted([[1.0], [2.0]], [["3"], []]), "expected an answer of another form"),
    (PREDICT, {"error": "no"}, "expected an answer of another form (KeyError('predictions'))"),
    (RECOGNIZE, _recognized(KNOWN), "expected 2 results"),
    (RECOGNIZE, _recognized({**KNOWN, "closed_set_label": "2"}, UNKNOWN), "Keras says '1', got '2'"),
    (RECOGNIZE, _recognized({**KNOWN, "closed_set_label": "9"}, UNKNOWN), "Keras says '1', got '9'"),
    (RECOGNIZE, _recognized({**KNOWN, "label": "2"}, UNKNOWN), "expected (True, '1'), got (True, '2')"),
    (RECOGNIZE, _recognized({**KNOWN, "score": -2.9}, UNKNOWN), "Keras says -3, got -2.9"),
    (RECOGNIZE, _recognized(KNOWN, {**UNKNOWN, "known": True}), "expected (False, None)"),
    (RECOGNIZE, _recognized(KNOWN, UNKNOWN, threshold=2.1), "expected (True, '5')"),
    (RECOGNIZE, _recognized(KNOWN, UNKNOWN, threshold=None), "expected an answer of another form"),
    (RECOGNIZE, _recognized(KNOWN, UNKNOWN, method="knn"), "expected 'energy', got 'knn'"),
    (GENERATE, {"results": [{**GENERATED, "text": "2024-03-06"}]}, "text of instance 0"),
    (GENERATE, {"results": [{**GENERATED, "finished": "length"}]}, "expected 'end', got 'length'"),
    (GENERATE, {"results": [{**GENERATED, "score": -0.03}]}, "score of instance 0"),
    (GENERATE, {"results": []}, "expected 1 results"),
    (EVALUATE, _evaluated("done", 0.21), "mse: Keras says 0.2, got 0.21"),
    (EVALUATE, _evaluated("failed"), "expected an evaluation to end, got 'failed': gone"),
    (UPLOAD, {"upload": 3}, "upload: expected an id, got 3"),
]  # fmt: skip


@pytest.mark.parametrize(("check", "answer"), RIGHT)
def test_an_answer_within_the_tolerance_is_right(check, answer) -> None:
    check(orjson.dumps(answer))


@pytest.mark.parametrize(("check", "answer", "said"), WRONG)
def test_a_wrong_answer_is_found_and_the_sentence_says_how_it_differs(check, answer, said) -> None:
    with pytest.raises(WrongAnswer) as wrong:
        check(orjson.dumps(answer))
    assert said in str(wrong.value)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'"no"', b"null"])
def test_what_is_no_answer_at_all_is_wrong(body: bytes) -> None:
    with pytest.raises(WrongAnswer, match="expected an answer of another form"):
        PREDICT(body)


def test_the_number_of_a_session_has_to_go_on(folder: Path) -> None:
    series = load(folder).series[0]
    forecast = series.answers[3].tolist()
    check_forecast(series.answers[3], 4, orjson.dumps({"outputs": {"forecast": forecast}, "step": 4}))
    with pytest.raises(WrongAnswer, match="the session's number: expected 4, got 5"):
        check_forecast(series.answers[3], 4, orjson.dumps({"outputs": {"forecast": forecast}, "step": 5}))
    with pytest.raises(WrongAnswer, match="the session: expected 'mine', got 'yours'"):
        check_opened("mine", 0, b'{"session": "yours", "step": 0}')
    with pytest.raises(WrongAnswer, match="expected no body, got b'x'"):
        check_nothing(b"x")


def test_every_run_asks_the_same_in_the_same_order(folder: Path) -> None:
    one, other = load(folder), load(folder)
    for scenario in ("rows", "recognition", "sequences", "generation"):
        asked = [(each.path, each.body) for each in getattr(one, scenario)]
        assert asked == [(each.path, each.body) for each in getattr(other, scenario)]
        assert len(asked) == POOL
        assert len(set(asked)) > POOL / 10
    assert [each.inputs.tobytes() for each in one.series] == [each.inputs.tobytes() for each in other.series]


def test_sequences_differ_in_length_and_each_is_answered_in_its_own(folder: Path) -> None:
    lengths: Counter[int] = Counter()
    for exchange in load(folder).sequences:
        rows = [np.array(row) for row in orjson.loads(exchange.body)["instances"]]
        exchange.check(orjson.dumps({"predictions": [np.cumsum(row, axis=0).tolist() for row in rows]}))
        lengths.update(map(len, rows))
        with pytest.raises(WrongAnswer):
            exchange.check(orjson.dumps({"predictions": [[*np.cumsum(row, axis=0).tolist(), [0.0]] for row in rows]}))
    assert len(lengths) > MONTHS / 2
    assert 15 < np.median([*lengths.elements()]) < 25


def test_pictures_to_recognize_are_known_and_strange_ones_with_every_method(folder: Path) -> None:
    with np.load(file_of(folder, DIGITS)) as arrays:
        known = {picture.tobytes() for picture in arrays["pictures"][arrays["known"]]}
    kinds: Counter[bool] = Counter()
    methods: Counter[str] = Counter()
    for exchange in load(folder).recognition:
        asked = orjson.loads(exchange.body)
        methods[asked["method"]] += 1
        kinds.update(np.array(each, np.float32).tobytes() in known for each in asked["instances"])
    assert methods.keys() == {*METHODS}
    assert 0.8 < kinds[True] / kinds[False] < 1.25


def test_a_session_is_fed_a_series_and_each_call_says_where_it_is(folder: Path) -> None:
    series = load(folder).series[0]
    months = series.inputs.tolist()
    assert np.allclose(series.answers, np.cumsum(series.inputs, axis=0))
    assert opening(series, "mine", again=True).whole().startswith(b"POST /v1/models/temperature/sessions HTTP/1.1\r\n")
    assert orjson.loads(opening(series, "mine", again=True).body) == {
        "session": "mine", "if_exists": "restart", "ttl_s": 120,
    }  # fmt: skip
    assert orjson.loads(stepping(series, "mine", 7).body) == {
        "inputs": {"temperature": pytest.approx(months[7])}, "step": 7,
    }  # fmt: skip
    scan = scanning(series, "mine", 2, 3)
    assert len(orjson.loads(scan.body)["inputs"]["temperature"]) == 3
    scan.check(orjson.dumps({"outputs": {"forecast": series.answers[2:5].tolist()}, "step": 5}))
    assert (forking("mine", 7).status, forking("mine", 7).path) == (201, "/v1/sessions/mine:fork")
    assert closing("mine").whole().startswith(b"DELETE /v1/sessions/mine HTTP/1.1\r\n")


def test_what_is_asked_of_a_model_that_was_not_there_is_left_out(folder: Path, tmp_path: Path) -> None:
    file_of(tmp_path, DIGITS).write_bytes(file_of(folder, DIGITS).read_bytes())
    traffic = load(tmp_path)
    assert traffic.rows
    assert traffic.recognition
    assert (*traffic.sequences, *traffic.series, *traffic.generation, traffic.evaluation) == (None,)


def test_without_any_answers_the_sentence_says_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(NoTraffic, match=f"Make it: python -m loadtests.traffic --out {tmp_path}"):
        load(tmp_path)
