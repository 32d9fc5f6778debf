"""Wrong gradients that something blocks, wholly or in part."""

# mypy: allow-subclassing-any

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from formula import Formula, wrong_backward
from wrong import BEFORE, Plant, around, planted, vectors


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
