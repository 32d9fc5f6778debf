"""Wrong gradients that come with TensorFlow and Keras themselves."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from formula import Formula
from wrong import BEFORE, Plant, around, planted, vectors


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


@planted
def not_a_number(rng: np.random.Generator) -> Plant:
    """sin(x)/x with its hole at zero filled by tf.where: only the gradient there is NaN."""
    layer = Formula(lambda x: tf.where(x == 0, 1.0, tf.sin(x) / x), {}, name="sinc")
    x, y = vectors(rng)
    x[2:4] = 0.0
    return Plant(around(layer), x, y, BEFORE, ("net/sinc",), "non_finite")
