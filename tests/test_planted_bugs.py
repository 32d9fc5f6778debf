"""Wrong gradients, planted one at a time: each must be found where it is and nowhere else."""

# mypy: allow-subclassing-any

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcheck import GradientReport, Thresholds, Verdict, check_gradients

Call = Callable[..., Any]


@dataclass(frozen=True)
class Plant:
    """A model with one wrong gradient, a batch, and what a check must say of them.

    Attributes:
        model: a built and compiled model.
        x: inputs of the batch.
        y: targets of the batch.
        wrong: paths of exactly the variables whose gradient is wrong.
        culprits: what the report must name.
        reason: the reason with which every wrong variable fails.
        options: options of the check.
    """

    model: keras.Model
    x: Any
    y: Any
    wrong: set[str]
    culprits: tuple[str, ...]
    reason: str = ""
    options: dict[str, Any] = field(default_factory=dict)


PLANTED: dict[str, Callable[[np.random.Generator], Plant]] = {}


def planted(build: Callable[[np.random.Generator], Plant]) -> Callable[..., Plant]:
    """Enter a builder of a wrong model in the table, under its name."""
    PLANTED[build.__name__.replace("_", " ")] = build
    return build


class Formula(keras.layers.Layer):
    """A layer that computes `formula(x, *weights)`, of which one gradient may be wrong.

    Args:
        formula: the function.
        weights: shape of each weight by its name; `{"w": (4, 3)}` makes `layer.w`.
    """

    def __init__(self, formula: Call, weights: dict[str, tuple[int, ...]], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.formula = formula
        self.shapes = dict(weights)
        self.parts: list[Any] = []

    def build(self, _shape: Any) -> None:
        for name, shape in self.shapes.items():
            self.parts.append(
                self.add_weight(
                    shape=shape, name=name, initializer=keras.initializers.RandomNormal(stddev=0.6)
                )
            )

    def call(self, x: Any) -> Any:
        return self.formula(x, *(tf.convert_to_tensor(part) for part in self.parts))


def wrong_backward(forward: Call, backward: Call) -> Call:
    """A function with a gradient of its own: `backward(upstream, *arguments)`."""

    @tf.custom_gradient
    def function(*arguments: Any) -> Any:
        return forward(*arguments), lambda upstream: backward(upstream, *arguments)

    return function


def around(
    middle: keras.layers.Layer | list[keras.layers.Layer],
    *,
    width: int = 4,
    **dense: Any,
) -> keras.Model:
    """A network `net` with a layer between the dense layers `before` and `after`."""
    layers = middle if isinstance(middle, list) else [middle]
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(width, name="before", **dense),
            *layers,
            keras.layers.Dense(2, name="after"),
        ],
        name="net",
    )
    model.compile("sgd", "mse")
    return model


def vectors(rng: np.random.Generator, count: int = 6) -> tuple[Any, Any]:
    """Inputs and targets for `around`."""
    return rng.normal(size=(count, 3)), rng.normal(size=(count, 2))


BEFORE = {"net/before/kernel", "net/before/bias"}


# -- formulas --------------------------------------------------------------------------------


@planted
def missing_term(rng: np.random.Generator) -> Plant:
    """d(x·σ(x)) without the term x·σ'(x)."""
    swish = wrong_backward(lambda x: x * tf.sigmoid(x), lambda g, x: g * tf.sigmoid(x))
    return Plant(around(Formula(swish, {}, name="swish")), *vectors(rng), BEFORE, ("net/swish",))


@planted
def missing_upstream(rng: np.random.Generator) -> Plant:
    """The chain rule's upstream factor forgotten for the input, kept for the weight."""
    scaled = wrong_backward(
        lambda x, w: x * w,
        lambda g, x, w: (w + tf.zeros_like(g), tf.reduce_sum(g * x, 0)),
    )
    layer = Formula(scaled, {"w": (4,)}, name="scale")
    return Plant(around(layer), *vectors(rng), BEFORE, ("net/scale",))


@planted
def transposed_weight(rng: np.random.Generator) -> Plant:
    """The input's gradient multiplied by W instead of its transpose."""
    product = wrong_backward(
        lambda x, w: x @ w,
        lambda g, x, w: (g @ w, tf.transpose(x) @ g),
    )
    layer = Formula(product, {"w": (4, 4)}, name="product")
    return Plant(around(layer), *vectors(rng), BEFORE, ("net/product",))


@planted
def forgotten_sum_over_the_batch(rng: np.random.Generator) -> Plant:
    """A bias whose gradient is that of the first sample alone; its kernel is right."""
    affine = wrong_backward(
        lambda x, w, b: x @ w + b,
        lambda g, x, w, b: (g @ tf.transpose(w), tf.transpose(x) @ g, g[0]),
    )
    layer = Formula(affine, {"w": (4, 5), "b": (5,)}, name="affine")
    return Plant(around(layer), *vectors(rng), {"net/affine/b"}, ("net/affine",))


