"""Generation: which token comes next. The oracles are an exhaustive search, and the formulas written out."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from math import inf, log
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.policy.contract import Generation
from sluice.policy.contract_document import parse_contract
from sluice.policy.errors import BackendError, BadRequest
from sluice.policy.generation import Beam, Decoding, Limits, Options, Result, Sampling, check_options, said, state_rows
from tests.size import size

TOKENS, END, STEPS = 4, 3, 5
_STATES = [{"name": "seen", "input": "seen_in", "output": "seen_out", "dtype": "int64", "shape": [1]}]
_BATCH = {"name": "batch"}


def generation_of(max_steps: int = STEPS) -> Generation:
    token = {"dtype": "int32", "axes": [_BATCH]}
    text = {"dtype": "int32", "axes": [_BATCH, {"name": "byte", "ragged": True}]}
    logits = {"dtype": "float32", "axes": [_BATCH, {"name": "token", "size": TOKENS}]}
    lengths = {"lengths": {"byte": "lengths"}}
    document = {
        "schema": 1,
        "signatures": {
            "encode": {"kind": "encode", "inputs": {"text": text}, "outputs": {}, "states": _STATES, **lengths},
            "decode": {"kind": "decode", "inputs": {"token": token}, "outputs": {"logits": logits}, "states": _STATES},
        },
        "generation": {
            "encode": "encode", "decode": "decode", "input": "token", "logits": "logits", "start": 0, "end": END,
            "max_steps": max_steps, "tokens": ["", "a", "b", ""],
        },
    }  # fmt: skip
    found = parse_contract(document).generation
    assert found is not None
    return found


GENERATION = generation_of()
Model = Callable[[tuple[int, ...]], np.ndarray]  # the logits after these tokens


def model_of(seed: int) -> Model:
    return lambda tokens: np.random.default_rng((seed, *tokens)).normal(scale=2, size=TOKENS).astype(np.float32)


class Played:
    """A decoder that remembers, in its state, which tokens it was given: a row's past as one number."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._pasts: list[tuple[int, ...]] = [()]

    def answer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        logits, seen = [], []
        for token, past in zip(inputs["token"].tolist(), inputs["seen_in"][:, 0].tolist(), strict=True):
            tokens = (*self._pasts[past], token)
            self._pasts.append(tokens)
            logits.append(self._model(tokens))
            seen.append([len(self._pasts) - 1])
        return {"logits": np.array(logits), "seen_out": np.array(seen)}


def generated(options: Options, model: Model, index: int = 0) -> tuple[list[Result], list[int | None]]:
    """The sequences, and the tokens as they became certain."""
    dice = np.random.default_rng((options.sampling.seed if options.sampling else 0, index))
    decoding = Decoding(GENERATION, options, {"seen_in": np.zeros((1, 1), np.int64)}, dice.random)
    played, told = Played(model), []
    while not decoding.done:
        inputs = decoding.inputs()
        assert {len(array) for array in inputs.values()} == {decoding.rows}
        told.append(decoding.advance(played.answer(inputs)))
    return decoding.results(), told


def log_softmax(logits: np.ndarray) -> np.ndarray:
    wide = logits.astype(np.float64)
    return wide - log(sum(np.exp(wide)))


def score_of(model: Model, tokens: tuple[int, ...], *, ends: bool) -> float:
    """The log probability of a sequence, one factor after another."""
    total, past = 0.0, [GENERATION.start]
    for token in [*tokens, *([END] if ends else [])]:
        total += log_softmax(model(tuple(past)))[token]
        past.append(token)
    return total


def exhaustive(model: Model, max_steps: int) -> list[tuple[float, tuple[int, ...], str]]:
    """Every sequence there is, the likeliest first."""
    words = [token for token in range(TOKENS) if token != END]
    ended = [(each, "end") for n in range(max_steps) for each in product(words, repeat=n)]
    cut = [(each, "length") for each in product(words, repeat=max_steps)]
    found = [(score_of(model, each, ends=why == "end"), each, why) for each, why in [*ended, *cut]]
    return sorted(found, key=lambda one: -one[0])


@pytest.mark.parametrize("seed", range(8))
def test_the_likeliest_token_is_taken_at_each_step_until_the_end(seed: int) -> None:
    model = model_of(seed)
    [result], told = generated(Options(STEPS), model)
    past: list[int] = [GENERATION.start]
    for token in result.tokens:
        assert token == int(model(tuple(past)).argmax())
        past.append(token)
    if result.finished == "end":
        assert int(model(tuple(past)).argmax()) == END
        assert told == [*result.tokens, None]
    else:
        assert (len(result.tokens), told) == (STEPS, [*result.tokens])
    assert result.steps == len(told)
    assert result.score == pytest.approx(score_of(model, result.tokens, ends=result.finished == "end"), abs=1e-9)


