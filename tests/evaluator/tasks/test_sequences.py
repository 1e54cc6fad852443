"""Sequences: exact match, tokens and perplexity, against plain loops."""

from itertools import pairwise
from math import exp
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.evaluator.tasks import task_for
from sluice.evaluator.tasks.tokens import Tokens, matching
from sluice.policy.contract import Axis, Generation
from sluice.policy.errors import BadRequest
from tests.evaluator.tasks.puppet import Puppet, found, options, rows_of, signature, subject, tensor, values_of

TOKENS = ("", "", "", "0", "1", "2", "a", "ab", "abc", "-")
END = 2
TEXT = tensor("text", Axis("byte", ragged=True), dtype="int32", text="utf-8")
WRITES = signature("serving_default", [TEXT], [tensor("out", dtype="string")], "sequences", bounds={"byte": (3, 6)})
TARGET = tensor("target", Axis("token", ragged=True), dtype="int32")
SCORES = signature("score", [TEXT, TARGET], [tensor("lp", Axis("token"), dtype="float32")], "sequences")
STEP = signature("decode", [tensor("token", dtype="int32")], [tensor("logits", len(TOKENS))], "decode")
GENERATION = Generation(STEP, STEP, "token", "logits", 1, END, 12, TOKENS)


def task(*signatures: Any, generation: Any = GENERATION, **given: Any) -> Any:
    own = subject(*(signatures or (WRITES, SCORES)), generation=generation)
    return task_for("sequences", own, options(**given), sessions=False)


def log_probability(place: int, token: int) -> float:
    return -0.1 * (place + 1) - 0.01 * token


def scored(inputs: Any) -> Any:
    """Log-probabilities that depend on place and token; a row padded to the longest has zeros at its end."""
    longest = max(len(each) for each in inputs["target"])
    return {
        "lp": np.array([
            [log_probability(place, token) for place, token in enumerate(each)] + [0.0] * (longest - len(each))
            for each in inputs["target"]
        ])
    }  # fmt: skip


def puppet(answers: Any, scores: Any = scored) -> Puppet:
    texts = np.array([each.encode() for each in answers], object)
    return Puppet({"serving_default": lambda inputs: {"out": texts}, "score": scores})


ANSWERS, LABELS = ["012", "abc-", "", "10"], ["012", "ab-", "0", "100"]
TEXTS = ["ab", "äö", "abcdef", "abc"]  # of 2, 4, 6 and 3 bytes
IDS = [[3, 4, 5, END], [7, 9, END], [3, END], [4, 3, 3, END]]


@pytest.mark.parametrize("weights", [(1, 1, 1, 1), (2, 0, 1, 3)])
async def test_metrics_are_those_of_a_plain_loop(weights: tuple[int, ...]) -> None:
    own = task()
    values = await values_of(own, rows_of(LABELS, weights, text=TEXTS), puppet(ANSWERS))
    nll = [-sum(log_probability(place, token) for place, token in enumerate(ids)) for ids in IDS]
    right, positions = [3, 1, 0, 2], [3, 2, 1, 3]  # "abc", "-" beside "ab", "-"
    assert found(own, values) == pytest.approx({
        "exact_match": np.average([1, 0, 0, 0], weights=weights),
        "token_accuracy": np.dot(weights, right) / np.dot(weights, positions),
        "perplexity": exp(np.dot(weights, nll) / np.dot(weights, [len(ids) for ids in IDS])),
    }, rel=1e-9)  # fmt: skip


async def test_targets_are_scored_with_the_end_token_and_the_sources() -> None:
    asked = puppet(ANSWERS)
    await task().values(rows_of(LABELS, text=TEXTS), asked)
    name, inputs, outputs = asked.asked[-1]
    assert (name, outputs, inputs["text"]) == ("score", ("lp",), TEXTS)
    assert [each.tolist() for each in inputs["target"]] == IDS
    assert all(each.dtype == np.int32 for each in inputs["target"])


