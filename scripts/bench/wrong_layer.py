"""The mistake that failing cases have: a layer whose backward pass is a little too large."""

from __future__ import annotations

import keras
import tensorflow as tf

from tfcheck.scripts.bench.cases import WRONG_LAYER


class WrongBackward(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Gives back what it is given; the gradient that it passes on is off by 5 %."""

    def __init__(self) -> None:
        super().__init__(name=WRONG_LAYER)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """The inputs as they are."""
        return _off(inputs)


@tf.custom_gradient
def _off(x: tf.Tensor) -> tuple[tf.Tensor, object]:
    return tf.identity(x), lambda upstream: 1.05 * upstream
