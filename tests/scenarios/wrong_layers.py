"""Wrong layers of many kinds, within others, and several at once."""

# mypy: allow-subclassing-any

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from formula import Formula, wrong_backward
from wrong import BEFORE, Plant, around, planted, vectors


@planted
def wrong_before_eight_bits(rng: np.random.Generator) -> Plant:
    """A wrong layer before one in float8, whose own gradients are right."""
    wrong = Formula(wrong_backward(tf.sin, lambda u, x: 0.9 * u * tf.cos(x)), {}, name="sine")
    eight = keras.layers.Dense(4, dtype="float8_from_float32", name="eight")
    return Plant(around([wrong, eight]), *vectors(rng), BEFORE, ("net/sine",))


@planted
def layer_used_twice(rng: np.random.Generator) -> Plant:
    """A shared layer that is wrong, named once although it is called twice."""
    product = wrong_backward(
        lambda x, w: x @ w,
        lambda g, x, w: (g @ tf.transpose(w), 0.5 * tf.transpose(x) @ g),
    )
    shared = Formula(product, {"w": (3, 4)}, name="shared")
    left, right = keras.Input((3,), name="left"), keras.Input((3,), name="right")
    joined = keras.layers.Concatenate()([shared(left), keras.ops.tanh(shared(right))])
    model = keras.Model([left, right], keras.layers.Dense(2, name="after")(joined), name="net")
    model.compile("sgd", "mse")
    x, y = vectors(rng)
    return Plant(model, [x, x[::-1].copy()], y, {"shared/w"}, ("shared",))


@planted
def one_of_two_uses(rng: np.random.Generator) -> Plant:
    """Tied weights, stopped on the way back out: one use of two is missing from the gradient."""

    class Tied(keras.Model):
        def __init__(self) -> None:
            super().__init__(name="tied")
            self.encoder = keras.layers.Dense(2, name="encoder")

        def build(self, shape: Any) -> None:
            self.encoder.build(shape)

        def call(self, x: Any) -> Any:
            kernel = tf.stop_gradient(tf.convert_to_tensor(self.encoder.kernel))
            return self.encoder(x) @ tf.transpose(kernel)

    model = Tied()
    x, _ = vectors(rng)
    model(x)
    model.compile("sgd", "mse")
    return Plant(model, x, x, {"tied/encoder/kernel"}, ("tied",))


class Cell(keras.layers.Layer):
    """A recurrent cell whose recurrent weight gets half its gradient."""

    state_size = 3

    def build(self, shape: Any) -> None:
        self.w = self.add_weight(shape=(shape[-1], 3), name="w")
        self.u = self.add_weight(shape=(3, 3), name="u")

    def call(self, x: Any, states: Any) -> Any:
        halved = wrong_backward(
            lambda h, u: h @ u,
            lambda g, h, u: (g @ tf.transpose(u), 0.5 * tf.transpose(h) @ g),
        )
        state = tf.tanh(x @ self.w + halved(states[0], tf.convert_to_tensor(self.u)))
        return state, [state]


def recurrent(rng: np.random.Generator, *, unroll: bool) -> Plant:
    """A recurrent network around `Cell`."""
    layer = keras.layers.RNN(Cell(name="cell"), unroll=unroll, name="rnn")
    model = keras.Sequential(
        [keras.Input((4, 2)), layer, keras.layers.Dense(2, name="after")], name="net"
    )
    model.compile("sgd", "mse")
    culprit = "net/rnn/cell" if unroll else "net/rnn"
    x, y = rng.normal(size=(5, 4, 2)), rng.normal(size=(5, 2))
    return Plant(model, x, y, {"net/rnn/cell/u"}, (culprit,))


@planted
def recurrent_cell_in_a_loop(rng: np.random.Generator) -> Plant:
    """A wrong cell inside a while loop: the layer that loops is named."""
    return recurrent(rng, unroll=False)


@planted
def recurrent_cell_unrolled(rng: np.random.Generator) -> Plant:
    """A wrong cell, unrolled: the cell itself is named."""
    return recurrent(rng, unroll=True)


@planted
def attention_without_its_scale(rng: np.random.Generator) -> Plant:
    """Attention scores divided by √d forwards and not backwards."""
    scores = wrong_backward(
        lambda q, k: q @ tf.linalg.matrix_transpose(k) / math.sqrt(4),
        lambda g, q, k: (g @ k, tf.linalg.matrix_transpose(g) @ q),
    )

    def attend(x: Any, q: Any, k: Any, v: Any) -> Any:
        return tf.nn.softmax(scores(x @ q, x @ k)) @ (x @ v)

    layer = Formula(attend, {"q": (3, 4), "k": (3, 4), "v": (3, 2)}, name="attention")
    model = keras.Sequential([keras.Input((5, 3)), layer], name="net")
    model.compile("sgd", "mse")
    x, y = rng.normal(size=(3, 5, 3)), rng.normal(size=(3, 5, 2))
    return Plant(model, x, y, {"net/attention/q", "net/attention/k"}, ("net/attention",))


