"""Every sequence model, served: whatever lengths, order and batch mates, a row gets what it gets alone and unpadded.

The oracle is the exported model itself, called in this process with the one row, at its own length.
"""

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from sluice_models.clips import data as clips
from sluice_models.dates import data as dates
from sluice_models.dates import measure
from sluice_models.dates.buckets import END, TOKENS, buckets, tokens
from sluice_models.language import data as language

from .serving import Gateway, serving

TOLERANCE = 1e-5  # relative to max(1, |y|); text and whole numbers are equal
REQUESTS = 24

pytestmark = pytest.mark.timeout(900)  # the first test that needs a model trains it


def _temperature(dice: random.Random) -> list[list[float]]:
    return [[dice.uniform(15, 30)] for _ in range(dice.randint(1, 60))]


def _clip(dice: random.Random) -> Any:
    frames, start = dice.choice((3, 4, 6, 8)), dice.randrange(32)
    return _clips(frames)[start].tolist()


def _date(dice: random.Random) -> str:
    return dice.choice(_dates()).text


def _sentence(dice: random.Random) -> str:
    return dice.choice(_sentences()).text


@cache
def _clips(frames: int) -> Any:
    return clips.held_out(frames)[0]


@cache
def _dates() -> list[dates.Written]:
    return dates.texts("held_out")[:500]


@cache
def _sentences() -> list[language.Text]:
    return [text for text in language.texts() if text.split == "held_out"][:500]


# By model: a row at random, and what the model takes for it, `[1, ...]`.
ROWS: dict[str, tuple[Callable[[random.Random], Any], Callable[[Any], dict[str, Any]]]] = {
    "temperature": (_temperature, lambda row: {"temperature": np.array([row], np.float32)}),
    "clips": (_clip, lambda row: {"frames": np.array([row], np.float32)}),
    "dates": (_date, lambda row: {"text": np.frombuffer(row.encode(), np.uint8)[np.newaxis].astype(np.int32)}),
    "language": (_sentence, lambda row: {"words": np.array([row.encode().split()], object)}),
}
IN_CHUNKS = {"temperature": 7, "clips": 2}


@pytest.fixture(scope="module")
def models(
    temperature_dir: Path,
    clips_dir: Path,
    dates_dir: Path,
    language_dir: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """All of them in one folder."""
    folder = tmp_path_factory.mktemp("models")
    for name, trained in zip(ROWS, (temperature_dir, clips_dir, dates_dir, language_dir), strict=True):
        (folder / name).symlink_to(trained / name)
    return folder


@pytest.fixture(scope="module")
def alone(models: Path) -> Callable[[str, Any], dict[str, Any]]:
    """What a model answers to one row."""
    loaded = {name: tf.saved_model.load(models / name / "1") for name in ROWS}
    answers: dict[tuple[str, str], dict[str, Any]] = {}  # each gateway is asked the same

    def ask(name: str, row: Any) -> dict[str, Any]:
        key = name, repr(row)
        if key not in answers:
            answers[key] = answer(name, row)
        return answers[key]

    def answer(name: str, row: Any) -> dict[str, Any]:
        signatures, inputs = loaded[name].signatures, ROWS[name][1](row)
        run = signatures["sequences"] if "sequences" in signatures else signatures["serving_default"]
        [length] = {array.shape[1] for array in inputs.values()}
        tensors = {key: tf.constant(array) for key, array in inputs.items()}
        return {key: value.numpy()[0] for key, value in run(**tensors, lengths=tf.constant([length])).items()}

    return ask


@pytest.fixture(scope="module", params=["whole", "in chunks"])
def gateway(
    request: pytest.FixtureRequest, models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Gateway]]:
    chunks = dict.fromkeys(IN_CHUNKS, 0) if request.param == "whole" else IN_CHUNKS
    flags = [flag for name, chunk in chunks.items() for flag in ("--scan-chunks", f"{name}={chunk}")]
    with serving(models, tmp_path_factory.mktemp("serving"), *flags) as running:
        yield request.param, running


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", ROWS)
def test_a_row_gets_what_it_gets_alone_and_unpadded(
    name: str, seed: int, gateway: tuple[str, Gateway], alone: Callable[[str, Any], dict[str, Any]]
) -> None:
    way, running = gateway
    dice = random.Random(f"{name} {seed}")
    row = ROWS[name][0]
    requests = [[row(dice) for _ in range(dice.randint(1, 4))] for _ in range(REQUESTS)]
    order, begin = dice.sample(range(REQUESTS), REQUESTS), threading.Barrier(8)

    def ask(place: int) -> Any:
        if place in order[:8]:
            begin.wait(60)  # they arrive together, the others as these are answered
        return running.call("POST", f"/v1/models/{name}:predict", {"instances": requests[place]})

    with ThreadPoolExecutor(8) as pool:
        replies = dict(zip(order, pool.map(ask, order), strict=True))
    for place, rows in enumerate(requests):
        assert replies[place].status == 200, replies[place].body
        for answered, sent in zip(replies[place].body["predictions"], rows, strict=True):
            expected = alone(name, sent)
            found = answered if isinstance(answered, dict) else dict.fromkeys(expected, answered)
            for key, values in expected.items():
                same(found[key], values)
    ran = running.call("GET", f"/v1/models/{name}/buckets").body["chunks"]["serving_default"]
    assert ran == (IN_CHUNKS.get(name, 0) if way == "in chunks" else 0)


def test_perplexity_of_what_is_served_is_that_of_the_network(gateway: tuple[str, Gateway], models: Path) -> None:
    _, running = gateway
    written = _dates()[:100]
    rows = [
        {"text": each.text, "target": target[1:].tolist()}
        for each, target in zip(written, tokens([each.iso for each in written]), strict=True)
    ]
    body = {"signature_name": "score", "instances": rows}
    scores = np.array(running.call("POST", "/v1/models/dates:predict", body).body["predictions"])
    network = keras.models.load_model(models / "dates" / "1" / "assets.extra" / "model.keras")
    losses = [
        measure.token_losses(measure.logits(network, bucket), bucket.tokens[:, 1:])
        for bucket in buckets(written).values()
    ]
    expected = measure.perplexity(np.concatenate(losses))
    assert np.exp(-scores.sum() / scores.size) == pytest.approx(expected, rel=1e-6)
    assert expected > 1.0001  # or two networks that are always certain would be the same


def test_the_score_of_what_is_generated_is_the_sum_of_its_tokens_scores(gateway: tuple[str, Gateway]) -> None:
    _, running = gateway
    texts = [each.text for each in _dates()[:20]]
    generated = running.call("POST", "/v1/models/dates:generate", {"instances": texts}).body["results"]
    rows = [
        {"text": text, "target": [*map(TOKENS.index, result["text"]), END]}
        for text, result in zip(texts, generated, strict=True)
    ]
    body = {"signature_name": "score", "instances": rows}
    scores = np.array(running.call("POST", "/v1/models/dates:predict", body).body["predictions"])
    np.testing.assert_allclose(scores.sum(axis=1), [result["score"] for result in generated], rtol=0, atol=1e-5)


def same(found: Any, expected: Any) -> None:
    if isinstance(expected, bytes):
        assert found == expected.decode()
    else:
        numbers = np.array(found, expected.dtype)
        assert numbers.shape == expected.shape
        assert (np.abs(numbers - expected) <= TOLERANCE * np.maximum(1, np.abs(expected))).all()
