"""An optimizer whose step costs what the rows that were looked up cost, however many rows there are."""

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("sluice")
class LazyAdam(keras.optimizers.Adam):
    """Adam (Kingma and Ba, arXiv:1412.6980) that leaves alone the rows of an embedding that a batch did not look up.

    The gradient of a lookup is a `tf.IndexedSlices`: some rows, by index, the same one perhaps more than once. Keras's
    Adam makes it as large as the table, and then moves every row and both its moments, most of them by what earlier
    steps have left. This one sums the gradients of each row, and updates those rows only: parameters and both moments,
    in place. The moments of the other rows do not decay meanwhile; the bias is corrected by the number of all steps.
    Every other gradient is applied as Adam applies it.

    A table must be read by rows: `tf.gather(variable.value, rows)`. Keras's `Embedding` reads it whole, and once rows
    were written in place, TensorFlow makes a copy of the table for each such read.

    There is no clipping by norm, weight decay, moving average or accumulation, for these touch every row.

    Args:
        learning_rate: a number or a schedule.
        beta_1: the decay of the first moment.
        beta_2: the decay of the second moment.
        epsilon: added to the square root of the second moment.
        name: the optimizer's name.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        name: str = "lazy_adam",
    ) -> None:
        super().__init__(learning_rate, beta_1, beta_2, epsilon, name=name)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update a variable and its moments: the rows of an `IndexedSlices` gradient, or all."""
        if not isinstance(gradient, tf.IndexedSlices):
            super().update_step(gradient, variable, learning_rate)
            return
        index = self._get_variable_index(variable)
        moments = self._momentums[index].value, self._velocities[index].value
        self._update_rows(variable, *moments, *_summed(gradient), learning_rate)

    def _update_rows(
        self,
        variable: tf.Variable,
        first: tf.Variable,
        second: tf.Variable,
        rows: tf.Tensor,
        gradient: tf.Tensor,
        learning_rate: Any,
    ) -> None:
        """`rows` are distinct, int [rows]; `gradient` is [rows, ...]."""
        dtype = gradient.dtype
        step = tf.cast(self.iterations.value + 1, dtype)
        unbiased = tf.sqrt(1 - tf.cast(self.beta_2, dtype) ** step) / (1 - tf.cast(self.beta_1, dtype) ** step)
        m, v = tf.gather(first, rows), tf.gather(second, rows)
        m += (gradient - m) * (1 - self.beta_1)
        v += (tf.square(gradient) - v) * (1 - self.beta_2)
        change = tf.cast(learning_rate, dtype) * unbiased * m / (tf.sqrt(v) + self.epsilon)
        first.scatter_update(tf.IndexedSlices(m, rows))
        second.scatter_update(tf.IndexedSlices(v, rows))
        variable.scatter_sub(tf.IndexedSlices(change, rows))

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return {name: config[name] for name in ("learning_rate", "beta_1", "beta_2", "epsilon", "name")}


def _summed(gradient: tf.IndexedSlices) -> tuple[tf.Tensor, tf.Tensor]:
    """Each row once, int [rows], and the sum of its gradients, [rows, ...]."""
    rows, positions = tf.unique(gradient.indices)
    return rows, tf.math.unsorted_segment_sum(gradient.values, positions, tf.size(rows))
