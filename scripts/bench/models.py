"""The models in Keras, compiled, and the loss of their twins in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from tfcheck.scripts.bench import arrays, large
from tfcheck.scripts.bench.wrong_layer import WrongBackward


@dataclass(frozen=True)
class Built:
    """A compiled model and a batch for it."""

    model: keras.Model
    x: Any
    y: Any

    @property
    def parameters(self) -> int:
        """How many numbers are trained."""
        return sum(int(np.prod(v.shape)) for v in self.model.trainable_variables)


def build(model: str, sizes: dict[str, Any]) -> Built:
    """A model with its batch, in the float type that Keras is set to.

    Args:
        model: its name; see `cases.Case`.
        sizes: the arguments of the functions of that name.
    """
    keras.utils.set_random_seed(0)
    numbers: arrays.Arrays = getattr(arrays, model)(**sizes)
    network: keras.Model = MODELS[model](numbers, sizes)
    if numbers.weights is not None:
        network.set_weights(numbers.weights)
    network.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    floats = np.issubdtype(numbers.x.dtype, np.floating)
    x = tf.constant(numbers.x, keras.config.floatx() if floats else None)
    return Built(network, x, tf.constant(numbers.y))


@contextmanager
def float64() -> Iterator[None]:
    """What Keras builds and traces in here is float64."""
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        yield
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)


def loss_of(built: Built) -> Callable[[], tf.Tensor]:
    """The loss of the batch as a plain function, to be called as it is or as a `tf.function`."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return lambda: loss(built.y, built.model(built.x, training=True))


def _mlp(numbers: arrays.Arrays, sizes: dict[str, Any]) -> keras.Model:
    *hidden, classes = sizes["widths"][1:]
    return keras.Sequential(
        [
            keras.Input(numbers.x.shape[1:]),
            *(layers.Dense(width, activation="tanh") for width in hidden),
            layers.Dense(classes),
        ]
    )


def _cnn(numbers: arrays.Arrays, sizes: dict[str, Any]) -> keras.Model:
    first, second = sizes["filters"]
    return keras.Sequential(
        [
            keras.Input(numbers.x.shape[1:]),
            layers.Conv2D(first, 3, activation="tanh"),
            layers.MaxPooling2D(2),
            layers.Conv2D(second, 3, activation="tanh"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(sizes["hidden"], activation="tanh"),
            layers.Dense(arrays.CLASSES),
        ]
    )


def _residual(numbers: arrays.Arrays, sizes: dict[str, Any]) -> keras.Model:
    x = inputs = keras.Input(numbers.x.shape[1:])
    for number in range(sizes["layers"]):
        x = x + layers.Dense(sizes["width"], activation="tanh")(x)
        if sizes["wrong"] and number == sizes["layers"] // 2:
            x = WrongBackward()(x)
    x = layers.LayerNormalization()(x)
    return keras.Model(inputs, layers.Dense(arrays.CLASSES)(x))


def _transformer(numbers: arrays.Arrays, sizes: dict[str, Any]) -> keras.Model:
    width = 64
    inputs = keras.Input(numbers.x.shape[1:], dtype="int32")
    x = layers.Embedding(arrays.TOKENS, width)(inputs)
    for _ in range(sizes["blocks"]):
        attended = layers.MultiHeadAttention(4, width // 4)(x, x)
        x = layers.LayerNormalization()(x + attended)
        inner = layers.Dense(2 * width, activation="gelu")(x)
        x = layers.LayerNormalization()(x + layers.Dense(width)(inner))
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(arrays.CLASSES)(x))


MODELS: dict[str, Callable[[arrays.Arrays, dict[str, Any]], keras.Model]] = {
    "mlp": _mlp,
    "cnn": _cnn,
    "residual": _residual,
    "transformer": _transformer,
    "language": large.language,
    "application": large.application,
    "grouped": large.grouped,
}
