"""`python -m loadtests.embedding`: a training step, and an answer, at 20,000, 200,000 and 2,000,000 words."""

import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import keras
import tensorflow as tf
import typer
from rich.console import Console

from loadtests.bench.report import report
from loadtests.embedding import pages
from loadtests.embedding.cases import ADAM, LAZY, SIZES, bars, cases, classifier, measure
from sluice_models.language import data, evaluation, network
from sluice_models.language.batches import look_up
from sluice_models.language.data import Text
from sluice_models.language.lazy_adam import LazyAdam
from sluice_models.language.lookup import WordRows
from sluice_models.language.model import training_texts
from sluice_models.language.vocabulary import vocabulary

_PAGE_COLUMNS = 120  # of tables that do not go to a terminal


def main(
    rounds: Annotated[int, typer.Option(min=1, help="How often each case is measured.")] = 7,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each case in a round.")] = 20,
    accuracy: Annotated[
        bool, typer.Option("--accuracy", help="Also train with either optimizer, and compare.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder for embedding.json and embedding.png.")] = Path("var/bench"),
) -> None:
    """Measure what a training step of the `language` model, and an answer of it, cost by the size of its vocabulary.

    Every round runs every case once; the tables show the median of the rounds, and ratios are taken round by round.
    A bar that is missed is shown, and does not change the exit code.
    """
    tf.get_logger().setLevel("ERROR")  # it takes the steps of nine models for one that is traced again and again
    console = Console(width=None if sys.stdout.isatty() else _PAGE_COLUMNS)
    texts = data.texts()
    with TemporaryDirectory() as scratch:
        every = [case for words in SIZES for case in cases(words, training_texts(texts), Path(scratch))]
        measure(every, rounds, steps)
    reached = bars(every)
    console.print(pages.costs(every), pages.reached(reached))
    accuracies = _accuracies(texts) if accuracy else None
    if accuracies:
        console.print(pages.accuracies(accuracies))
    found = {
        "schema": report.SCHEMA,
        "machine": report.machine(),
        "options": {"rounds": rounds, "steps": steps},
        "cases": [{"case": case.name, "words": case.words, "milliseconds": case.milliseconds} for case in every],
        "bars": [bar.document() for bar in reached],
        "held_out_accuracy": accuracies,
    }
    report.write(out / "embedding.json", found)
    pages.draw(every, out / "embedding.png")
    console.print(f"Written: {out / 'embedding.json'}, {out / 'embedding.png'}")


def _accuracies(texts: Sequence[Text]) -> dict[str, dict[str, float]]:
    """Held-out accuracy by kind of text, of networks trained from the same seed with either optimizer."""
    known = vocabulary(SIZES[1])
    with TemporaryDirectory() as scratch:
        word_rows = WordRows(known.words, Path(scratch) / "words.txt")
        rows = look_up(training_texts(texts), word_rows)
        answers = {}
        for name, optimizer in ((ADAM, keras.optimizers.Adam), (LAZY, LazyAdam)):
            model = classifier(known)
            network.train(model, rows, optimizer)
            answers[name] = evaluation.by_model(model)
        held_out = [text for text in texts if text.split == "held_out"]
        return evaluation.accuracies(answers, evaluation.groups(held_out), word_rows)


if __name__ == "__main__":
    typer.run(main)
