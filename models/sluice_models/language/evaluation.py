"""How often the language is right, by kind of text: of the network, and of what it is compared with."""

from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from sluice_models.language import data
from sluice_models.language.batches import Rows, in_buckets, look_up
from sluice_models.language.data import Text
from sluice_models.language.vocabulary import Vocabulary

SWITCHING_TEXTS = 2000
_BATCH_SIZE = 512

Answer = Callable[[Rows], NDArray[np.int64]]  # texts to the index into LANGUAGES of each


def groups(texts: Sequence[Text]) -> dict[str, list[Text]]:
    """Texts of one part of the split by kind; some of them also with their words in another order."""
    sentences = [text for text in texts if text.words >= data.SENTENCE_WORDS]
    switching = data.switching(texts, SWITCHING_TEXTS)
    return {
        "one_word": [text for text in texts if text.words == 1],
        "two_or_three_words": [text for text in texts if 1 < text.words < data.SENTENCE_WORDS],
        "sentences": sentences,
        "sentences_shuffled": data.shuffled(sentences),
        "switching": switching,
        "switching_shuffled": data.shuffled(switching),
    }


def accuracies(
    answers: Mapping[str, Answer], groups: Mapping[str, Sequence[Text]], word_rows: Callable[[tf.Tensor], tf.Tensor]
) -> dict[str, dict[str, float]]:
    """The share of right answers of each answerer, by name, in each group."""
    looked_up = {name: look_up(texts, word_rows) for name, texts in groups.items()}
    return {
        who: {name: round(float(np.mean(answer(texts) == texts.languages)), 4) for name, texts in looked_up.items()}
        for who, answer in answers.items()
    }


def by_model(model: keras.Model) -> Answer:
    """What the network answers."""

    def answer(texts: Rows) -> NDArray[np.int64]:
        answers = np.empty(len(texts.lengths), np.int64)
        for bound, chosen in in_buckets(texts.lengths, _BATCH_SIZE):
            logits = model.predict_on_batch([texts.rows[chosen, :bound], texts.lengths[chosen]])
            answers[chosen] = logits.argmax(axis=1)
        return answers

    return answer


def by_facts(vocabulary: Vocabulary) -> Answer:
    """What the word lists say without any training: the language whose log-probabilities have the largest sum."""

    def answer(texts: Rows) -> NDArray[np.int64]:
        sums = [
            vocabulary.facts[rows[:length]].sum(axis=0, dtype=np.int64)
            for rows, length in zip(texts.rows, texts.lengths, strict=True)
        ]
        return np.argmax(sums, axis=1)

    return answer