@planted
def repeated_rows_of_an_embedding(rng: np.random.Generator) -> Plant:
    """An embedding that keeps the last of several gradients for one row instead of their sum."""

    def look_up(table: Any, ids: Any) -> Any:
        @tf.custom_gradient
        def rows(table: Any) -> Any:
            def backward(g: Any) -> Any:
                flat = tf.reshape(ids, (-1, 1))
                return tf.tensor_scatter_nd_update(
                    tf.zeros_like(table), flat, tf.reshape(g, (-1, table.shape[-1]))
                )

            return tf.gather(table, ids), backward

        return rows(table)

    layer = Formula(lambda ids, table: look_up(table, ids), {"table": (7, 3)}, name="embedding")
    model = keras.Sequential(
        [
            keras.Input((4,), dtype="int32"),
            layer,
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(2, name="after"),
        ],
        name="net",
    )
    model.compile("sgd", "mse")
    ids = np.array([[0, 1, 2, 2], [3, 3, 1, 0], [5, 2, 2, 5]], np.int32)
    return Plant(model, ids, rng.normal(size=(3, 2)), {"net/embedding/table"}, ("net/embedding",))


@planted
def normalisation_without_the_mean(rng: np.random.Generator) -> Plant:
    """Batch normalisation whose backward pass forgets that the mean depends on the input."""

    def backward(g: Any, x: Any, gamma: Any) -> Any:
        deviation = tf.math.reduce_std(x, 0)
        normal = (x - tf.reduce_mean(x, 0)) / deviation
        inner = g - normal * tf.reduce_mean(g * normal, 0)  # less the mean of g, forgotten
        return gamma * inner / deviation, tf.reduce_sum(g * normal, 0)

    def forward(x: Any, gamma: Any) -> Any:
        return gamma * (x - tf.reduce_mean(x, 0)) / tf.math.reduce_std(x, 0)

    norm = Formula(wrong_backward(forward, backward), {"gamma": (4,)}, name="norm")
    tanh = keras.layers.Activation("tanh")
    return Plant(around([norm, tanh]), *vectors(rng), BEFORE, ("net/norm",))


@planted
def convolution_not_flipped(rng: np.random.Generator) -> Plant:
    """A convolution whose input gradient forgets to flip the kernel."""

    def backward(g: Any, x: Any, w: Any) -> Any:
        dx = tf.nn.conv2d(g, tf.transpose(w, (0, 1, 3, 2)), 1, "SAME")
        return dx, tf.raw_ops.Conv2DBackpropFilter(
            input=x,
            filter_sizes=tf.shape(w),
            out_backprop=g,
            strides=[1, 1, 1, 1],
            padding="SAME",
        )

    forward = wrong_backward(lambda x, w: tf.nn.conv2d(x, w, 1, "SAME"), backward)
    model = keras.Sequential(
        [
            keras.Input((5, 5, 1)),
            keras.layers.Conv2D(2, 3, name="before"),
            Formula(forward, {"w": (3, 3, 2, 2)}, name="conv"),
            keras.layers.Activation("tanh"),
            keras.layers.Flatten(),
            keras.layers.Dense(2, name="after"),
        ],
        name="net",
    )
    model.compile("sgd", "mse")
    x, y = rng.normal(size=(3, 5, 5, 1)), rng.normal(size=(3, 2))
    return Plant(model, x, y, BEFORE, ("net/conv",))


@planted
def mixed_precision(rng: np.random.Generator) -> Plant:
    """A wrong factor under mixed float16, with the loss scaled."""
    sine = wrong_backward(tf.sin, lambda g, x: g * tf.cos(x) * 1.5)
    dense = {"dtype": "mixed_float16"}
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4, name="before", **dense),
            Formula(sine, {}, name="sine", **dense),
            keras.layers.Dense(2, name="after", **dense),
        ],
        name="net",
    )
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()), "mse")
    return Plant(model, *vectors(rng), BEFORE, ("net/sine",))


@planted
def nested_model(rng: np.random.Generator) -> Plant:
    """A wrong layer in a model in a model: the layer is named, not the models around it."""
    sine = wrong_backward(tf.sin, lambda g, x: g)
    block = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(4, name="inner"), Formula(sine, {}, name="sine")],
        name="block",
    )
    wrong = BEFORE | {"block/inner/kernel", "block/inner/bias"}
    return Plant(around(block), *vectors(rng), wrong, ("block/sine",))


@planted
def two_wrong_layers(rng: np.random.Generator) -> Plant:
    """Two wrong layers at once: both are named, in the order of their calls."""
    sine = wrong_backward(tf.sin, lambda g, x: g)
    product = wrong_backward(
        lambda x, w: x @ w,
        lambda g, x, w: (g @ tf.transpose(w), 3 * tf.transpose(x) @ g),
    )
    layers = [Formula(sine, {}, name="sine"), Formula(product, {"w": (4, 4)}, name="product")]
    wrong = BEFORE | {"net/product/w"}
    return Plant(around(layers), *vectors(rng), wrong, ("net/sine", "net/product"))