@settings(max_examples=size(60, 1000), deadline=None)
@given(seed=st.integers(0, 10_000), max_steps=st.integers(1, 3), n_best=st.integers(1, 5))
def test_a_beam_as_wide_as_all_sequences_finds_the_best_ones(seed: int, max_steps: int, n_best: int) -> None:
    model = model_of(seed)
    results, told = generated(Options(max_steps, Beam(40, n_best)), model)
    best = exhaustive(model, max_steps)[:n_best]
    assert [(each.tokens, each.finished) for each in results] == [(tokens, why) for _, tokens, why in best]
    assert [each.score for each in results] == pytest.approx([score for score, _, _ in best], abs=1e-9)
    assert set(told) == {None}


@pytest.mark.parametrize("seed", range(8))
def test_a_beam_of_one_is_the_likeliest_token_at_each_step(seed: int) -> None:
    greedy, beam = (generated(options, model_of(seed))[0] for options in (Options(STEPS), Options(STEPS, Beam(1))))
    assert [(each.tokens, each.finished) for each in greedy] == [(each.tokens, each.finished) for each in beam]


@settings(max_examples=size(40, 1000), deadline=None)
@given(seed=st.integers(0, 10_000), width=st.integers(2, 4))
def test_a_beam_that_stops_early_gives_what_one_that_goes_on_to_the_last_step_gives(seed: int, width: int) -> None:
    """The oracle keeps the same beams, and never stops before the last step."""
    model = model_of(seed)
    going, ended = [((), 0.0)], []
    for step in range(1, STEPS + 1):
        every = [
            ((*tokens, token), total + float(log_softmax(model((0, *tokens)))[token]))
            for tokens, total in going
            for token in range(TOKENS)
        ]
        best = sorted(every, key=lambda one: -one[1])[: 2 * width]
        ended += [(total, tokens[:-1]) for tokens, total in best[:width] if tokens[-1] == END]
        going = [one for one in best if one[0][-1] != END][:width]
        if step == STEPS:
            ended += [(total, tokens) for tokens, total in going]
    [first, *_], _ = generated(Options(STEPS, Beam(width)), model)
    best_score, best_tokens = max(ended)
    assert first.tokens == best_tokens
    assert first.score == pytest.approx(best_score)


def test_the_length_penalty_is_wus() -> None:
    def even(tokens: tuple[int, ...]) -> np.ndarray:
        return np.zeros(TOKENS, np.float32)

    found, _ = generated(Options(2, Beam(4, 4, length_penalty=2.0)), even)
    for each in found:
        assert each.score == pytest.approx(-log(TOKENS) * each.steps / ((5 + each.steps) / 6) ** 2)
    assert max(generated(Options(5, Beam(4, length_penalty=10.0)), even)[0], key=lambda each: each.score).steps == 5


def test_the_same_seed_gives_the_same_answer_and_instances_differ() -> None:
    options = Options(STEPS, sampling=Sampling(temperature=2.0, seed=7))
    again = [generated(options, model_of(1), index)[0] for index in (0, 0, 1, 2, 3, 4)]
    assert again[0] == again[1]
    assert len({each[0].tokens for each in again}) > 1


