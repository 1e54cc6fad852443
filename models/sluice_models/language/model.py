"""Trains the classifier and exports it with the lookup of its words."""

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import keras

from sluice.export import export_endpoints
from sluice_models.language import data, evaluation, network, serving
from sluice_models.language.batches import Rows, look_up
from sluice_models.language.data import Text
from sluice_models.language.embedding import WordVectors
from sluice_models.language.lookup import WordRows
from sluice_models.language.vocabulary import Vocabulary, vocabulary

WORDS = 200_000
SWITCHING_TEXTS = 6000


def build(out: Path, words: int = WORDS) -> Path:
    """Train the classifier and export it to OUT/language/1, with a report in `assets.extra`.

    Args:
        out: the models folder.
        words: how many words have a row of their own; 2,000,000 take a minute longer, and 3 GB of memory.
    """
    known, texts = vocabulary(words), data.texts()
    with TemporaryDirectory() as scratch:
        word_rows = WordRows(known.words, Path(scratch) / "words.txt")
        rows = look_up(training_texts(texts), word_rows)
        model, seconds = trained(known, rows)
        held_out = [text for text in texts if text.split == "held_out"]
        report = _report(model, known, held_out, word_rows) | {"training_seconds": round(seconds, 1)}
        served = serving.serving_model(model, word_rows)
        return export_endpoints(
            served,
            serving.endpoints(served),
            serving.contract(),
            Path(out) / "language" / "1",
            serving.calls(served, held_out),
            {"report.json": lambda file: file.write_text(json.dumps(report, indent=2) + "\n")},
        )


def training_texts(texts: Sequence[Text]) -> list[Text]:
    """The training part of the split, and texts made of it that change their language."""
    training = [text for text in texts if text.split == "training"]
    return training + data.switching(training, SWITCHING_TEXTS)


def trained(known: Vocabulary, rows: Rows, *, ordered: bool = True) -> tuple[keras.Model, float]:
    """A classifier trained on these texts, and the seconds it took."""
    keras.utils.set_random_seed(network.SEED)
    model = network.classifier(WordVectors(known.rows, network.DIMENSIONS, known.facts), ordered=ordered)
    return model, network.train(model, rows)


def _report(model: keras.Model, known: Vocabulary, held_out: Sequence[Text], word_rows: WordRows) -> dict[str, Any]:
    answers = {"model": evaluation.by_model(model), "facts_untrained": evaluation.by_facts(known)}
    groups = evaluation.groups(held_out)
    return {
        "held_out_accuracy": evaluation.accuracies(answers, groups, word_rows),
        "held_out_texts": {name: len(texts) for name, texts in groups.items()},
        "seed": network.SEED,
        "words": len(known.words),
        "batch_size": network.BATCH_SIZE,
        "epochs": network.EPOCHS,
    }
