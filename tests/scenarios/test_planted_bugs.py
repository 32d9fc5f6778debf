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
from fingerprint import nothing_changes

from tfcheck import GradientReport, Thresholds, Verdict, check_gradients
from tfcheck.judge.reasons import OF_THE_STEP

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
        sample_weight: weights of the batch's samples.
        verdict: what the report and every wrong variable come to.
    """

    model: keras.Model
    x: Any
    y: Any
    wrong: set[str]
    culprits: tuple[str, ...]
    reason: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    sample_weight: Any = None
    verdict: Verdict = Verdict.FAIL


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


@planted
def recomputed_with_other_random_numbers(rng: np.random.Generator) -> Plant:
    """A block that is computed again for the backward pass, with its noise drawn anew."""

    def noisy(x: Any) -> Any:
        return x**2 * tf.random.uniform(tf.shape(x), dtype=x.dtype)

    layer = Formula(tf.recompute_grad(noisy), {}, name="noisy")
    return Plant(around(layer), *vectors(rng), BEFORE, ("net/noisy",))


@planted
def duplicates_in_a_scattered_update(rng: np.random.Generator) -> Plant:
    """Of several updates to one row the last one wins, but all of them get its gradient."""

    def scatter(x: Any) -> Any:
        columns = tf.transpose(x)
        return tf.transpose(
            tf.tensor_scatter_nd_update(1.5 * columns, [[0], [2], [0]], columns[:3] ** 2)
        )

    layer = Formula(scatter, {}, name="scatter")
    return Plant(around(layer), *vectors(rng), BEFORE, ("net/scatter",))


class Forgetful(keras.layers.Layer):
    """A scale whose hand-written gradient returns zeros for the variable it reads."""

    def build(self, shape: Any) -> None:
        self.w = self.add_weight(shape=(shape[-1],), initializer="ones", name="w")

    def call(self, x: Any) -> Any:
        @tf.custom_gradient
        def scaled(x: Any) -> Any:
            w = tf.convert_to_tensor(self.w.value)

            def backward(g: Any, variables: Any = ()) -> Any:
                return g * w, [tf.zeros_like(variable) for variable in variables]

            return x * w, backward

        return scaled(x)


@planted
def variable_forgotten_by_a_custom_gradient(rng: np.random.Generator) -> Plant:
    """A custom_gradient that is asked for its variables' gradients and returns zeros."""
    model = around(Forgetful(name="scale"))
    return Plant(model, *vectors(rng), {"net/scale/w"}, ("net/scale",))


@planted
def reversed_gradient(rng: np.random.Generator) -> Plant:
    """The gradient reversal of domain-adversarial training, which nobody declared."""
    reverse = wrong_backward(tf.identity, lambda g, x: -g)
    return Plant(
        around(Formula(reverse, {}, name="reversal")), *vectors(rng), BEFORE, ("net/reversal",)
    )


@planted
def mean_instead_of_sum_over_a_broadcast(rng: np.random.Generator) -> Plant:
    """A broadcast weight whose gradient is averaged over the batch instead of summed."""
    scaled = wrong_backward(lambda x, w: x * w, lambda g, x, w: (g * w, tf.reduce_mean(g * x, 0)))
    layer = Formula(scaled, {"w": (4,)}, name="scale")
    return Plant(around(layer), *vectors(rng), {"net/scale/w"}, ("net/scale",))


# -- TensorFlow's own ------------------------------------------------------------------------


def with_a_dead_unit(layer: keras.layers.Layer) -> keras.Model:
    """A network in which the second input of the middle layer is zero in every sample."""
    model = around(layer)
    kernel = model.layers[0].kernel.numpy()
    kernel[:, 1] = 0.0
    model.layers[0].kernel.assign(kernel)
    return model


@planted
def cumulative_product_with_a_zero(rng: np.random.Generator) -> Plant:
    """tf.math.cumprod divides by its inputs on the way back, and skips those that are zero."""
    model = with_a_dead_unit(Formula(lambda x: tf.math.cumprod(x, 1), {}, name="product"))
    return Plant(model, *vectors(rng), BEFORE, ("net/product",))


@planted
def tie_in_logaddexp(rng: np.random.Generator) -> Plant:
    """keras.ops.logaddexp has its maximum and its difference, whose gradients clash on a tie."""
    layer = Formula(lambda x: keras.ops.logaddexp(x[:, ::2], x[:, 1::2]), {}, name="either")
    x, y = vectors(rng)
    x[2:4] = 0.0
    return Plant(around(layer), x, y, {"net/before/bias"}, ("net/either",))


@planted
def celu_at_zero(rng: np.random.Generator) -> Plant:
    """keras.activations.celu adds its two halves, neither of which has a gradient at zero."""
    x, y = vectors(rng)
    x[2:4] = 0.0
    model = around(Formula(keras.activations.celu, {}, name="celu"))
    return Plant(model, x, y, {"net/before/bias"}, ("net/celu",))