async def test_the_buckets_are_those_of_the_contract() -> None:
    own = task()
    values = await values_of(own, rows_of(LABELS, text=TEXTS), puppet(ANSWERS))
    assert values["bucket"].tolist() == [3, 6, 6, 3]
    (table,) = own.sections(values, {})
    assert table.columns == ("bucket", "rows", "exact_match", "token_accuracy", "perplexity")
    nll = [-sum(log_probability(place, token) for place, token in enumerate(ids)) for ids in IDS]
    assert [row[:2] for row in table.rows] == [("3", 2), ("6", 2), ("all", 4)]
    assert [row[-1] for row in table.rows] == pytest.approx(
        [exp((nll[0] + nll[3]) / 8), exp((nll[1] + nll[2]) / 5), exp(sum(nll) / 13)]
    )


async def test_perplexity_is_undefined_without_a_score_and_infinite_where_a_target_is_impossible() -> None:
    own = task(WRITES)
    values = await values_of(own, rows_of(LABELS, text=TEXTS), puppet(ANSWERS))
    assert np.isnan(own.measures["perplexity"].of(values))
    assert own.measures["perplexity"].undefined.startswith("the model has no signature 'score'")
    assert own.judged == ""
    impossible = puppet(ANSWERS, lambda inputs: {"lp": np.full((4, 4), -np.inf)})
    values = await values_of(task(), rows_of(LABELS, text=TEXTS), impossible)
    assert task().measures["perplexity"].of(values) == np.inf
    assert np.isfinite(values["nll_outputs"]).all()


def test_a_score_of_another_form_is_said_to_be_one() -> None:
    own = task(WRITES, signature("score", [TEXT, TARGET, tensor("more")], [tensor("lp", None)], "sequences"))
    assert "is not one with the inputs of 'serving_default', a target" in own.measures["perplexity"].undefined


@pytest.mark.parametrize(
    ("label", "scores", "sentence"),
    [
        ("0x", scored, "Row 5: expected a label that is written in the tokens of `generation`; got '0x'"),
        ("012", lambda inputs: {"lp": np.zeros((1, 3))}, "Row 5: expected a log-probability in 'lp' for each of 4"),
        ("012", lambda inputs: {"lp": np.full((1, 4), np.nan)}, "Row 5: expected a log-probability"),
    ],
)
async def test_what_cannot_be_scored_is_refused(label: str, scores: Any, sentence: str) -> None:
    with pytest.raises(BadRequest, match=sentence):
        await task().values(rows_of([label], places=5, text=["a"]), puppet(["0"], scores))


async def test_sequences_of_numbers_are_compared_number_by_number() -> None:
    numbers = signature("serving_default", [tensor("x", None)], [tensor("y", None, dtype="int64")])
    own = task(numbers, generation=None)
    answers = [np.array([1, 2, 3]), np.array([4])]
    values = await values_of(own, rows_of([[1, 2, 3], [4, 5]]), Puppet(lambda inputs: {"y": answers}))
    assert found(own, values) == pytest.approx(
        {"exact_match": 0.5, "token_accuracy": 4 / 5, "perplexity": np.nan}, nan_ok=True
    )
    assert values["answer"].tolist() == ["1 2 3", "4"]


@given(st.text("012ab-", max_size=12))
def test_tokens_are_read_greedily_and_give_the_text_again(text: str) -> None:
    ids = Tokens(GENERATION).ids(text)
    if ids is None:
        assert "b" in text.replace("ab", "")
        return
    assert ids[-1] == END
    assert "".join(TOKENS[place] for place in ids) == text
    for first, second in pairwise(ids):
        assert TOKENS[first] + TOKENS[second][:1] not in TOKENS or not TOKENS[second]


@given(st.lists(st.integers(0, 2), max_size=6), st.lists(st.integers(0, 2), max_size=6))
def test_tokens_match_position_by_position_over_the_longer_sequence(answer: list[int], right: list[int]) -> None:
    longest = max(len(answer), len(right))
    same = [place < min(len(answer), len(right)) and answer[place] == right[place] for place in range(longest)]
    assert matching(answer, right) == (sum(same), len(same))


async def test_without_tokens_texts_are_compared_by_characters() -> None:
    own = task(WRITES, generation=None)
    values = await values_of(own, rows_of(["héy"], text=["a"]), puppet(["hé"]))
    assert (values["right_tokens"][0], values["positions"][0]) == (2, 3)
