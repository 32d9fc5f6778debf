"""Right models with corners, jumps and ties, where one-sided derivatives are all there is."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from formula import Formula
from right import Case, around, dense, images, net, tricky, vectors

L = keras.layers


@tricky
def dead_units(rng: np.random.Generator) -> Case:
    """Rectifiers that no sample reaches get no gradient at all, and rightly so."""
    bias = keras.initializers.Constant([-50.0, 0.3, -50.0, 0.1])
    return Case(net(L.Dense(4, "relu", bias_initializer=bias), L.Dense(2)), *vectors(rng))


@tricky
def zero_padding_and_zero_bias(rng: np.random.Generator) -> Case:
    """Padded pixels put most rectifiers exactly on their corner."""
    x, y = images(rng)
    x[:, 2:] = 0
    conv = L.Conv2D(3, 3, padding="same", activation="relu")
    return Case(net(conv, L.Flatten(), L.Dense(2), shape=(6, 6, 2)), x, y, reason="kink")


@tricky
def pool_over_constant_images(rng: np.random.Generator) -> Case:
    """In a constant image all entries of a pool tie, wherever the weights go."""
    _, y = images(rng)
    layers = [L.Conv2D(3, 2), L.MaxPooling2D(2), L.Flatten(), L.Dense(2)]
    return Case(net(*layers, shape=(6, 6, 2)), np.ones((2, 6, 6, 2)), y)


@tricky
def huber_at_its_seam(rng: np.random.Generator) -> Case:
    """Errors of exactly 0 and ±delta, where the Huber loss changes its formula."""
    x, _ = vectors(rng)
    y = np.tile([[0.0, 1.0], [-1.0, 0.0]], (3, 1))
    return Case(net(L.Dense(2, kernel_initializer="zeros"), loss="huber"), x, y)


@tricky
def absolute_errors_of_exactly_zero(rng: np.random.Generator) -> Case:
    """A perfect fit under the mean absolute error is a corner in all directions."""
    x, _ = vectors(rng)
    return Case(net(L.Dense(2, kernel_initializer="zeros"), loss="mae"), x, np.zeros((6, 2)))


@tricky
def clipped_at_the_border(rng: np.random.Generator) -> Case:
    """Activations exactly at both borders of a clip."""
    bias = keras.initializers.Constant([1.0, -1.0, 0.5, 2.0])
    layer = L.Dense(4, kernel_initializer="zeros", bias_initializer=bias)
    clip = L.Lambda(lambda x: tf.clip_by_value(x, -1.0, 1.0))
    return Case(net(layer, clip, L.Dense(2)), *vectors(rng), reason="kink")


@tricky
def largest_two_of_equals(rng: np.random.Generator) -> Case:
    """top_k among equal activations: their sum bends, but does not jump."""
    layer = L.Dense(4, kernel_initializer="zeros")
    largest = L.Lambda(lambda x: tf.reduce_sum(tf.math.top_k(x, 2).values, -1, keepdims=True))
    return Case(net(layer, largest, L.Dense(2)), *vectors(rng))


@tricky
def sorted_activations(rng: np.random.Generator) -> Case:
    """Sorting only reorders gradients; here half of the samples are ties."""
    x, y = vectors(rng)
    x[:3] = 0
    return Case(around(L.Lambda(lambda h: tf.sort(h, axis=-1))), x, y)


@tricky
def hard_activations(rng: np.random.Generator) -> Case:
    """Inputs so large that hard sigmoid, hard swish and ReLU6 are mostly saturated."""
    x, y = vectors(rng)
    layers = [L.Activation(a) for a in ("hard_sigmoid", "hard_swish", "relu6", "hard_tanh")]
    middle = [layer for a in layers for layer in (a, L.Dense(5))]
    return Case(around(*middle), 20 * x, y)


@tricky
def maximum_of_equal_branches(rng: np.random.Generator) -> Case:
    """Maxout of two branches with the same weights: a tie at every sample."""
    maxout = Formula(
        lambda x, a, b: tf.maximum(x @ a, x @ b), {"a": (4, 3), "b": (4, 3)}, "ones", name="maxout"
    )
    return Case(around(maxout), *vectors(rng), reason="kink")


@tricky
def argmax_used_as_a_mask(rng: np.random.Generator) -> Case:
    """A mask made by argmax has no gradient and needs none: x · mask is the maximum."""
    masked = L.Lambda(lambda x: x * tf.one_hot(tf.argmax(x, -1), 4, dtype=x.dtype))
    return Case(around(masked), *vectors(rng))


@tricky
def triplets_with_hard_negatives(rng: np.random.Generator) -> Case:
    """A triplet loss whose hardest positives and negatives are chosen by max and min."""

    def hardest(labels: Any, embedded: Any) -> Any:
        square = tf.reduce_sum((embedded[:, None] - embedded[None]) ** 2, -1)
        labels = tf.reshape(labels, (-1,))
        same = labels[:, None] == labels[None]
        positive = tf.reduce_max(tf.where(same, square, 0.0), 1)
        negative = tf.reduce_min(tf.where(same, 1e9, square), 1)
        return tf.reduce_mean(tf.nn.relu(positive - negative + 0.5))

    x, _ = vectors(rng)
    return Case(net(dense(), L.Dense(2), loss=hardest), x, np.array([0, 0, 1, 1, 2, 2]))


@tricky
def safe_norm_of_zero_vectors(rng: np.random.Generator) -> Case:
    """The norm of zero, guarded by two tf.where: exactly zero on the tape, a cone in truth."""

    def norm(x: Any) -> Any:
        square = tf.reduce_sum(x**2, -1, keepdims=True)
        safe = tf.where(square > 0, square, 1.0)
        return tf.where(square > 0, tf.sqrt(safe), 0.0)

    x, y = vectors(rng)
    x[:2] = 0
    return Case(net(L.Dense(4), L.Lambda(norm), L.Dense(2)), x, y)


@tricky
def segments_and_their_maxima(rng: np.random.Generator) -> Case:
    """Segment sums, means and maxima over a batch, with ties and an empty segment."""
    ids = tf.constant([0, 0, 1, 1, 3, 3])

    def pooled(x: Any) -> Any:
        parts = [
            tf.math.unsorted_segment_sum(x, ids, 4),
            tf.math.unsorted_segment_mean(x, ids, 4),
            tf.math.segment_max(x, ids),
        ]
        return tf.gather(tf.concat(parts, -1), ids)

    x, y = vectors(rng)
    x[1] = x[0]
    return Case(around(L.Lambda(pooled)), x, y)


@tricky
def every_entry_with_a_small_step(rng: np.random.Generator) -> Case:
    """The classical recipe at each entry, with kinks closer than it can see."""
    x, y = vectors(rng)
    x[2:4] = 0
    options = {"method": "full", "epsilon": 1e-7}
    return Case(net(L.Dense(4, "relu"), L.BatchNormalization(), L.Dense(2)), x, y, options=options)


@tricky
def sparsemax(rng: np.random.Generator) -> Case:
    """A softmax with exact zeros, by a sort and a cumulative sum, its gradient by the tape."""

    def project(z: Any) -> Any:
        ordered = tf.sort(z, direction="DESCENDING")
        total = tf.cumsum(ordered, -1)
        rank = tf.range(1.0, 6.0)
        size = tf.reduce_sum(tf.cast(1 + rank * ordered > total, tf.int32), -1)
        top = tf.gather(total, size - 1, batch_dims=1, axis=1)
        return tf.nn.relu(z - ((top - 1) / tf.cast(size, z.dtype))[:, None])

    return Case(around(L.Lambda(project), width=5), *vectors(rng))


@tricky
def splines_on_a_grid(rng: np.random.Generator) -> Case:
    """A KAN layer: piecewise linear splines looked up by searchsorted, inputs on knots."""
    knots = tf.constant(np.linspace(-2, 2, 9), tf.float32)

    def spline(x: Any, heights: Any) -> Any:
        flat = tf.reshape(x, (-1,))
        low = tf.clip_by_value(tf.searchsorted(knots, flat, side="right") - 1, 0, 7)
        left = tf.gather(knots, low)
        part = (flat - left) / (tf.gather(knots, low + 1) - left)
        bent = (1 - part) * tf.gather(heights, low) + part * tf.gather(heights, low + 1)
        return tf.reshape(bent, tf.shape(x))

    x, y = vectors(rng)
    x[:2] = 0
    return Case(around(Formula(spline, {"heights": (9,)}, name="spline")), x, y)


@tricky
def pinballs(rng: np.random.Generator) -> Case:
    """Quantile losses with some errors of exactly zero: slopes of unequal size meet there."""

    def loss(y: Any, p: Any) -> Any:
        error = y - p
        return tf.reduce_mean(tf.maximum(0.9 * error, -0.1 * error))

    x, y = vectors(rng)
    y[:3] = 0
    return Case(net(L.Dense(2, kernel_initializer="zeros"), loss=loss), x, y, reason="kink")


@tricky
def hinge_at_its_margin(rng: np.random.Generator) -> Case:
    """Every prediction sits exactly where the hinge bends."""
    x, _ = vectors(rng)
    layer = L.Dense(2, kernel_initializer="zeros", bias_initializer="ones")
    return Case(net(layer, loss="squared_hinge"), x, np.ones((6, 2)))