@planted
def kinks_that_explain_only_a_part(rng: np.random.Generator) -> Plant:
    """A wrong gradient at zero beside a rectifier's kink, which is smaller than the error."""

    def both(x: Any) -> Any:
        return tf.concat([0.3 * tf.nn.relu(x), keras.activations.celu(x)], 1)

    x, y = vectors(rng)
    x[2:4] = 0.0
    model = around(Formula(both, {}, name="both"))
    return Plant(model, x, y, {"net/before/bias"}, ("net/both",))


@planted
def repeated_eigenvalues(rng: np.random.Generator) -> Plant:
    """tf.linalg.eigh has no gradient for eigenvectors of equal eigenvalues, as at the identity."""

    def through(x: Any, w: Any) -> Any:
        values, vectors = tf.linalg.eigh(w @ tf.transpose(w))
        return x @ (vectors * tf.exp(values)) @ tf.transpose(vectors)

    layer = Formula(through, {"w": (4, 4)}, name="exponential")
    model = around(layer)
    layer.parts[0].assign(np.eye(4))
    return Plant(model, *vectors(rng), {"net/exponential/w"}, ("net/exponential",))


class Closed(keras.layers.Layer):
    """A residual branch behind a factor that is zero at first."""

    def __init__(self, branch: keras.layers.Layer, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.branch = branch

    def build(self, _shape: Any) -> None:
        self.alpha = self.add_weight(shape=(), name="alpha", initializer="zeros")

    def call(self, x: Any) -> Any:
        return x + self.alpha * self.branch(x)


@planted
def wrong_at_zero_alone(rng: np.random.Generator) -> Plant:
    """A sine whose gradient is zero at zero, where all of its inputs are."""
    wrong = Formula(
        wrong_backward(tf.sin, lambda u, x: u * tf.where(x == 0, 0.0, tf.cos(x))), {}, name="sine"
    )
    model = around(wrong, kernel_initializer="zeros")
    return Plant(model, *vectors(rng), BEFORE, ("net/sine",))


@planted
def norm_of_nothing(rng: np.random.Generator) -> Plant:
    """tf.norm of padded samples: an infinite slope times zero."""
    layer = Formula(lambda x: tf.norm(x, axis=1, keepdims=True), {}, name="length")
    x, y = vectors(rng)
    x[2:4] = 0.0
    return Plant(around(layer), x, y, BEFORE, ("net/length",), "non_finite")


@planted
def root_of_a_rectifier(rng: np.random.Generator) -> Plant:
    """The square root of a rectifier: an infinite slope times zero wherever it is off."""
    layer = Formula(lambda x: tf.sqrt(tf.nn.relu(x)), {}, name="root")
    return Plant(around(layer), *vectors(rng), BEFORE, ("net/root",), "non_finite")


@planted
def overflow_behind_where_in_float32(rng: np.random.Generator) -> Plant:
    """A softplus guarded by tf.where: its exponential overflows in float32, not in float64."""

    def softplus(x: Any) -> Any:
        return tf.where(x > 20, x, tf.math.log(1 + tf.exp(x)))

    x, y = vectors(rng)
    model = around(Formula(softplus, {}, name="softplus"))
    model.layers[0].bias.assign([100.0, 0.0, 0.0, 0.0])
    return Plant(model, x, y, BEFORE, ("net/softplus",), "non_finite")


@planted
def incomplete_beta_function(rng: np.random.Generator) -> Plant:
    """tf.math.betainc has no gradient for its first two arguments."""

    def curve(x: Any, a: Any, b: Any) -> Any:
        return tf.math.betainc(tf.exp(a) + 0 * x, tf.exp(b) + 0 * x, tf.sigmoid(x))

    layer = Formula(curve, {"a": (4,), "b": (4,)}, name="beta")
    wrong = {"net/beta/a", "net/beta/b"}
    return Plant(around(layer), *vectors(rng), wrong, ("net/beta",), "blocked")


@planted
def fake_quantisation(rng: np.random.Generator) -> Plant:
    """Quantisation-aware training: TensorFlow's own straight-through estimator, not declared."""

    def quantised(x: Any) -> Any:
        return tf.quantization.fake_quant_with_min_max_args(x, -2.0, 2.0, num_bits=3)

    model = around(Formula(quantised, {}, name="quantised"))
    return Plant(model, *vectors(rng), BEFORE, ("net/quantised",))


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


@planted
def sign_of_the_activations(rng: np.random.Generator) -> Plant:
    """Activations turned into signs: the gradient is zero but at jumps, which change the loss."""
    model = around(Formula(tf.sign, {}, name="sign"))
    return Plant(model, *vectors(rng), BEFORE, ("net/sign",), "blocked")


@planted
def sign_straight_through(rng: np.random.Generator) -> Plant:
    """A binarised network's sign, whose gradient is that of a clipped identity; not declared."""
    sign = wrong_backward(tf.sign, lambda g, x: tf.where(tf.abs(x) <= 1, g, 0.0))
    model = around(Formula(sign, {}, name="binary"))
    return Plant(model, *vectors(rng), BEFORE, ("net/binary",))


@planted
def norm_taken_for_constant(rng: np.random.Generator) -> Plant:
    """A normalisation whose length is stopped, as if it did not depend on the input."""

    def normalised(x: Any) -> Any:
        return x / tf.stop_gradient(tf.sqrt(tf.reduce_sum(x**2, 1, keepdims=True) + 1e-3))

    model = around(Formula(normalised, {}, name="normalised"))
    return Plant(model, *vectors(rng), BEFORE, ("net/normalised",))


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


def of_loss(loss: Call, *, activation: str | None = None) -> keras.Model:
    """A network `net` of the dense layers `before` and `after` with a loss of its own."""
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4, activation="tanh", name="before"),
            keras.layers.Dense(2, activation=activation, name="after"),
        ],
        name="net",
    )
    model.compile("sgd", loss)
    return model