@planted
def factor_two(rng: np.random.Generator) -> Plant:
    """A weight's gradient twice as large as it should be."""
    product = wrong_backward(
        lambda x, w: x @ w,
        lambda g, x, w: (g @ tf.transpose(w), 2 * tf.transpose(x) @ g),
    )
    layer = Formula(product, {"w": (4, 3)}, name="product")
    return Plant(around(layer), *vectors(rng), {"net/product/w"}, ("net/product",))


@planted
def wrong_sign(rng: np.random.Generator) -> Plant:
    """A gradient that points the other way."""
    sine = wrong_backward(tf.cos, lambda g, x: g * tf.sin(x))
    return Plant(around(Formula(sine, {}, name="cosine")), *vectors(rng), BEFORE, ("net/cosine",))


@planted
def small_factor(rng: np.random.Generator) -> Plant:
    """A gradient one percent too large."""
    sine = wrong_backward(tf.sin, lambda g, x: 1.01 * g * tf.cos(x))
    return Plant(around(Formula(sine, {}, name="sine")), *vectors(rng), BEFORE, ("net/sine",))


@planted
def wrong_for_negative_inputs(rng: np.random.Generator) -> Plant:
    """A leaky rectifier whose gradient is that of a plain one."""
    leaky = wrong_backward(
        lambda x: tf.where(x > 0, x, 0.2 * x), lambda g, x: tf.where(x > 0, g, 0.0)
    )
    return Plant(around(Formula(leaky, {}, name="leaky")), *vectors(rng), BEFORE, ("net/leaky",))


@planted
def wrong_at_exact_zeros(rng: np.random.Generator) -> Plant:
    """An identity whose gradient vanishes at zero, met with padded samples and a zero bias."""
    identity = wrong_backward(lambda x: x + 0.0, lambda g, x: tf.where(x == 0, 0.0, g))
    x, y = vectors(rng)
    x[2:4] = 0.0
    model = around(Formula(identity, {}, name="identity"))
    return Plant(model, x, y, {"net/before/bias"}, ("net/identity",))


@planted
def single_entry_of_a_large_kernel(rng: np.random.Generator) -> Plant:
    """One of 12,000 entries wrong."""

    def backward(g: Any, x: Any, w: Any) -> Any:
        right = tf.transpose(x) @ g
        wrong = tf.tensor_scatter_nd_add(right, [[77, 31]], [1.0 + right[77, 31]])
        return g @ tf.transpose(w), wrong

    layer = Formula(wrong_backward(tf.matmul, backward), {"w": (120, 100)}, name="product")
    model = around(layer, width=120)
    return Plant(model, *vectors(rng), {"net/product/w"}, ("net/product",))


# -- blocked ---------------------------------------------------------------------------------


@planted
def stopped_weight(rng: np.random.Generator) -> Plant:
    """A weight behind a stop_gradient."""
    layer = Formula(lambda x, w: x @ tf.stop_gradient(w), {"w": (4, 3)}, name="stopped")
    return Plant(around(layer), *vectors(rng), {"net/stopped/w"}, ("net/stopped",), "blocked")


@planted
def rounded(rng: np.random.Generator) -> Plant:
    """Activations rounded to whole numbers."""
    layer = Formula(lambda x: tf.round(4 * x), {}, name="rounded")
    return Plant(around(layer), *vectors(rng), BEFORE, ("net/rounded",), "blocked")


@planted
def argmax(rng: np.random.Generator) -> Plant:
    """A hard choice where a soft one was meant."""
    layer = Formula(lambda x: tf.one_hot(tf.argmax(x, axis=1), 4), {}, name="choice")
    x, y = vectors(rng)
    return Plant(around(layer), 0.1 * x, y, BEFORE, ("net/choice",), "blocked")


@planted
def cast_to_integers(rng: np.random.Generator) -> Plant:
    """Activations cast to integers and back."""
    layer = Formula(lambda x: tf.cast(tf.cast(9 * x, tf.int32), x.dtype), {}, name="quantised")
    return Plant(around(layer), *vectors(rng), BEFORE, ("net/quantised",), "blocked")


@planted
def numpy_detour(rng: np.random.Generator) -> Plant:
    """A function computed by NumPy, which no tape follows."""

    def detour(x: Any) -> Any:
        return tf.ensure_shape(tf.numpy_function(np.tanh, [x], x.dtype), x.shape)

    layer = Formula(detour, {}, name="detour")
    return Plant(around(layer), *vectors(rng), BEFORE, ("net/detour",), "blocked")


