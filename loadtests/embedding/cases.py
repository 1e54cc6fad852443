"""What is measured: a training step with each optimizer, and an answer, by the size of the vocabulary."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from loadtests.bench.report.bars import Bar
from loadtests.bench.report.results import Spread
from sluice.export.saved_model import write_saved_model
from sluice_models.language import network, serving
from sluice_models.language.batches import Rows, look_up
from sluice_models.language.data import Text
from sluice_models.language.embedding import WordVectors
from sluice_models.language.lazy_adam import LazyAdam
from sluice_models.language.lookup import WordRows
from sluice_models.language.vocabulary import Vocabulary, vocabulary

SIZES = (20_000, 200_000, 2_000_000)
ADAM, LAZY, SPREAD, ANSWER = "adam", "lazy_adam", "lazy_adam_spread", "answer"
TITLES = {
    ADAM: "a training step with Keras's Adam",
    LAZY: "a training step with LazyAdam",
    SPREAD: "the same, rows drawn from the whole table",
    ANSWER: "an answer for 32 texts, words to languages",
}

_BAR = 1.1
_WORDS = 16  # of the texts that are measured: 9 to 16, padded to 16
_BATCHES = 8
_ANSWERED_TEXTS = 32
_WARM_UPS = 3

Step = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Case:
    """Something measured at one size of the vocabulary; `milliseconds` has each round's median."""

    name: str
    words: int
    step: Step
    milliseconds: list[float] = field(default_factory=list)

    @property
    def spread(self) -> Spread:
        return Spread.of(self.milliseconds)


def cases(words: int, texts: Sequence[Text], scratch: Path) -> Iterator[Case]:
    """The four cases at one size, ready to run; what they write goes to `scratch`."""
    known = vocabulary(words)
    word_rows = WordRows(known.words, scratch / f"{words}.txt")
    chosen = [text for text in texts if _WORDS // 2 < text.words <= _WORDS][: _BATCHES * network.BATCH_SIZE]
    rows = look_up(chosen, word_rows)
    spread = np.random.default_rng(network.SEED).integers(known.rows, size=rows.rows.shape, dtype=np.int32)
    yield Case(ADAM, words, _training(known, keras.optimizers.Adam, rows))
    yield Case(LAZY, words, _training(known, LazyAdam, rows))
    yield Case(SPREAD, words, _training(known, LazyAdam, rows._replace(rows=spread)))
    yield Case(ANSWER, words, _answering(known, word_rows, chosen[:_ANSWERED_TEXTS], scratch / f"{words}"))


def measure(cases: Sequence[Case], rounds: int, steps: int) -> None:
    """Run every case once a round; the sizes of a case take turns, so that a slow minute of the machine meets all."""
    for case in cases:
        for _ in range(_WARM_UPS):
            case.step()
    for _ in range(rounds):
        for name in TITLES:
            sizes = [case for case in cases if case.name == name]
            taken = [[_milliseconds(case.step) for case in sizes] for _ in range(steps)]
            for case, milliseconds in zip(sizes, zip(*taken, strict=True), strict=True):
                case.milliseconds.append(median(milliseconds))


def _milliseconds(step: Step) -> float:
    started = time.perf_counter()
    step()
    return (time.perf_counter() - started) * 1000


def bars(cases: Sequence[Case]) -> list[Bar]:
    """What ten times the words cost, round by round."""
    small, large = SIZES[-2:]
    found = {(case.name, case.words): case.milliseconds for case in cases}
    return [
        Bar(
            f"{TITLES[name]}: {large:,} words / {small:,}",
            _BAR,
            "",
            at_least=False,
            reached=Spread.of([b / a for a, b in zip(found[name, small], found[name, large], strict=True)]),
        )
        for name in (LAZY, SPREAD, ANSWER)
    ]


def classifier(known: Vocabulary) -> keras.Model:
    """The network that is measured, which is the one that is served; always the same weights."""
    keras.utils.set_random_seed(network.SEED)
    return network.classifier(WordVectors(known.rows, network.DIMENSIONS, known.facts))


def _training(known: Vocabulary, optimizer: Callable[[float], keras.Optimizer], rows: Rows) -> Step:
    """One step of training, on one batch after another."""
    model = classifier(known)
    network.prepare(model, optimizer(network.LEARNING_RATE))
    batches = [
        ([rows.rows[chosen, :_WORDS], rows.lengths[chosen]], rows.languages[chosen])
        for chosen in np.arange(len(rows.lengths)).reshape(-1, network.BATCH_SIZE)
    ]
    taken = 0

    def step() -> None:
        nonlocal taken
        model.train_on_batch(*batches[taken % len(batches)])
        taken += 1

    return step


def _answering(known: Vocabulary, word_rows: WordRows, texts: Sequence[Text], folder: Path) -> Step:
    """One call of the SavedModel, loaded as TensorFlow Serving does."""
    served = serving.serving_model(classifier(known), word_rows)
    write_saved_model(served, serving.endpoints(served), serving.contract(), folder)
    session = tf.compat.v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        loaded = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(folder))
    signature = loaded.signature_def[serving.SIGNATURE]
    inputs = serving.padded(texts, _WORDS)
    outputs: list[Any] = [info.name for info in signature.outputs.values()]
    call = session.make_callable(outputs, [signature.inputs[name].name for name in inputs])
    return lambda: call(*inputs.values())
