"""LazyAdam against a slow oracle, against Adam where they must agree, and what a training step may not touch."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from sluice_models.language import network
from sluice_models.language.catalogues import LANGUAGES
from sluice_models.language.embedding import WordVectors
from sluice_models.language.lazy_adam import LazyAdam

ROWS, DIMENSIONS = 10_007, 16  # a number of rows that no other tensor has
RATE = 0.01


def table(rows: int = 7, dimensions: int = 3) -> keras.Variable:
    return keras.Variable(np.random.default_rng(1).normal(size=(rows, dimensions)).astype(np.float32))


def looked_up(seed: int, rows: list[int], dimensions: int = 3) -> tf.IndexedSlices:
    """The gradient of a lookup of these rows, as TensorFlow gives it: the same row may come more than once."""
    values = np.random.default_rng(seed).normal(size=(len(rows), dimensions)).astype(np.float32)
    return tf.IndexedSlices(tf.constant(values), tf.constant(rows), dense_shape=tf.constant([7, dimensions]))


class Oracle:
    """Adam, row by row in float64: a row that is not looked up is not touched."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values.astype(np.float64)
        self.first, self.second = np.zeros_like(self.values), np.zeros_like(self.values)
        self.steps = 0

    def apply(self, gradient: tf.IndexedSlices, beta_1: float = 0.9, beta_2: float = 0.999) -> None:
        self.steps += 1
        for row in set(gradient.indices.numpy().tolist()):
            total = gradient.values.numpy()[gradient.indices.numpy() == row].astype(np.float64).sum(axis=0)
            self.first[row] = beta_1 * self.first[row] + (1 - beta_1) * total
            self.second[row] = beta_2 * self.second[row] + (1 - beta_2) * total**2
            mean = self.first[row] / (1 - beta_1**self.steps)
            square = self.second[row] / (1 - beta_2**self.steps)
            scaled = 1e-7 / np.sqrt(1 - beta_2**self.steps)  # Keras adds epsilon before it corrects the bias
            self.values[row] -= RATE * mean / (np.sqrt(square) + scaled)


def test_it_is_adam_of_the_rows_looked_up_and_of_no_others():
    variable, optimizer = table(), LazyAdam(RATE)
    oracle = Oracle(variable.numpy())
    for seed, rows in enumerate([[0, 3, 3], [5], [3, 0, 5, 3, 0], [1, 1, 1, 1], [0, 5], [6, 3]]):
        gradient = looked_up(seed, rows)
        optimizer.apply([gradient], [variable])
        oracle.apply(gradient)
        np.testing.assert_allclose(variable.numpy(), oracle.values, rtol=0, atol=2e-6)
    first, second = (slot.numpy() for slot in optimizer.variables[2:])
    np.testing.assert_allclose(first, oracle.first, rtol=0, atol=1e-6)
    np.testing.assert_allclose(second, oracle.second, rtol=0, atol=1e-6)


def test_a_row_that_is_not_looked_up_keeps_every_bit():
    variable, optimizer = table(), LazyAdam(RATE)
    before = variable.numpy()
    for seed in range(5):
        optimizer.apply([looked_up(seed, [2, 4])], [variable])
    untouched = [0, 1, 3, 5, 6]
    np.testing.assert_array_equal(variable.numpy()[untouched], before[untouched])
    assert all(not slot.numpy()[untouched].any() for slot in optimizer.variables[2:])
    assert (variable.numpy()[[2, 4]] != before[[2, 4]]).all()


def test_where_each_step_looks_up_every_row_it_is_adam():
    lazy, plain = table(), table()
    optimizers = LazyAdam(RATE), keras.optimizers.Adam(RATE)
    for seed in range(8):
        gradient = looked_up(seed, [4, 2, 0, 1, 6, 5, 3])
        optimizers[0].apply([gradient], [lazy])
        optimizers[1].apply([tf.convert_to_tensor(gradient)], [plain])
    np.testing.assert_allclose(lazy.numpy(), plain.numpy(), rtol=0, atol=1e-6)


def test_a_gradient_of_a_whole_variable_is_applied_as_adam_does():
    lazy, plain = table(), table()
    optimizers = LazyAdam(RATE), keras.optimizers.Adam(RATE)
    for seed in range(4):
        gradient = tf.constant(np.random.default_rng(seed).normal(size=(7, 3)).astype(np.float32))
        optimizers[0].apply([gradient], [lazy])
        optimizers[1].apply([gradient], [plain])
    np.testing.assert_array_equal(lazy.numpy(), plain.numpy())


