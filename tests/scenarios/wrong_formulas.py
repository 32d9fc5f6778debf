"""Wrong formulas: the backward pass has another factor, sign, shape or term."""

# mypy: allow-subclassing-any

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from formula import Formula, wrong_backward
from wrong import BEFORE, Plant, around, planted, vectors


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


@planted
def wrong_at_zero_alone(rng: np.random.Generator) -> Plant:
    """A sine whose gradient is zero at zero, where all of its inputs are."""
    wrong = Formula(
        wrong_backward(tf.sin, lambda u, x: u * tf.where(x == 0, 0.0, tf.cos(x))), {}, name="sine"
    )
    model = around(wrong, kernel_initializer="zeros")
    return Plant(model, *vectors(rng), BEFORE, ("net/sine",))


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
