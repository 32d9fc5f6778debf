"""Readers of handwritten digits for the example store, right and with bugs that people make."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfcheck.scripts.demo_models import LEARNING_RATE, compile_reader, summed_for

DEPTH = 60
WRONG_LAYER = 31
SMALL_LOSS = 2.0**-24  # a float16 below 6e-8 is 0, so its gradients are


@tf.custom_gradient
def wrong_swish(x: tf.Tensor, beta: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
    """`swish`; its derivative by x forgets the product rule's second term."""
    gate = tf.sigmoid(beta * x)

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return upstream * gate, summed_for(beta, upstream * x * x * gate * (1 - gate))

    return x * gate, gradient


class ChannelGate(keras.layers.Layer):  # type: ignore[misc]
    """Squeeze and excite: every channel is weighted by what all of them say.

    Args:
        detached: plant the bug: the weights were detached from the graph to plot them, and the
            detached ones went on into the model. The gate never learns.
    """

    def __init__(self, detached: bool, **options: Any) -> None:
        super().__init__(**options)
        self.detached = detached

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the weights that turn channel averages into channel weights."""
        channels = input_shape[-1]
        self.kernel = self.add_weight(name="kernel", shape=(channels, channels))
        self.bias = self.add_weight(name="bias", shape=(channels,), initializer="zeros")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Weight the channels."""
        squeezed = tf.reduce_mean(inputs, axis=(1, 2))
        weights = tf.sigmoid(tf.matmul(squeezed, self.kernel) + self.bias)
        if self.detached:
            weights = tf.stop_gradient(weights)
        return inputs * weights[:, None, None, :]


@tf.custom_gradient
def wrong_clamp(x: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
    """Values kept within ±6, with a backward pass that does not know the limits."""
    return tf.clip_by_value(x, -6.0, 6.0), lambda upstream: upstream


class Clamp(keras.layers.Layer):  # type: ignore[misc]
    """Right as long as no value reaches a limit, as at the start of training."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Apply the formula."""
        return wrong_clamp(inputs)


def network(
    *middle: keras.layers.Layer,
    end: keras.layers.Layer | None = None,
    dtype: str = "float32",
) -> keras.Model:
    """A convolutional reader of 8×8 digits.

    Args:
        middle: the layers after the convolution.
        end: a layer after the logits.
        dtype: what the layers compute in. Defaults to float32, which logits always have.
    """
    layers = keras.layers
    stack = [
        keras.Input((8, 8, 1)),
        layers.Conv2D(8, 3, name="conv", dtype=dtype),
        *middle,
        layers.Flatten(name="flatten", dtype=dtype),
        layers.Dense(24, activation="tanh", name="hidden", dtype=dtype),
        # float32 also under mixed precision, as Keras recommends for the output.
        layers.Dense(10, name="logits", dtype="float32"),
    ]
    return keras.Sequential(stack if end is None else [*stack, end], name="reader")


def healthy(dtype: str = "float32") -> keras.Model:
    """Only layers that come with Keras."""
    policy = {"dtype": dtype}
    norm = keras.layers.LayerNormalization(name="norm", **policy)
    return network(norm, keras.layers.Activation("tanh", **policy), dtype=dtype)


def ready(model: keras.Model) -> keras.Model:
    """The reader, compiled."""
    compile_reader(model, keras.optimizers.Adam(LEARNING_RATE))
    return model


def small_loss_in_float16() -> keras.Model:
    """The healthy network in float16, with a loss whose gradients are too small for it.

    The loss is weighted so little that it fits beside others, and nothing scales it.
    """
    model = healthy("mixed_float16")
    model.compile(
        optimizer=keras.optimizers.Adam(LEARNING_RATE),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        loss_weights=SMALL_LOSS,
        metrics=["accuracy"],
        auto_scale_loss=False,
    )
    return model


@tf.custom_gradient
def wrong_tanh(x: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
    """The hyperbolic tangent; its derivative forgets a square: it is 1 − tanh²."""
    y = tf.tanh(x)
    return y, lambda upstream: upstream * (1 - y)


def deep() -> keras.Model:
    """A reader of sixty layers and the logits; one in the middle is wrong."""
    layers = keras.layers
    hidden = [
        layers.Dense(
            24,
            activation=wrong_tanh if number == WRONG_LAYER else "tanh",
            kernel_initializer="orthogonal",
            name=f"hidden_{number:02d}",
        )
        for number in range(1, DEPTH + 1)
    ]
    stack = [keras.Input((8, 8, 1)), layers.Flatten(name="flatten"), *hidden]
    return keras.Sequential([*stack, layers.Dense(10, name="logits")], name="deep_reader")