@planted
def half_blocked(rng: np.random.Generator) -> Plant:
    """A product of two paths, one of which is stopped: no gradient is missing, one is halved."""
    layer = Formula(lambda x: x * tf.stop_gradient(x), {}, name="square")
    return Plant(around(layer), *vectors(rng), BEFORE, ("net/square",))


@planted
def straight_through(rng: np.random.Generator) -> Plant:
    """A straight-through estimator that nobody declared."""
    layer = Formula(lambda x: x + tf.stop_gradient(tf.round(4 * x) / 4 - x), {}, name="straight")
    return Plant(around(layer), *vectors(rng), BEFORE, ("net/straight",))


@planted
def not_a_number(rng: np.random.Generator) -> Plant:
    """sin(x)/x with its hole at zero filled by tf.where: only the gradient there is NaN."""
    layer = Formula(lambda x: tf.where(x == 0, 1.0, tf.sin(x) / x), {}, name="sinc")
    x, y = vectors(rng)
    x[2:4] = 0.0
    return Plant(around(layer), x, y, BEFORE, ("net/sinc",), "non_finite")


# -- the loss and the step -------------------------------------------------------------------


@planted
def wrong_loss(rng: np.random.Generator) -> Plant:
    """A custom loss that forgot its factor two."""
    squared = wrong_backward(lambda e: tf.reduce_mean(e**2, -1), lambda g, e: g[:, None] * e / 2)
    model = around(keras.layers.Activation("tanh", name="tanh"))
    model.compile("sgd", lambda y, y_pred: squared(y_pred - tf.cast(y, y_pred.dtype)))
    everything = BEFORE | {"net/after/kernel", "net/after/bias"}
    return Plant(model, *vectors(rng), everything, ("loss",))


@planted
def wrong_regulariser(rng: np.random.Generator) -> Plant:
    """A weight penalty whose gradient has the wrong factor: it belongs to the layer it is for."""
    penalty = wrong_backward(lambda w: 0.1 * tf.reduce_sum(w**2), lambda g, w: g * 0.1 * w)
    layer = keras.layers.Dense(4, kernel_regularizer=lambda w: penalty(tf.convert_to_tensor(w)))
    layer.name = "penalised"
    return Plant(around(layer), *vectors(rng), {"net/penalised/kernel"}, ("net/penalised",))


@planted
def shuffled_predictions(rng: np.random.Generator) -> Plant:
    """A term with the predictions shuffled, through which TensorFlow has no gradient."""
    model = around(keras.layers.Activation("tanh", name="tanh"))
    model.compile(
        "sgd",
        lambda y, p: tf.reduce_mean((p - y) ** 2) + 0.1 * tf.reduce_mean(p * tf.random.shuffle(p)),
    )
    everything = BEFORE | {"net/after/kernel", "net/after/bias"}
    return Plant(model, *vectors(rng), everything, ("loss",))


class OwnStep(keras.Sequential):
    """A model with a train_step that adds a weight penalty of its own, with a wrong gradient."""

    def train_step(self, batch: Any) -> Any:
        x, y = batch
        penalty = wrong_backward(lambda w: tf.reduce_sum(w**2), lambda g, w: g * w)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self(x, training=True) - y) ** 2)
            loss += 0.1 * penalty(tf.convert_to_tensor(self.layers[0].kernel))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        return {"loss": loss}


@planted
def wrong_step(rng: np.random.Generator) -> Plant:
    """A train_step with a penalty of its own whose gradient is wrong."""
    model = OwnStep(
        [keras.Input((3,)), keras.layers.Dense(4, name="before"), keras.layers.Dense(2, name="b")],
        name="net",
    )
    model.compile("sgd")
    return Plant(model, *vectors(rng), {"net/before/kernel"}, ("train_step",))


class Handing(keras.Sequential):
    """A model whose train_step changes the gradients on their way to the optimizer."""

    change: Call

    def train_step(self, batch: Any) -> Any:
        x, y = batch
        with tf.GradientTape() as tape:
            loss = self.compute_loss(y=y, y_pred=self(x, training=True))
        gradients = self.change(tape.gradient(loss, self.trainable_variables))
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return {"loss": loss}


def handing(change: Call) -> keras.Model:
    """A `Handing` model of two layers with equal shapes."""
    model = Handing(
        [
            keras.Input((3,)),
            keras.layers.Dense(3, activation="tanh", name="one"),
            keras.layers.Dense(3, name="two"),
        ],
        name="net",
    )
    model.change = change
    model.compile("sgd", "mse")
    return model


@planted
def swapped_on_the_way(rng: np.random.Generator) -> Plant:
    """Two kernels' gradients, right on the tape, handed over in the wrong order."""
    model = handing(lambda g: [g[2], g[1], g[0], g[3]])
    x, y = rng.normal(size=(6, 3)), rng.normal(size=(6, 3))
    return Plant(model, x, y, {"net/one/kernel", "net/two/kernel"}, ("train_step",), "misapplied")