def test_it_follows_a_schedule_of_the_learning_rate():
    variable = table()
    optimizer = LazyAdam(keras.optimizers.schedules.PiecewiseConstantDecay([1], [RATE, 0.0]))
    moved = []
    for seed in range(4):
        before = variable.numpy()
        optimizer.apply([looked_up(seed, [0])], [variable])
        moved.append(bool((variable.numpy() != before).any()))
    assert moved == [True, True, False, False]


def test_it_can_be_saved_and_made_again():
    optimizer = LazyAdam(0.02, beta_1=0.8, beta_2=0.99, epsilon=1e-5)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert isinstance(again, LazyAdam)
    assert again.get_config() == optimizer.get_config()
    assert (again.beta_1, again.beta_2, again.epsilon) == (0.8, 0.99, 1e-5)


@pytest.mark.parametrize("option", ["weight_decay", "use_ema", "clipnorm", "global_clipnorm", "amsgrad"])
def test_what_would_touch_every_row_cannot_be_asked_for(option):
    with pytest.raises(TypeError, match=option):
        LazyAdam(RATE, **{option: 1})


def whole_tables(model: keras.Model, optimizer: keras.Optimizer) -> list[str]:
    """The operations of a training step that take in or give out a tensor with as many rows as the embedding."""
    network.prepare(model, optimizer)
    optimizer.build(model.trainable_variables)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None], "int32"),
            tf.TensorSpec([None], "int32"),
            tf.TensorSpec([None], "int32"),
        ]
    )
    def step(rows, lengths, languages):
        return model.train_step(((rows, lengths), languages))

    graph = step.get_concrete_function().graph
    return [
        operation.type
        for operation in graph.get_operations()
        if any(tensor.shape.rank and tensor.shape[0] == ROWS for tensor in [*operation.inputs, *operation.outputs])
    ]


def vectors() -> WordVectors:
    return WordVectors(ROWS, DIMENSIONS, np.zeros((ROWS, len(LANGUAGES)), np.uint8))


def test_no_operation_of_a_training_step_handles_a_whole_table():
    assert whole_tables(network.classifier(vectors()), LazyAdam(RATE)) == []
    assert "AssignAddVariableOp" in whole_tables(network.classifier(vectors()), keras.optimizers.Adam(RATE))


def test_keras_own_embedding_would_be_read_whole():
    class KerasVectors(keras.layers.Embedding):
        def __init__(self) -> None:
            super().__init__(ROWS, DIMENSIONS)

    assert "ReadVariableOp" in whole_tables(network.classifier(KerasVectors()), LazyAdam(RATE))


def test_training_moves_the_rows_of_the_batch_and_leaves_the_facts_alone():
    facts = np.random.default_rng(2).integers(255, size=(50, len(LANGUAGES)), dtype=np.uint8)
    layer = WordVectors(50, DIMENSIONS, facts)
    model = network.classifier(layer)
    network.prepare(model, LazyAdam(RATE))
    model.train_on_batch([np.array([[3, 9, 3], [4, 0, 0]], np.int32), np.array([3, 1], np.int32)], np.array([1, 2]))
    trained, frozen = (weight.numpy() for weight in (*layer.trainable_weights, *layer.non_trainable_weights))
    assert np.flatnonzero(trained.any(axis=1)).tolist() == [3, 4, 9]
    np.testing.assert_array_equal(frozen, facts)


@pytest.mark.parametrize(("dimensions", "facts", "width"), [(4, True, 41), (4, False, 4), (0, True, 37)])
def test_the_frozen_table_stands_beside_the_trained_one_and_either_may_be_left_out(dimensions, facts, width):
    known = np.full((9, len(LANGUAGES)), 51, np.uint8)
    layer = WordVectors(9, dimensions, known if facts else None)
    vectors = layer(tf.constant([[1, 2, 8]])).numpy()
    assert vectors.shape == (1, 3, width)
    np.testing.assert_allclose(vectors[..., dimensions:], 0.2, rtol=1e-6)
    np.testing.assert_array_equal(vectors[..., :dimensions], 0)