OF_BOTH = BEFORE | {"net/after/kernel", "net/after/bias"}


@planted
def labels_that_do_not_sum_to_one(rng: np.random.Generator) -> Plant:
    """Two labels at once in a softmax cross-entropy, whose gradient counts on one."""
    model = of_loss(keras.losses.CategoricalCrossentropy(from_logits=True))
    x, _ = vectors(rng)
    return Plant(model, x, np.array([[1.0, 0.0], [1.0, 1.0]] * 3), OF_BOTH, ("loss",))


@planted
def metric_used_as_a_loss(rng: np.random.Generator) -> Plant:
    """A metric's result where a loss was meant: it comes out of a variable."""
    metric = keras.metrics.MeanSquaredError()
    model = of_loss(metric)
    return Plant(model, *vectors(rng), OF_BOTH, ("loss",), "blocked")


@planted
def focal_loss_without_its_focus(rng: np.random.Generator) -> Plant:
    """A focal loss whose backward pass takes the factor (1 - p)² for a constant."""
    focal = wrong_backward(
        lambda p: -((1 - p) ** 2) * tf.math.log(p), lambda g, p: -g * (1 - p) ** 2 / p
    )
    model = of_loss(
        lambda y, p: focal(tf.where(tf.cast(y, p.dtype) > 0, p, 1 - p)), activation="sigmoid"
    )
    x, y = vectors(rng)
    return Plant(model, x, (y > 0).astype("float32"), OF_BOTH, ("loss",))


@planted
def dice_loss_without_its_denominator(rng: np.random.Generator) -> Plant:
    """A dice loss whose backward pass differentiates the intersection alone."""

    def loss(y: Any, p: Any) -> Any:
        y = tf.cast(y, p.dtype)
        dice = wrong_backward(
            lambda p: 1 - 2 * tf.reduce_sum(y * p) / (tf.reduce_sum(y) + tf.reduce_sum(p)),
            lambda g, p: -2 * g * y / (tf.reduce_sum(y) + tf.reduce_sum(p)),
        )
        return dice(p)

    x, y = vectors(rng)
    model = of_loss(loss, activation="sigmoid")
    return Plant(model, x, (y > 0).astype("float32"), OF_BOTH, ("loss",))


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


class Stepping(keras.Sequential):
    """A model whose train_step is `step(model, x, y, sample_weight)`, which returns its loss."""

    step: Call

    def train_step(self, batch: Any) -> Any:
        return {"loss": self.step(self, *keras.utils.unpack_x_y_sample_weight(batch))}


def stepping(step: Call, *compiled: Any, penalty: float = 0.0, **how: Any) -> keras.Model:
    """A `Stepping` model `net` of the dense layers `one` and `two`, compiled as told.

    Args:
        step: the training step.
        compiled: the arguments of `compile`; the optimizer alone says that there is no loss.
            Defaults to `"sgd", "mse"`.
        penalty: factor of the L2 regularisation of both kernels.
        how: keyword arguments of `compile`.
    """
    penalised = {"kernel_regularizer": keras.regularizers.L2(penalty)} if penalty else {}
    model = Stepping(
        [
            keras.Input((3,)),
            keras.layers.Dense(3, activation="tanh", name="one", **penalised),
            keras.layers.Dense(3, name="two", **penalised),
        ],
        name="net",
    )
    model.step = step
    model.compile(*(compiled or ("sgd", "mse")), **how)
    return model


def on_the_tape(loss: Call) -> Call:
    """A step that trains `loss(model, x, y, sample_weight)`."""

    def step(model: Any, *batch: Any) -> Any:
        with tf.GradientTape() as tape:
            value = loss(model, *batch)
        variables = model.trainable_variables
        model.optimizer.apply(tape.gradient(value, variables), variables)
        return value

    return step


def error(y: Any, y_pred: Any) -> Any:
    """The mean squared error, by hand."""
    return tf.reduce_mean((y_pred - y) ** 2)


def threes(rng: np.random.Generator) -> tuple[Any, Any]:
    """Inputs and targets for `stepping`."""
    return rng.normal(size=(6, 3)), rng.normal(size=(6, 3))


KERNELS = {"net/one/kernel", "net/two/kernel"}
EVERYTHING = KERNELS | {"net/one/bias", "net/two/bias"}
STEP = ("train_step",)