@pytest.mark.parametrize(
    ("sampling", "allowed"),
    [
        (Sampling(seed=0), {0, 1, 2, 3}),
        (Sampling(top_k=2, seed=0), {0, 1}),
        (Sampling(top_p=0.5, seed=0), {0}),
        (Sampling(top_p=0.7, seed=0), {0, 1}),
        (Sampling(top_k=3, top_p=0.99, temperature=100.0, seed=0), {0, 1, 2}),
        (Sampling(temperature=1e-3, seed=0), {0}),
    ],
)
def test_tokens_are_drawn_from_those_that_are_allowed_as_often_as_they_are_likely(
    sampling: Sampling, allowed: set[int]
) -> None:
    likely = np.array([0.55, 0.25, 0.15, 0.05])
    draws = 3000
    counts = np.zeros(TOKENS)
    chance = np.random.default_rng(3).random
    decoding = Decoding(GENERATION, Options(STEPS, sampling=sampling), {}, chance)
    for _ in range(draws):
        counts[decoding._drawn(np.log(likely), sampling)] += 1
    assert {token for token in range(TOKENS) if counts[token]} == allowed
    expected = np.where([token in allowed for token in range(TOKENS)], likely ** (1 / sampling.temperature), 0)
    expected = expected / expected.sum() * draws
    assert (np.abs(counts - expected) <= 4 * np.sqrt(np.maximum(expected, 1))).all()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (Options(0), '"max_steps" is from 1 to 5 here; got 0'),
        (Options(6), '"max_steps" is from 1 to 5'),
        (Options(1, Beam(2), Sampling()), "either beam or sampling"),
        (Options(1, Beam(0)), '"beam.width" is from 1 to 4'),
        (Options(1, Beam(5)), '"beam.width" is from 1 to 4'),
        (Options(1, Beam(2, 3)), '"beam.n_best" is from 1 to 2'),
        (Options(1, Beam(2, 1, -1.0)), '"beam.length_penalty"'),
        (Options(1, Beam(2, 1, float("nan"))), '"beam.length_penalty"'),
        (Options(1, sampling=Sampling(temperature=0.0)), '"sampling.temperature"'),
        (Options(1, sampling=Sampling(top_k=5)), '"sampling.top_k"'),
        (Options(1, sampling=Sampling(top_p=0.0)), '"sampling.top_p"'),
        (Options(1, sampling=Sampling(seed=-1)), '"sampling.seed"'),
    ],
)
def test_what_is_asked_for_beyond_the_limits_is_refused(options: Options, sentence: str) -> None:
    with pytest.raises(BadRequest) as caught:
        check_options(options, GENERATION, Limits())
    assert sentence in str(caught.value)


def test_what_is_within_the_limits_is_taken() -> None:
    for options in (Options(5), Options(1, Beam(4, 4, 1.0)), Options(2, sampling=Sampling(0.7, 2, 0.9, 5))):
        check_options(options, GENERATION, Limits())


@pytest.mark.parametrize(
    ("outputs", "sentence"),
    [
        ({"logits": None}, "[1, 4] 'logits'; none came"),
        ({"logits": np.zeros((2, TOKENS))}, "[2, 4] came"),
        ({"logits": np.full((1, TOKENS), np.nan)}, "not finite"),
        ({"logits": np.full((1, TOKENS), -inf)}, "not finite"),
        ({"seen_out": None}, "'seen_out' as int64 [1]; none came"),
        ({"seen_out": np.zeros((1, 1))}, "float64 [1] came"),
        ({"seen_out": np.zeros((1, 2), int)}, "int64 [2] came"),
    ],
)
def test_an_answer_that_is_not_as_promised_is_the_model_servers_error(outputs: Any, sentence: str) -> None:
    decoding = Decoding(GENERATION, Options(STEPS), {"seen_in": np.zeros((1, 1), int)})
    answer = {"logits": np.zeros((1, TOKENS)), "seen_out": np.zeros((1, 1), int)} | outputs
    with pytest.raises(BackendError) as caught:
        decoding.advance({name: array for name, array in answer.items() if array is not None})
    assert sentence in str(caught.value)


def test_a_token_that_is_impossible_is_never_chosen() -> None:
    logits = np.array([0.0, -inf, 1.0, -inf], np.float32)
    for options in (Options(3), Options(3, Beam(4, 4)), Options(3, sampling=Sampling(temperature=50.0, seed=1))):
        results, _ = generated(options, lambda _: logits)
        assert all(set(each.tokens) <= {0, 2} for each in results)


def test_beams_hold_no_sequence_that_is_impossible() -> None:
    only = np.array([-inf, 1.0, -inf, -inf], np.float32)
    results, _ = generated(Options(3, Beam(4, 4)), lambda _: only)
    assert [(each.tokens, each.finished) for each in results] == [((1, 1, 1), "length")]


def test_states_go_by_the_inputs_that_take_them() -> None:
    seen = np.ones((2, 1), np.int64)
    assert state_rows(GENERATION.decode.states, {"seen_out": seen, "other": seen}) == {"seen_in": seen}


def test_a_result_says_its_text_and_its_tokens_where_that_does_not_tell_it_from_another():
    def results(*rows: tuple[int, ...]) -> list[Result]:
        return [Result(row, -1.0, len(row), "end") for row in rows]

    assert said(GENERATION, results((1, 2), (2,))) == [{"text": "ab"}, {"text": "b"}]
    alike = said(GENERATION, results((1,), (0, 1), (2,)))
    assert alike == [{"text": "a", "tokens": [1]}, {"text": "a", "tokens": [0, 1]}, {"text": "b"}]
    assert said(replace(GENERATION, tokens=("",) * TOKENS), results((1, 2))) == [{"tokens": [1, 2]}]
