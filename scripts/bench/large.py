"""Large networks in Keras: transformers, those of `keras.applications`, and grouped convolutions.

Each is also there with one layer in the middle whose backward pass is wrong.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import layers

from tfcheck.scripts.bench.arrays import CLASSES, Arrays
from tfcheck.scripts.bench.wrong_layer import WrongBackward


class Block(layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Attention and an MLP, each on what is normalised before it, and added to what it is given.

    Args:
        width: features of each token.
        heads: of the attention.
        causal: whether a token sees only those before it.
    """

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.before_attention = layers.LayerNormalization()
        self.attention = layers.MultiHeadAttention(heads, width // heads)
        self.before_mlp = layers.LayerNormalization()
        self.up = layers.Dense(4 * width, activation="gelu")
        self.down = layers.Dense(width)

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Build the layers in it, so that the block can be saved with all its weights."""
        self.before_attention.build(shape)
        self.attention.build(shape, shape)
        self.before_mlp.build(shape)
        self.up.build(shape)
        self.down.build(self.up.compute_output_shape(shape))
        self.built = True

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Tokens' features in, and out in the same shape."""
        normal = self.before_attention(x)
        x = x + self.attention(normal, normal, use_causal_mask=self.causal)
        return x + self.down(self.up(self.before_mlp(x)))


def language(numbers: Arrays, sizes: dict[str, Any]) -> keras.Model:
    """A transformer that gives scores of all tokens at each place; see `networks.language`."""
    inputs = keras.Input(numbers.x.shape[1:], dtype="int32")
    x = layers.Embedding(sizes["vocabulary"], sizes["width"])(inputs)
    for number in range(sizes["blocks"]):
        x = Block(sizes["width"], sizes["heads"], causal=sizes["causal"])(x)
        if sizes["wrong"] and number == sizes["blocks"] // 2:
            x = WrongBackward()(x)
    x = layers.LayerNormalization()(x)
    return keras.Model(inputs, layers.Dense(sizes["vocabulary"])(x))


def application(numbers: Arrays, sizes: dict[str, Any]) -> keras.Model:
    """A network of `keras.applications`; see `cases.application`."""
    network: keras.Model = getattr(keras.applications, sizes["name"])(
        weights=None,
        input_shape=numbers.x.shape[1:],
        classes=CLASSES,
        classifier_activation=None,
    )
    if not sizes["wrong_after"]:
        return network
    middle = network.get_layer(sizes["wrong_after"]).output
    head, tail = keras.Model(network.input, middle), keras.Model(middle, network.output)
    inputs = keras.Input(numbers.x.shape[1:])
    return keras.Model(inputs, tail(WrongBackward()(head(inputs))))


def grouped(numbers: Arrays, sizes: dict[str, Any]) -> keras.Model:
    """MobileNet's blocks with `Conv2D(groups=…)`, which Keras compiles with XLA, in their place."""
    x = inputs = keras.Input(numbers.x.shape[1:])
    x = _normal(layers.Conv2D(32, 3, strides=2, padding="same", use_bias=False)(x))
    for filters, strides in sizes["blocks"]:
        width = x.shape[-1]
        groups = width // sizes["group"]
        within = layers.Conv2D(
            width, 3, strides=strides, padding="same", groups=groups, use_bias=False
        )
        x = _normal(within(x))
        x = _normal(layers.Conv2D(filters, 1, use_bias=False)(x))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(CLASSES)(x))


def _normal(x: Any) -> Any:
    return layers.ReLU()(layers.BatchNormalization()(x))