@planted
def forward_pass_outside_the_tape(rng: np.random.Generator) -> Plant:
    """The first layer is called before the tape records."""

    def step(model: Any, x: Any, y: Any, _: Any) -> Any:
        hidden = model.layers[0](x)
        with tf.GradientTape() as tape:
            loss = error(y, model.layers[1](hidden))
        variables = model.trainable_variables
        gradients = zip(tape.gradient(loss, variables), variables, strict=True)
        model.optimizer.apply_gradients([(g, v) for g, v in gradients if g is not None])
        return loss

    wrong = {"net/one/kernel", "net/one/bias"}
    return Plant(stepping(step, "sgd"), *threes(rng), wrong, STEP, "blocked")


@planted
def two_views_of_which_one_stands_still(rng: np.random.Generator) -> Plant:
    """A loss between two views, one of them behind stop_gradient: meant, but to be declared."""

    def loss(model: Any, x: Any, *_: Any) -> Any:
        first, second = model(x), model(2 * x + 1)
        return tf.reduce_mean((first - tf.stop_gradient(second)) ** 2)

    step = stepping(on_the_tape(loss), "sgd")
    paths = {f"net/{name}/{kind}" for name in ("one", "two") for kind in ("kernel", "bias")}
    return Plant(step, *threes(rng), paths, STEP)


@planted
def penalty_computed_before_the_tape(rng: np.random.Generator) -> Plant:
    """A weight penalty computed too early and added: the tape takes it for a number."""

    def step(model: Any, x: Any, y: Any, _: Any) -> Any:
        penalty = 0.1 * tf.reduce_sum(tf.convert_to_tensor(model.layers[0].kernel) ** 2)
        return on_the_tape(lambda model, x, y: error(y, model(x)) + penalty)(model, x, y)

    return Plant(stepping(step, "sgd"), *threes(rng), {"net/one/kernel"}, STEP)


@planted
def first_order_meta_learning(rng: np.random.Generator) -> Plant:
    """MAML with the gradients of its inner step stopped: FOMAML, which nobody declared."""

    def loss(model: Any, x: Any, y: Any, _: Any) -> Any:
        def network(weights: Any, x: Any) -> Any:
            a, b, c, d = weights
            return tf.tanh(x @ a + b) @ c + d

        weights = [tf.convert_to_tensor(variable) for variable in model.trainable_variables]
        with tf.GradientTape() as inner:
            inner.watch(weights)
            adapted = error(y[:3], network(weights, x[:3]))
        gradients = [tf.stop_gradient(g) for g in inner.gradient(adapted, weights)]
        weights = [w - 0.3 * g for w, g in zip(weights, gradients, strict=True)]
        return error(y[3:], network(weights, x[3:]))

    return Plant(stepping(on_the_tape(loss), "sgd"), *threes(rng), EVERYTHING, STEP)


@planted
def actor_and_critic_apart(rng: np.random.Generator) -> Plant:
    """A policy gradient whose advantage is stopped: no gradient of the loss that is written."""

    def loss(model: Any, x: Any, y: Any, _: Any) -> Any:
        outputs = model(x)
        advantage = y[:, 0] - outputs[:, 2]
        chosen = tf.nn.log_softmax(outputs[:, :2])[:, 0]
        return tf.reduce_mean(advantage**2 - chosen * tf.stop_gradient(advantage))

    return Plant(stepping(on_the_tape(loss), "sgd"), *threes(rng), EVERYTHING, STEP)


@planted
def wrong_before_eight_bits(rng: np.random.Generator) -> Plant:
    """A wrong layer before one in float8, whose own gradients are right."""
    wrong = Formula(wrong_backward(tf.sin, lambda u, x: 0.9 * u * tf.cos(x)), {}, name="sine")
    eight = keras.layers.Dense(4, dtype="float8_from_float32", name="eight")
    return Plant(around([wrong, eight]), *vectors(rng), BEFORE, ("net/sine",))


# -- right on the tape, wrong in the optimizer -----------------------------------------------


@planted
def swapped_on_the_way(rng: np.random.Generator) -> Plant:
    """Two kernels' gradients, right on the tape, handed over in the wrong order."""
    model = handing(lambda g: [g[2], g[1], g[0], g[3]])
    return Plant(model, *threes(rng), KERNELS, STEP, "misapplied")


@planted
def negated_on_the_way(rng: np.random.Generator) -> Plant:
    """A gradient handed to the optimizer with the opposite sign."""
    model = handing(lambda g: [g[0], g[1], g[2], -g[3]])
    return Plant(model, *threes(rng), {"net/two/bias"}, STEP, "misapplied")


@planted
def scaled_on_the_way(rng: np.random.Generator) -> Plant:
    """Gradients of a mean divided by the size of the batch once more."""
    model = handing(lambda g: [each / 6 for each in g])
    return Plant(model, *threes(rng), EVERYTHING, STEP, "misapplied")


@planted
def zeroed_on_the_way(rng: np.random.Generator) -> Plant:
    """A gradient replaced by zeros, so that its variable never moves."""
    model = handing(lambda g: [tf.zeros_like(g[0]), *g[1:]])
    return Plant(model, *threes(rng), {"net/one/kernel"}, STEP, "misapplied")


@planted
def transposed_on_the_way(rng: np.random.Generator) -> Plant:
    """A square kernel's gradient transposed: the shape says nothing."""
    model = handing(lambda g: [tf.transpose(g[0]), *g[1:]])
    return Plant(model, *threes(rng), {"net/one/kernel"}, STEP, "misapplied")


