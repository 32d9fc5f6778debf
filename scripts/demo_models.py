"""Readers of handwritten digits, right and with a planted bug: what `tfcheck demo` trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

CULPRIT = "swish"
LEARNING_RATE = 5e-3


@tf.custom_gradient
def swish(x: tf.Tensor, beta: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
    """x·σ(βx), with both of its derivatives."""
    gate = tf.sigmoid(beta * x)

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        slope = gate * (1 - gate)
        for_x = upstream * (gate + beta * x * slope)
        return for_x, summed_for(beta, upstream * x * x * slope)

    return x * gate, gradient


@tf.custom_gradient
def forgetful_swish(x: tf.Tensor, beta: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
    """The same function; its backward pass forgets a factor of the sigmoid's derivative."""
    gate = tf.sigmoid(beta * x)

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        slope = gate  # the bug: σ′ is σ·(1 − σ)
        for_x = upstream * (gate + beta * x * slope)
        return for_x, summed_for(beta, upstream * x * x * slope)

    return x * gate, gradient


def summed_for(beta: tf.Tensor, gradients: tf.Tensor) -> tf.Tensor:
    """The gradient of β, from one for each of its uses."""
    return tf.reduce_sum(gradients, axis=list(range(gradients.shape.rank - beta.shape.rank)))


class Swish(keras.layers.Layer):  # type: ignore[misc]
    """Swish with a learned steepness β, and a backward pass written by hand.

    Args:
        formula: the function, with its gradient.
        shared: whether all units share one β. Defaults to False, for one each.
    """

    def __init__(
        self, formula: Callable[..., tf.Tensor], *, shared: bool = False, **options: Any
    ) -> None:
        super().__init__(**options)
        self.formula = formula
        self.shared = shared

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make β."""
        shape = () if self.shared else input_shape[-1:]
        self.beta = self.add_weight(name="beta", shape=shape, initializer="ones")

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
    compile_reader(model, keras.optimizers.Adam(LEARNING_RATE))
    return model


def compile_reader(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
    """Compile a reader of digits."""
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )


def digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's handwritten digits: 64 pixels from 0 to 1 each, and labels."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return (images / 16).astype("float32"), labels
