"""The date rewriter: facts of its data, one network in every bucket, and what it must reach on dates it never saw."""

import csv
import json
import math
import re
from collections import defaultdict
from datetime import date, timedelta
from itertools import islice
from pathlib import Path

import keras
import numpy as np
import pytest
from babel import Locale

from sluice_models import train
from sluice_models.dates import data, measure, model
from sluice_models.dates.buckets import BOUNDS, END, START, TOKENS, batches, bucket_for, buckets, iso, padded, tokens
from sluice_models.dates.network import MAX_STEPS, UNITS, rewriter
from tests.models.labelled_rows import read

# Training takes about half a minute where nothing else runs.
trained = pytest.mark.timeout(1200)

SHORT = ["3 Mar 2024", "24.12.1999", "1 mai 1907", "20991231", "5 янв 50"]
LONG = ["keskiviikko 17. maaliskuuta 2021", "2. Mai 2031", "Donnerstag, 6. September 1956"]


@pytest.fixture(scope="module")
def training() -> list[data.Written]:
    return data.texts("training")


@pytest.fixture(scope="module")
def held_out() -> list[data.Written]:
    return data.texts("held_out")


@pytest.fixture(scope="module")
def untrained() -> keras.Model:
    keras.utils.set_random_seed(3)
    return rewriter()


@pytest.fixture(scope="module")
def exported(untrained, tmp_path_factory, quick_verification) -> Path:
    return model.publish(untrained, tmp_path_factory.mktemp("dates") / "1", {"seed": 3})


@pytest.fixture(scope="module")
def served(exported, serve):
    return serve(exported)


def test_the_same_texts_come_every_time(held_out):
    assert data.texts("held_out") == held_out


def test_the_held_out_texts_and_dates_are_none_of_training(training, held_out):
    assert (len(training), len(held_out)) == (data.TEXTS["training"], data.TEXTS["held_out"])
    for key in ("text", "iso"):
        seen, unseen = ({getattr(each, key) for each in split} for split in (training, held_out))
        assert seen.isdisjoint(unseen)
    assert len({each.text for each in [*training, *held_out]}) == len(training) + len(held_out)


def test_the_texts_cover_two_centuries_and_every_language(held_out):
    assert {each.locale for each in held_out} == {*data.LOCALES, data.NUMBERS}
    assert len({each.iso[:4] for each in held_out}) == 200
    assert {bucket_for(len(each.text.encode())) for each in held_out} == {*BOUNDS}


def month_names(locale: str, month: int) -> set[str]:
    if locale == data.NUMBERS:
        return set()
    names = [by_month[month] for by_width in Locale.parse(locale).months.values() for by_month in by_width.values()]
    return {name.upper().rstrip(".") for name in names if not name.isdecimal() and len(name) > 1}


def reads_as(text: str, locale: str, year: int, month: int, day: int) -> bool:
    """Whether one who knows the rules reads the text so: three numbers in their order, or two and a month's name."""
    if re.fullmatch(r"\d{8}", text):
        return text == f"{year:04}{month:02}{day:02}"
    numbers = [int(number) for number in re.findall(r"\d+", text)]
    if len(numbers) == 2:
        named = any(name in text.upper() for name in month_names(locale, month))
        return named and numbers in ([day, year], [year, day])
    if numbers[0] > 31:
        return numbers == [year, month, day]
    return numbers == ([month, day, year] if numbers[1] > 12 else [day, month, year])


def test_every_text_reads_as_its_date(training, held_out):
    for each in [*training, *held_out]:
        assert reads_as(each.text, each.locale, *map(int, each.iso.split("-"))), each


def test_no_text_has_two_readings_whatever_its_language():
    readings = defaultdict(set)
    for day in (date(2024, 1, 1) + timedelta(days=days) for days in range(366)):
        for locale in (data.NUMBERS, *data.LOCALES):
            for pattern in data.patterns(locale):
                text = data.write(day, locale, pattern)
                for case in data.CASES if text else ():
                    readings[case(text)].add(day)
    assert len(readings) > 90_000
    assert [text for text, days in readings.items() if len(days) > 1] == []


def test_the_month_stands_before_the_day_only_where_the_day_is_no_month():
    assert data.write(date(2024, 3, 13), "en", "M/d/y") == "3/13/2024"
    assert data.write(date(2024, 3, 12), "en", "M/d/y") is None