@planted
def rows_rolled_on_the_way(rng: np.random.Generator) -> Plant:
    """The rows of a gradient moved by one."""
    model = handing(lambda g: [g[0], g[1], tf.roll(g[2], 1, 0), g[3]])
    return Plant(model, *threes(rng), {"net/two/kernel"}, STEP, "misapplied")


@planted
def dropped_by_a_short_zip(rng: np.random.Generator) -> Plant:
    """Gradients zipped with a list that is too short: the last variable goes without."""

    def step(model: Any, x: Any, y: Any, _: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = model.compute_loss(x, y, model(x, training=True))
        variables = model.trainable_variables
        gradients = tape.gradient(loss, variables)
        model.optimizer.apply_gradients(zip(gradients, variables[:-1], strict=False))
        return loss

    model = stepping(step)
    wrong = {"net/two/bias"}
    return Plant(model, *threes(rng), wrong, STEP, "misapplied", verdict=Verdict.SUSPECT)


@planted
def applied_twice(rng: np.random.Generator) -> Plant:
    """The optimizer is given the same gradients twice."""

    def step(model: Any, x: Any, y: Any, _: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = model.compute_loss(x, y, model(x, training=True))
        variables = model.trainable_variables
        gradients = tape.gradient(loss, variables)
        model.optimizer.apply(gradients, variables)
        model.optimizer.apply(gradients, variables)
        return loss

    return Plant(stepping(step), *threes(rng), EVERYTHING, STEP, "misapplied")


@planted
def never_applied(rng: np.random.Generator) -> Plant:
    """Gradients are found, and the optimizer is never given them."""

    def step(model: Any, x: Any, y: Any, _: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = model.compute_loss(x, y, model(x, training=True))
        tape.gradient(loss, model.trainable_variables)
        return loss

    model = stepping(step)
    return Plant(model, *threes(rng), EVERYTHING, STEP, "misapplied", verdict=Verdict.SUSPECT)


@planted
def loss_never_scaled(rng: np.random.Generator) -> Plant:
    """A LossScaleOptimizer divides by the scale that the loss was never multiplied with."""
    model = stepping(
        on_the_tape(lambda model, x, y, _: model.compute_loss(x, y, model(x, training=True))),
        keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()),
        "mse",
    )
    return Plant(model, *threes(rng), EVERYTHING, STEP, "misapplied")


@planted
def microbatches_not_averaged(rng: np.random.Generator) -> Plant:
    """Gradients of the means over two halves of the batch, added up and not halved."""

    def step(model: Any, x: Any, y: Any, _: Any) -> Any:
        variables = model.trainable_variables
        total = [tf.zeros(variable.shape) for variable in variables]
        for half in (slice(0, 3), slice(3, 6)):
            with tf.GradientTape() as tape:
                loss = model.compute_loss(x[half], y[half], model(x[half], training=True))
            found = tape.gradient(loss, variables)
            total = [a + g for a, g in zip(total, found, strict=True)]
        model.optimizer.apply(total, variables)
        return loss

    model = stepping(step)
    return Plant(model, *threes(rng), EVERYTHING, STEP, "other_loss", verdict=Verdict.SUSPECT)


class Adversaries(keras.Model):
    """A generator and a judge of equal shapes, both updated with the gradients of the judge."""

    def __init__(self) -> None:
        super().__init__(name="gan")
        self.generator = self.layer("generator")
        self.judge = self.layer("judge")
        self.built = True

    @staticmethod
    def layer(name: str) -> keras.Model:
        dense = keras.layers.Dense(3, name="dense")
        return keras.Sequential([keras.Input((3,)), dense], name=name)

    def call(self, x: Any) -> Any:
        return self.judge(self.generator(x))

    def train_step(self, batch: Any) -> Any:
        x, y = batch
        with tf.GradientTape(persistent=True) as tape:
            real, forged = self.judge(y), self.judge(self.generator(x))
            of_judge = tf.reduce_mean(tf.nn.softplus(-real) + tf.nn.softplus(forged))
            of_generator = tf.reduce_mean(tf.nn.softplus(-forged))
        ours, theirs = self.judge.trainable_variables, self.generator.trainable_variables
        gradients = tape.gradient(of_judge, ours)
        self.optimizer.apply_gradients(zip(gradients, ours, strict=True))
        tape.gradient(of_generator, theirs)
        self.optimizer.apply_gradients(zip(gradients, theirs, strict=True))
        return {"loss": of_generator}


@planted
def gradient_of_the_adversary(rng: np.random.Generator) -> Plant:
    """A generator updated with the gradients that were found for the discriminator."""
    model = Adversaries()
    wrong = {"generator/dense/kernel", "generator/dense/bias"}
    model.compile(keras.optimizers.SGD())
    return Plant(model, *threes(rng), wrong, STEP, "misapplied")


@planted
def variables_left_out(rng: np.random.Generator) -> Plant:
    """A tape asked for the kernels alone: the biases stay as they are."""

    def step(model: Any, x: Any, y: Any, _: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = model.compute_loss(x, y, model(x, training=True))
        variables = [v for v in model.trainable_variables if "kernel" in v.path]
        model.optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    wrong = EVERYTHING - KERNELS
    return Plant(stepping(step), *threes(rng), wrong, STEP, "untrained", verdict=Verdict.SUSPECT)


@planted
def temperature_left_out(rng: np.random.Generator) -> Plant:
    """A learnt temperature that no tape is asked for; only its exponential is used."""

    def step(model: Any, x: Any, y: Any, _: Any) -> Any:
        with tf.GradientTape() as tape:
            scaled = model(x, training=True) * tf.exp(-model.temperature)
            loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(tf.nn.softmax(y), scaled))
        variables = [v for layer in model.layers for v in layer.trainable_variables]
        model.optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    model = stepping(step)
    model.temperature = model.add_weight(shape=(), name="temperature", initializer="ones")
    wrong = {"net/temperature"}
    return Plant(model, *threes(rng), wrong, STEP, "untrained", verdict=Verdict.SUSPECT)


@planted
def loss_weights_left_out(rng: np.random.Generator) -> Plant:
    """Two losses that are weighed by learnt uncertainties, which the step does not train."""

    def step(model: Any, x: Any, y: Any, _: Any) -> Any:
        with tf.GradientTape() as tape:
            outputs = model(x, training=True)
            losses = tf.stack([error(y, outputs), tf.reduce_mean(tf.abs(y - outputs))])
            weights = tf.square(tf.nn.softplus(model.uncertainty))
            loss = tf.reduce_sum(losses / weights + tf.math.log(weights))
        variables = [v for layer in model.layers for v in layer.trainable_variables]
        model.optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    model = stepping(step)
    model.uncertainty = model.add_weight(shape=(2,), name="uncertainty", initializer="ones")
    wrong = {"net/uncertainty"}
    return Plant(model, *threes(rng), wrong, STEP, "untrained", verdict=Verdict.SUSPECT)


class Branches(keras.Model):
    """Two networks beside each other: the loss is that of both, and the step trains one."""

    def __init__(self) -> None:
        super().__init__(name="branches")
        self.one = keras.layers.Dense(3, name="one")
        self.two = keras.layers.Dense(4, name="two")
        self.out = keras.layers.Dense(3, name="out")

    def call(self, x: Any) -> Any:
        return self.one(x), self.out(tf.tanh(self.two(x)))

    def train_step(self, batch: Any) -> Any:
        x, y = batch
        with tf.GradientTape() as tape:
            first, second = self(x)
            loss = error(y, first) + error(y, second)
        variables = self.one.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return {"loss": loss}


@planted
def branch_left_out(rng: np.random.Generator) -> Plant:
    """A branch of the network that meets the other one in the loss alone, and is not trained."""
    model = Branches()
    model(np.zeros((1, 3)))
    model.compile("sgd")
    wrong = {f"branches/{layer}/{part}" for layer in ("two", "out") for part in ("kernel", "bias")}
    return Plant(model, *threes(rng), wrong, STEP, "untrained", verdict=Verdict.SUSPECT)


# -- weights that nobody tracks --------------------------------------------------------------


def untracked(model: keras.Model, rng: np.random.Generator, wrong: set[str], user: str) -> Plant:
    """What a check says of a layer that uses weights which the model does not have."""
    return Plant(model, *vectors(rng), wrong, (user,), "untracked", verdict=Verdict.SUSPECT)


@planted
def captured_by_a_lambda(rng: np.random.Generator) -> Plant:
    """A layer that only a lambda knows."""
    dense = keras.layers.Dense(4, name="captured")
    dense.build((None, 4))
    wrong = {f"net/lambda/captured/{part}" for part in ("kernel", "bias")}
    model = around(keras.layers.Lambda(lambda x: 2 * dense(x), name="lambda"))
    return untracked(model, rng, wrong, "net/lambda")


@planted
def kept_in_a_plain_object(rng: np.random.Generator) -> Plant:
    """Layers in an object of one's own, in which Keras does not look for them."""

    class Parts:
        def __init__(self) -> None:
            self.inner = keras.layers.Dense(4, activation="tanh", name="inner")

    parts = Parts()
    parts.inner.build((None, 4))
    wrong = {f"net/holder/inner/{part}" for part in ("kernel", "bias")}
    holder = Formula(lambda x: 2 * parts.inner(x), {}, name="holder")
    return untracked(around(holder), rng, wrong, "net/holder")


@planted
def raw_variables_in_a_list(rng: np.random.Generator) -> Plant:
    """Variables of TensorFlow's in a list: one layer uses them, another one in a loop."""
    weights = [tf.Variable(tf.ones((4,)), name="slope"), tf.Variable(tf.ones((4,)), name="shift")]

    def looped(x: Any) -> Any:
        return tf.while_loop(lambda i, _: i < 2, lambda i, x: (i + 1, x + weights[1]), [0, x])[1]

    layers = [
        Formula(lambda x: x * weights[0], {}, name="scaled"),
        Formula(looped, {}, name="shifted"),
    ]
    wrong = {"net/scaled/slope", "net/shifted/shift"}
    return Plant(
        around(layers),
        *vectors(rng),
        wrong,
        ("net/scaled", "net/shifted"),
        "untracked",
        verdict=Verdict.SUSPECT,
    )


# -- another loss than the compiled one ------------------------------------------------------


def other_loss(model: keras.Model, x: Any, y: Any, wrong: set[str], weight: Any = None) -> Plant:
    """What a check says of a step that trains another loss than the compiled one."""
    return Plant(
        model, x, y, wrong, STEP, "other_loss", sample_weight=weight, verdict=Verdict.SUSPECT
    )


@planted
def forgotten_regularisation(rng: np.random.Generator) -> Plant:
    """A step that never adds model.losses, so that the kernels' penalties have no effect."""
    model = stepping(on_the_tape(lambda model, x, y, _: error(y, model(x))), penalty=0.05)
    return other_loss(model, *threes(rng), KERNELS)


@planted
def doubled_regularisation(rng: np.random.Generator) -> Plant:
    """A step from Keras 2, which adds model.losses to a compute_loss that has them already."""

    def loss(model: Any, x: Any, y: Any, _: Any) -> Any:
        return model.compute_loss(x, y, model(x, training=True)) + tf.add_n(model.losses)

    model = stepping(on_the_tape(loss), penalty=0.05)
    return other_loss(model, *threes(rng), KERNELS)


@planted
def ignored_sample_weights(rng: np.random.Generator) -> Plant:
    """A step that unpacks the sample weights and does not pass them on."""
    model = stepping(on_the_tape(lambda model, x, y, _: model.compute_loss(x, y, model(x))))
    return other_loss(model, *threes(rng), EVERYTHING, np.linspace(0.2, 3.0, 6))


@planted
def sum_instead_of_mean(rng: np.random.Generator) -> Plant:
    """A loss for each sample handed to the tape, which adds them up."""
    per_sample = keras.losses.mean_squared_error
    model = stepping(on_the_tape(lambda model, x, y, _: per_sample(y, model(x))))
    return other_loss(model, *threes(rng), EVERYTHING)


class TwoHeads(keras.Model):
    """A model of two outputs whose step adds their losses up, whatever it is compiled with."""

    def train_step(self, batch: Any) -> Any:
        x, (y, z) = batch
        with tf.GradientTape() as tape:
            first, second = self(x, training=True)
            loss = error(y, first) + error(z, second)
        variables = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return {"loss": loss}


@planted
def ignored_loss_weights(rng: np.random.Generator) -> Plant:
    """A step that gives each output the same weight, where the compiled loss does not."""
    inputs = keras.Input((3,))
    hidden = keras.layers.Dense(4, activation="tanh", name="shared")(inputs)
    heads = [keras.layers.Dense(3, name=name)(hidden) for name in ("first", "second")]
    model = TwoHeads(inputs, heads, name="net")
    model.compile("sgd", ["mse", "mse"], loss_weights=[1.0, 0.2])
    x, y = threes(rng)
    wrong = {f"{layer}/{part}" for layer in ("shared", "second") for part in ("kernel", "bias")}
    return other_loss(model, x, [y, y[::-1].copy()], wrong)


@planted
def ignored_mask(rng: np.random.Generator) -> Plant:
    """A loss by hand that counts the padded steps, which the compiled loss leaves out."""
    model = Stepping(
        [
            keras.Input((5, 3)),
            keras.layers.Masking(),
            keras.layers.SimpleRNN(3, return_sequences=True, name="rnn"),
            keras.layers.Dense(1, name="after"),
        ],
        name="net",
    )
    model.step = on_the_tape(lambda model, x, y, _: error(y, model(x)))
    model.compile("sgd", "mse")
    x, y = rng.normal(size=(4, 5, 3)), rng.normal(size=(4, 5, 1))
    x[:2, 3:] = 0.0
    return other_loss(model, x, y, {variable.path for variable in model.trainable_variables})


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


def squared_with(second: float) -> Call:
    """A square whose gradient has a gradient of its own, which should be of the factor 2."""

    @tf.custom_gradient
    def slope(x: Any, upstream: Any) -> Any:
        return 2 * x * upstream, lambda g: (second * upstream * g, 2 * x * g)

    @tf.custom_gradient
    def square(x: Any) -> Any:
        return x * x, lambda upstream: slope(x, upstream)

    return square


def on_the_input_gradient(model: keras.Model, x: Any, y: Any, _weight: Any) -> Any:
    """A training step with a penalty on the gradient of the outputs for the inputs."""
    with tf.GradientTape() as tape:
        with tf.GradientTape() as inner:
            inner.watch(x)
            outputs = model(x, training=True)
        slopes = inner.gradient(outputs, x)
        loss = model.compute_loss(y=y, y_pred=outputs) + tf.reduce_mean(slopes**2)
    gradients = tape.gradient(loss, model.trainable_variables)
    model.optimizer.apply(gradients, model.trainable_variables)
    return loss


@planted
def second_derivative_under_a_penalty(rng: np.random.Generator) -> Plant:
    """A layer whose gradient is right and whose gradient's gradient is not: the layer is named."""
    model = stepping(on_the_input_gradient)
    model.add(Formula(squared_with(1.5), {}, name="square"))
    model.add(keras.layers.Dense(2, name="last"))
    x, y = rng.normal(size=(5, 3)).astype("float32"), rng.normal(size=(5, 2)).astype("float32")
    wrong = {f"net/{name}/{kind}" for name in ("one", "two") for kind in ("kernel", "bias")}
    return Plant(model, x, y, wrong, ("net/square",))


@planted
def argmax_beside_zeros(rng: np.random.Generator) -> Plant:
    """A choice by argmax, with zeros added that have a gradient: of zero, throughout."""
    pick = keras.layers.Lambda(
        lambda x: tf.one_hot(tf.argmax(x, -1), 4) + 0 * x, output_shape=(4,), name="pick"
    )
    return Plant(around(pick), *vectors(rng), BEFORE, ("net/pick",), reason="blocked")


class WeightNormAssigned(keras.layers.Layer):
    """A dense layer that normalises its kernel and keeps it by assignment, past all tapes."""

    def build(self, shape: Any) -> None:
        self.direction = self.add_weight(shape=(shape[-1], 4), name="direction")
        self.length = self.add_weight(shape=(4,), initializer="ones", name="length")
        self.kernel = self.add_weight(shape=(shape[-1], 4), name="kernel", trainable=False)

    def call(self, x: Any) -> Any:
        self.kernel.assign(tf.nn.l2_normalize(self.direction, 0) * self.length)
        return tf.matmul(x, self.kernel)


@planted
def weights_assigned_in_a_call(rng: np.random.Generator) -> Plant:
    """What a layer assigns to a variable of its own comes from others that no gradient reaches."""
    model = around(WeightNormAssigned(name="normed"))
    wrong = {"net/normed/direction", "net/normed/length"}
    return Plant(model, *vectors(rng), wrong, ("net/normed",), reason="blocked")


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
    """Plant a bug and check; the check must leave no trace."""
    keras.utils.set_random_seed(11)
    plant = build(np.random.default_rng(5))
    with nothing_changes(plant.model, plant.options):
        report = check_gradients(
            plant.model, plant.x, plant.y, plant.sample_weight, **plant.options
        )
    return plant, report


@pytest.mark.parametrize("name", PLANTED)
def test_planted(name: str) -> None:
    """A wrong gradient fails in exactly the variables it reaches, and its layer is named.

    Where the step is at fault, what the tape finds is right all the same.
    """
    FIGURES["planted"] += 1
    plant, report = examine(PLANTED[name])
    failing = {v.path for v in report.variables if v.verdict is not Verdict.PASS}
    found = failing == plant.wrong
    FIGURES["found"] += found
    FIGURES["named"] += found and report.culprits == plant.culprits
    assert failing == plant.wrong, str(report)
    assert report.verdict is plant.verdict, str(report)
    assert report.culprits == plant.culprits, str(report)
    for variable in report.variables:
        if variable.path in plant.wrong:
            assert variable.verdict is plant.verdict, str(report)
            assert variable.reason == plant.reason, str(report)
            if variable.reason == "":
                assert variable.score - variable.error_bar >= Thresholds().concerning
            elif variable.reason in OF_THE_STEP:
                assert not variable.score >= Thresholds().concerning, str(report)


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


# -- wrong, but not yet ----------------------------------------------------------------------


def wrong_in_a_branch_still_closed(rng: np.random.Generator) -> Plant:
    """A layer in a residual branch that is closed at first: wrong once it opens."""
    wrong = Formula(wrong_backward(lambda x: 2 * x, lambda u, _: 2.2 * u), {}, name="off")
    model = around(Closed(wrong, name="gated"))
    return Plant(model, *vectors(rng), BEFORE, ("net/gated/off",), verdict=Verdict.SUSPECT)


def wrong_before_weights_of_zero(rng: np.random.Generator) -> Plant:
    """A layer before one whose kernel is zero at first, which hands no gradient back to it."""
    wrong = Formula(wrong_backward(tf.sin, lambda u, x: u * tf.sin(x)), {}, name="sine")
    silent = keras.layers.Dense(4, kernel_initializer="zeros", name="silent")
    return Plant(
        around([wrong, silent]), *vectors(rng), BEFORE, ("net/sine",), verdict=Verdict.SUSPECT
    )


@pytest.mark.parametrize(
    "build",
    [wrong_in_a_branch_still_closed, wrong_before_weights_of_zero],
    ids=lambda b: b.__name__,
)
def test_what_is_wrong_as_soon_as_a_gradient_goes_there(build: Callable[..., Plant]) -> None:
    """Where the loss hands no gradient back yet, a wrong layer makes those before it suspect."""
    keras.utils.set_random_seed(3)
    plant = build(np.random.default_rng(3))
    report = check_gradients(plant.model, plant.x, plant.y)
    assert report.verdict is Verdict.SUSPECT, str(report)
    suspects = {v.path for v in report.variables if v.verdict is Verdict.SUSPECT}
    assert suspects == plant.wrong, str(report)
    assert report.culprits == plant.culprits, str(report)
    assert all("as soon as the loss does" in v.note for v in report.variables if v.path in suspects)
