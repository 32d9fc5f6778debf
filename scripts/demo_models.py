"""What `tfcheck demo` trains: a reader of handwritten digits, right and with a planted bug."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

CULPRIT = "swish"


@tf.custom_gradient
def swish(x: tf.Tensor, beta: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
    """x·σ(βx), with both of its derivatives."""
    gate = tf.sigmoid(beta * x)

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        slope = gate * (1 - gate)
        for_x = upstream * (gate + beta * x * slope)
        for_beta = upstream * x * x * slope
        return for_x, tf.reduce_sum(for_beta, axis=0)

    return x * gate, gradient


@tf.custom_gradient
def forgetful_swish(x: tf.Tensor, beta: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
    """The same function; its backward pass forgets a factor of the sigmoid's derivative."""
    gate = tf.sigmoid(beta * x)

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        slope = gate  # the bug: σ′ is σ·(1 − σ)
        for_x = upstream * (gate + beta * x * slope)
        for_beta = upstream * x * x * slope
        return for_x, tf.reduce_sum(for_beta, axis=0)

    return x * gate, gradient


class Swish(keras.layers.Layer):  # type: ignore[misc]
    """Swish with a learned steepness β for each unit, and a backward pass written by hand."""

    def __init__(self, formula: Callable[..., tf.Tensor], **options: Any) -> None:
        super().__init__(**options)
        self.formula = formula

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make β."""
        self.beta = self.add_weight(name="beta", shape=(input_shape[-1],), initializer="ones")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Apply the formula."""
        return self.formula(inputs, tf.convert_to_tensor(self.beta))


def digit_reader(formula: Callable[..., tf.Tensor]) -> keras.Model:
    """A compiled reader of 8×8 digits, the same weights each time."""
    keras.utils.set_random_seed(7)
    inputs = keras.Input((64,))
    hidden = keras.layers.Dense(32, name="hidden")(inputs)
    logits = keras.layers.Dense(10, name="logits")(Swish(formula, name=CULPRIT)(hidden))
    model = keras.Model(inputs, logits, name="digit_reader")
    model.compile(
        optimizer=keras.optimizers.Adam(5e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model