@planted
def negated_on_the_way(rng: np.random.Generator) -> Plant:
    """A gradient handed to the optimizer with the opposite sign."""
    model = handing(lambda g: [g[0], g[1], g[2], -g[3]])
    x, y = rng.normal(size=(6, 3)), rng.normal(size=(6, 3))
    return Plant(model, x, y, {"net/two/bias"}, ("train_step",), "misapplied")


# -- layers of many kinds --------------------------------------------------------------------


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


@planted
def every_entry_perturbed(rng: np.random.Generator) -> Plant:
    """The classical recipe, ε = 1e-7 at every entry, finds a forgotten factor, too."""
    product = wrong_backward(
        lambda x, w: x @ w,
        lambda g, x, w: (g @ tf.transpose(w), 1.1 * tf.transpose(x) @ g),
    )
    layer = Formula(product, {"w": (4, 3)}, name="product")
    options = {"method": "full", "epsilon": 1e-7}
    return Plant(around(layer), *vectors(rng), {"net/product/w"}, ("net/product",), options=options)


@planted
def one_wrong_among_many_variables(rng: np.random.Generator) -> Plant:
    """With more than 32 variables, which are screened jointly, the wrong one still stands out."""
    scaled = wrong_backward(
        lambda x, w: x * w, lambda g, x, w: (g * w, 1.05 * tf.reduce_sum(g * x, 0))
    )

    def mixture(x: Any, *weights: Any) -> Any:
        terms = [tf.sin(scaled(x, w) if i == 17 else x * w) for i, w in enumerate(weights)]
        return tf.add_n(terms)

    layer = Formula(mixture, {f"w{i}": (4,) for i in range(33)}, name="mixture")
    wrong, culprits = {"net/mixture/w17"}, ("net/mixture",)
    return Plant(around(layer), *vectors(rng), wrong, culprits, options={"directions": 2})


# -- the checks ------------------------------------------------------------------------------

FIGURES = {"planted": 0, "found": 0, "named": 0}


@pytest.fixture(scope="module", autouse=True)
def figures(request: pytest.FixtureRequest) -> Iterator[None]:
    """At the end, say in one line how many planted bugs were found and named."""
    yield
    capture = request.config.pluginmanager.get_plugin("capturemanager")
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    if capture is None or reporter is None:
        return
    with capture.global_and_fixture_disabled():
        reporter.write_line(
            f"\nplanted gradient bugs: {FIGURES['found']} of {FIGURES['planted']} found, "
            f"{FIGURES['named']} named"
        )


def examine(build: Callable[[np.random.Generator], Plant]) -> tuple[Plant, GradientReport]:
    """Plant a bug and check."""
    keras.utils.set_random_seed(11)
    plant = build(np.random.default_rng(5))
    return plant, check_gradients(plant.model, plant.x, plant.y, **plant.options)


@pytest.mark.parametrize("name", PLANTED)
def test_planted(name: str) -> None:
    """A wrong gradient fails in exactly the variables it reaches, and its layer is named."""
    FIGURES["planted"] += 1
    plant, report = examine(PLANTED[name])
    failing = {v.path for v in report.variables if v.verdict is not Verdict.PASS}
    found = failing == plant.wrong
    FIGURES["found"] += found
    FIGURES["named"] += found and report.culprits == plant.culprits
    assert failing == plant.wrong, str(report)
    assert report.verdict is Verdict.FAIL
    assert report.culprits == plant.culprits, str(report)
    for variable in report.variables:
        if variable.path in plant.wrong:
            assert variable.verdict is Verdict.FAIL, str(report)
            assert variable.reason == plant.reason, str(report)
            if variable.reason == "" and "on the way" not in name:
                assert variable.score - variable.error_bar >= Thresholds().concerning


@pytest.mark.parametrize(
    "change",
    [
        lambda g: [tf.clip_by_value(x, -0.01, 0.01) for x in g],
        lambda g: [tf.clip_by_norm(x, 0.1) for x in g],
        lambda g: tf.clip_by_global_norm(g, 0.1)[0],
        lambda g: g,
    ],
    ids=["clipped", "normed", "normed together", "as they are"],
)
def test_a_choice_of_the_step_is_no_bug(change: Call) -> None:
    """Clipping gradients on their way to the optimizer is a choice, and passes."""
    keras.utils.set_random_seed(11)
    rng = np.random.default_rng(5)
    report = check_gradients(handing(change), rng.normal(size=(6, 3)), rng.normal(size=(6, 3)))
    assert report.verdict is Verdict.PASS, str(report)
    assert report.culprits == ()
