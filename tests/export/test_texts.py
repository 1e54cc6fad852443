"""Models that take texts: verified on words of their own vocabulary, and served as Keras answers."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from sluice.export import Description, ExportError, export
from sluice.export.entries import entries

VOCABULARY = ["warm", "kühl", "storm"]


def moods(texts: keras.KerasTensor) -> keras.Model:
    numbers = layers.TextVectorization(vocabulary=VOCABULARY, output_sequence_length=5)(texts)
    averaged = layers.GlobalAveragePooling1D()(layers.Embedding(9, 4)(numbers))
    return keras.Model(texts, layers.Dense(2, name="mood")(averaged))


@pytest.mark.parametrize("shape", [(), (1,)])
def test_a_model_that_splits_texts_answers_as_keras(shape, tmp_path, serve, quick_verification):
    model = moods(keras.Input(shape, dtype="string", name="text"))
    served = serve(export(model, tmp_path / "1"))
    texts = np.char.encode(np.array(["kühl storm", "warm", "", "warm nothing"]).reshape(4, *shape), "utf-8")
    expected = keras.ops.convert_to_numpy(model(tf.constant(texts)))
    np.testing.assert_allclose(served.call("serving_default", {"text": texts})["mood"], expected, atol=1e-6)
    assert served.contract["signatures"]["serving_default"]["inputs"]["text"]["dtype"] == "string"
    assert served.contract["example"]["inputs"] == {"text": [""] if shape else ""}


def test_words_are_looked_up_both_ways(tmp_path, serve, quick_verification):
    words = keras.Input((2,), dtype="string", name="words")
    numbers = layers.StringLookup(vocabulary=VOCABULARY)(words)
    again = layers.StringLookup(vocabulary=VOCABULARY, invert=True, name="again")(numbers)
    served = serve(export(keras.Model(words, again), tmp_path / "1"))
    given = np.char.encode(np.array([["storm", "fog"], ["kühl", "warm"]]), "utf-8")
    answer = served.call("serving_default", {"words": given})["again"]
    assert [[word.decode() for word in row] for row in answer] == [["storm", "[UNK]"], ["kühl", "warm"]]


def test_samples_are_of_the_vocabulary_that_an_input_is_looked_up_in():
    assert entries(moods(keras.Input((1,), dtype="string", name="text")))["text"].words == tuple(VOCABULARY)


@keras.saving.register_keras_serializable("texts")
class Number(layers.Layer):
    """Takes texts of numbers alone."""

    def call(self, texts):
        return tf.strings.to_number(texts)

    def compute_output_shape(self, shape):
        return shape


def test_where_no_vocabulary_is_known_the_example_is_what_a_text_looks_like(tmp_path, quick_verification):
    model = keras.Sequential([keras.Input((2,), dtype="string", name="texts"), Number(), layers.Dense(1)])
    with pytest.raises(ExportError, match=r"the model cannot be run by Keras: .*could not correctly convert string"):
        export(model, tmp_path / "1")
    assert export(model, tmp_path / "1", Description(example=["1.5", "2"])).is_dir()