def test_a_text_is_in_the_smallest_bucket_that_it_fits(held_out):
    filled = buckets(held_out)
    assert sum(len(bucket.text) for bucket in filled.values()) == len(held_out)
    for below, bound in zip((0, *BOUNDS), BOUNDS, strict=False):
        bucket = filled[bound]
        assert bucket.text.shape == (len(bucket.text), bound)
        assert below < bucket.lengths.min() <= bucket.lengths.max() <= bound


def test_the_arrays_of_a_bucket_hold_the_texts_and_their_dates(held_out):
    dates = {each.text: each.iso for each in held_out}
    for bucket in buckets(held_out).values():
        for text, length, answer in zip(bucket.text, bucket.lengths, bucket.tokens, strict=True):
            written = bytes(text[:length].tolist()).decode()
            assert not text[length:].any()
            assert [START, *(TOKENS.index(character) for character in dates.pop(written)), END] == answer.tolist()
    assert not dates


def test_a_pass_of_training_takes_no_text_twice_and_no_batch_mixes_buckets(held_out):
    filled = buckets(held_out)
    a_pass = sum(len(bucket.text) // 100 for bucket in filled.values())
    taken = [*islice(batches(filled, 100, np.random.default_rng(1)), a_pass)]
    assert {batch.text.shape for batch in taken} == {(100, bound) for bound in BOUNDS}
    texts = [(batch.text.shape[1], *text) for batch in taken for text in batch.text.tolist()]
    assert len({*texts}) == len(texts) == 100 * a_pass
    bounds = [batch.text.shape[1] for batch in taken]
    assert bounds != sorted(bounds)


def test_an_answer_is_the_text_of_its_tokens():
    assert iso(tokens(["2024-02-29", "1900-01-01"])) == ["2024-02-29", "1900-01-01"]


def states(served, text: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    answer = served.call("encode", {"text": text, "lengths": lengths})
    return np.concatenate([answer["decoder/h"], answer["decoder/c"]], axis=1)


def test_a_text_has_the_same_states_and_the_same_answer_in_every_bucket_that_it_fits(served):
    found, answers = [], []
    for bound in BOUNDS:
        text, lengths = padded(SHORT, bound)
        found.append(states(served, text, lengths))
        answers.append(served.call("serving_default", {"text": text, "lengths": lengths})["iso"].tolist())
    assert np.ptp(found[0], axis=0).max() > 0.01
    np.testing.assert_allclose(found[1:], [found[0]] * 2, rtol=0, atol=1e-5)
    assert answers == [answers[0]] * 3


def test_neighbours_in_a_batch_change_nothing(served):
    text, lengths = padded(SHORT + LONG, BOUNDS[-1])
    together = states(served, text, lengths)
    alone = [states(served, text[row : row + 1], lengths[row : row + 1])[0] for row in range(len(text))]
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("garbage", [1, 255, -7, 2**31 - 1])
def test_what_stands_beyond_a_text_s_end_changes_nothing(served, garbage):
    text, lengths = padded(SHORT + LONG, BOUNDS[-1])
    scribbled = np.where(np.arange(BOUNDS[-1]) < lengths[:, np.newaxis], text, garbage).astype(np.int32)
    np.testing.assert_array_equal(states(served, scribbled, lengths), states(served, text, lengths))
    calls = [served.call("serving_default", {"text": each, "lengths": lengths}) for each in (text, scribbled)]
    assert calls[0]["iso"].tolist() == calls[1]["iso"].tolist()


def test_the_keras_file_beside_it_is_the_same_network(untrained, exported):
    loaded = keras.models.load_model(exported / "assets.extra" / "model.keras")
    assert json.loads((exported / "assets.extra" / "report.json").read_text()) == {"seed": 3}
    text, lengths = padded(SHORT, BOUNDS[0])
    given = {"text": text, "lengths": lengths, "tokens": tokens(["2024-02-29"] * len(SHORT))}
    np.testing.assert_allclose(np.asarray(loaded(given)), np.asarray(untrained(given)), rtol=0, atol=1e-6)


def test_the_last_byte_counts(served):
    text, lengths = padded(["3 Mar 2024", "3 Mar 2025", "3 Mar 202"], BOUNDS[0])
    found = states(served, text, lengths)
    assert np.abs(found[0] - found[1]).max() > 1e-3
    assert np.abs(found[0] - found[2]).max() > 1e-3


def scored(served, text: np.ndarray, lengths: np.ndarray, target: np.ndarray, target_lengths: list[int]) -> np.ndarray:
    given = {"text": text, "lengths": lengths, "target": target, "target_lengths": np.array(target_lengths, np.int32)}
    return served.call("score", given)["log_probabilities"]


def test_the_score_of_each_token_is_its_log_probability_after_the_right_ones(served, untrained, held_out):
    for bucket in buckets(held_out[:200]).values():
        target = bucket.tokens[:, 1:]
        found = scored(served, bucket.text, bucket.lengths, target, [target.shape[1]] * len(target))
        assert (found.dtype, found.shape) == (np.float32, target.shape)
        losses = measure.token_losses(measure.logits(untrained, bucket), target)
        assert np.ptp(losses) > 0.01
        np.testing.assert_allclose(found, -losses, rtol=0, atol=1e-5)


@pytest.mark.parametrize("garbage", [0, 99, -7])
def test_padding_of_the_text_and_of_the_target_changes_no_score(served, garbage):
    target, ends = tokens(["2024-03-03", "1999-12-24", "1907-05-01"])[:, 1:], [11, 4, 1]
    alone = [
        scored(served, *padded([text], len(text.encode())), target[row : row + 1, :end], [end])[0]
        for row, (text, end) in enumerate(zip(SHORT, ends, strict=False))
    ]
    for bound in BOUNDS:
        for width in (0, 1, 5):
            wide = np.pad(target, ((0, 0), (0, width)))
            wide = np.where(np.arange(wide.shape[1]) < np.array(ends)[:, np.newaxis], wide, garbage).astype(np.int32)
            found = scored(served, *padded(SHORT[:3], bound), wide, ends)
            for row, end in enumerate(ends):
                np.testing.assert_allclose(found[row, :end], alone[row], rtol=0, atol=1e-5)
                assert not found[row, end:].any()


def test_a_token_that_there_is_not_has_no_probability_and_harms_no_other_row(served):
    text, lengths = padded(SHORT[:2], BOUNDS[0])
    target = tokens(["2024-03-03", "1999-12-24"])[:, 1:]
    right = scored(served, text, lengths, target, [11, 11])
    for strange in (len(TOKENS), -1):
        found = scored(served, text, lengths, np.where([[True], [False]], strange, target).astype(np.int32), [11, 11])
        assert (found[0] == -math.inf).all()
        np.testing.assert_array_equal(found[1], right[1])


def generated(served, texts: list[str], bound: int) -> list[str]:
    """What a client of the contract does: encode, then decode each text by itself until its end token comes."""
    text, lengths = padded(texts, bound)
    generation = served.contract["generation"]
    carried = served.call(generation["encode"], {"text": text, "lengths": lengths})
    answers = []
    for row in range(len(texts)):
        token, kept = generation["start"], {name: value[row : row + 1] for name, value in carried.items()}
        answer = ""
        for _ in range(generation["max_steps"]):
            kept = served.call(generation["decode"], {generation["input"]: [token]} | kept)
            token = int(kept.pop(generation["logits"])[0].argmax())
            if token == generation["end"]:
                break
            answer += generation["tokens"][token]
        answers.append(answer)
    return answers


def test_decoding_step_by_step_gives_what_the_whole_decode_gives(served):
    text, lengths = padded(SHORT + LONG, BOUNDS[-1])
    whole = served.call("serving_default", {"text": text, "lengths": lengths})["iso"]
    assert generated(served, SHORT + LONG, BOUNDS[-1]) == [each.decode() for each in whole]


def test_the_contract_names_exactly_the_tensors_of_the_signatures(served):
    assert {*served.contract["signatures"]} == {*served.signatures} - {"contract", "__saved_model_init_op"}
    for name, stated in served.contract["signatures"].items():
        names = {state["name"] for state in stated.get("states", [])}
        extra = {*stated.get("lengths", {}).values()} | (names if stated["kind"] == "decode" else set())
        assert {*served.signatures[name].inputs} == {*stated["inputs"]} | extra
        assert {*served.signatures[name].outputs} == {*stated["outputs"]} | names
        for tensor, about in (stated["inputs"] | stated["outputs"]).items():
            dtype = served.dtype(name, tensor)
            assert dtype == (object if about["dtype"] == "string" else about["dtype"])


def test_the_contract_s_states_and_tokens_fit_the_network(served):
    signatures, generation = served.contract["signatures"], served.contract["generation"]
    assert signatures["encode"]["states"] == signatures["decode"]["states"]
    assert [state["shape"] for state in signatures["decode"]["states"]] == [[UNITS]] * 2
    assert signatures["decode"]["outputs"]["logits"]["axes"][1]["size"] == len(generation["tokens"])
    assert "".join(generation["tokens"]) == "0123456789-"
    assert generation["max_steps"] == MAX_STEPS >= len("YYYY-MM-DD") + 1
    for name in ("encode", "serving_default"):
        assert signatures[name]["inputs"]["text"]["text"] == "utf-8"
        assert signatures[name]["buckets"] == {"byte": [*BOUNDS]}


def test_perplexity_is_the_inverse_of_the_tokens_geometric_mean_probability():
    random = np.random.default_rng(5)
    logits = random.normal(0, 3, (4, 11, len(TOKENS))).astype(np.float32)
    targets = random.integers(len(TOKENS), size=(4, 11)).astype(np.int32)
    product, count = 1.0, 0
    for row in range(4):
        for step in range(11):
            weights = [math.exp(float(logit)) for logit in logits[row, step]]
            product *= weights[targets[row, step]] / sum(weights)
            count += 1
    found = measure.perplexity(measure.token_losses(logits, targets))
    assert found == pytest.approx(product ** (-1 / count), rel=1e-6)


def test_logits_however_large_have_a_perplexity():
    logits = np.array([[[0.0, 1e4, -1e4]]], np.float32)
    assert measure.perplexity(measure.token_losses(logits, np.array([[1]], np.int32))) == 1.0


def test_a_network_that_knows_nothing_is_as_perplexed_as_there_are_tokens(untrained, held_out):
    found = measure.measure(untrained, buckets(held_out[:300]))
    assert found["perplexity"] == pytest.approx(len(TOKENS), rel=0.1)
    assert found["exact_match"] == 0
    assert sum(bucket["texts"] for bucket in found["buckets"].values()) == found["texts"] == 300


@trained
def test_it_rewrites_dates_that_it_never_saw(dates_dir):
    report = json.loads((dates_dir / "dates" / "1" / "assets.extra" / "report.json").read_text())
    assert report["seed"] == model.SEED
    found = report["held_out"]
    assert found["texts"] == data.TEXTS["held_out"]
    for part in (found, *found["buckets"].values()):
        assert part["exact_match"] >= 0.98
        assert 1 <= part["perplexity"] < 1.02


@trained
def test_served_it_is_right_as_often_as_reported_in_every_bucket_that_the_texts_fit(dates_dir, serve, held_out):
    folder = dates_dir / "dates" / "1"
    served = serve(folder)
    reported = json.loads((folder / "assets.extra" / "report.json").read_text())["held_out"]["buckets"]
    short = [each for each in held_out if len(each.text.encode()) <= BOUNDS[0]]
    for bound in BOUNDS:
        text, lengths = padded([each.text for each in short], bound)
        answers = served.call("serving_default", {"text": text, "lengths": lengths})["iso"]
        right = np.mean([answer.decode() == each.iso for answer, each in zip(answers, short, strict=True)])
        assert right == pytest.approx(reported[str(BOUNDS[0])]["exact_match"], abs=2e-4)


@trained
def test_the_dates_of_its_page_are_rewritten_as_shown(dates_dir, serve):
    page = (Path(model.__file__).parent / "README.md").read_text(encoding="utf-8")
    shown = dict(re.findall(r"^\| `(.+)` \| `(.+)` \|$", page, re.MULTILINE))
    assert len(shown) > 5
    assert generated(serve(dates_dir / "dates" / "1"), [*shown], BOUNDS[-1]) == [*shown.values()]


def test_the_data_are_written_as_a_table(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "TEXTS", {"training": 30, "held_out": 20})
    with train.data("dates", tmp_path).open(encoding="utf-8", newline="") as stream:
        rows = [*csv.DictReader(stream)]
    assert rows == [
        {"text": each.text, "iso": each.iso, "split": split, "locale": each.locale}
        for split in ("training", "held_out")
        for each in data.texts(split)
    ]


def test_an_evaluation_takes_the_held_out_texts_and_their_dates(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "TEXTS", {"training": 30, "held_out": 200})
    train.data("dates", tmp_path)
    request, rows = read(tmp_path, "dates")
    held_out = data.texts("held_out")
    assert rows["text"] == [each.text for each in held_out]
    assert rows["label"] == [each.iso for each in held_out]
    assert rows["group"] == [each.locale for each in held_out]
    assert (request["task"], request["options"]) == ("sequences", {"output": "iso"})
