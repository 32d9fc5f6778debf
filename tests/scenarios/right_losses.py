"""Right models whose losses are saturated, contrastive, matched or sampled."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from formula import Formula
from right import Case, around, dense, net, tricky, vectors

L = keras.layers


@tricky
def cross_entropy_of_saturated_probabilities(rng: np.random.Generator) -> Case:
    """Probabilities of 1 − 1e-9, which Keras clips, beside ordinary ones."""
    start = keras.initializers.RandomNormal(stddev=20.0)
    layer = L.Dense(3, "softmax", kernel_initializer=start)
    x, _ = vectors(rng)
    y = np.eye(3)[[0, 1, 2, 0, 1, 2]]
    return Case(net(layer, loss="categorical_crossentropy"), x, y)


@tricky
def binary_probabilities_behind_a_clip(rng: np.random.Generator) -> Case:
    """Raw sigmoids of ±30 in a binary cross-entropy from probabilities, clipped at 1e-7."""
    bias = keras.initializers.Constant([30.0, -30.0])
    layers = [L.Dense(2, bias_initializer=bias), L.Lambda(tf.sigmoid)]
    x, _ = vectors(rng)
    y = rng.integers(0, 2, size=(6, 2))
    return Case(net(*layers, loss="binary_crossentropy"), x, y)


@tricky
def divergences(rng: np.random.Generator) -> Case:
    """Kullback-Leibler, Poisson, log-cosh and cosine losses, with targets that are zero."""
    inputs = keras.Input((3,))
    heads = [L.Dense(2, a)(inputs) for a in ("softmax", "softplus", None, None)]
    model = keras.Model(inputs, heads)
    model.compile("sgd", ["kl_divergence", "poisson", "log_cosh", "cosine_similarity"])
    x, y = vectors(rng)
    share = np.eye(2)[[0, 1, 1, 0, 1, 0]]
    count = rng.integers(0, 3, size=(6, 2)).astype(float)
    y[:2] = 0
    return Case(model, x, [share, count, 30 * y, y])


@tricky
def contrastive_loss_over_the_batch(rng: np.random.Generator) -> Case:
    """InfoNCE: each sample against all others, a diagonal masked by −1e9, a low temperature."""

    def loss(_y: Any, p: Any) -> Any:
        z = tf.math.l2_normalize(p, -1)
        logits = z @ tf.transpose(z) / 0.05 - 1e9 * tf.eye(6)
        return tf.nn.sparse_softmax_cross_entropy_with_logits([1, 0, 3, 2, 5, 4], logits)

    return Case(around(dense(), loss=loss), *vectors(rng))


@tricky
def judged_by_a_network(rng: np.random.Generator) -> Case:
    """A loss that another network computes, which is none of the model's and not frozen."""
    judge = keras.Sequential([keras.Input((2,)), dense(), L.Dense(3)])
    loss = lambda y, p: tf.reduce_mean((judge(y) - judge(p)) ** 2)  # noqa: E731
    return Case(around(dense(), loss=loss), *vectors(rng))


@tricky
def matched_by_the_hungarian_method(rng: np.random.Generator) -> Case:
    """DETR: predictions matched to targets in NumPy, by costs that depend on the weights."""
    assign = pytest.importorskip("scipy.optimize").linear_sum_assignment

    def loss(y: Any, p: Any) -> Any:
        cost = tf.reduce_sum((p[:, None] - y[None]) ** 2, -1)
        match = tf.numpy_function(lambda c: assign(c)[1].astype(np.int64), [cost], tf.int64)
        return tf.reduce_mean((p - tf.gather(y, tf.ensure_shape(match, (6,)))) ** 2)

    return Case(around(dense(), loss=loss), *vectors(rng))


@tricky
def optimal_transport(rng: np.random.Generator) -> Case:
    """Five rounds of Sinkhorn's iteration in logarithms."""

    def loss(y: Any, p: Any) -> Any:
        scores = -tf.reduce_sum((p[:, None] - y[None]) ** 2, -1) / 0.2
        for _ in range(5):
            scores -= tf.reduce_logsumexp(scores, 0, keepdims=True)
            scores -= tf.reduce_logsumexp(scores, 1, keepdims=True)
        return tf.reduce_sum(tf.exp(scores) * tf.reduce_sum((p[:, None] - y[None]) ** 2, -1))

    return Case(around(dense(), loss=loss), *vectors(rng))


@tricky
def sampled_softmax(rng: np.random.Generator) -> Case:
    """A loss over a few classes drawn anew at each step."""

    def sampled(x: Any, w: Any, b: Any) -> Any:
        labels = tf.constant([[0], [5], [9], [2], [2], [1]], tf.int64)
        loss = tf.nn.sampled_softmax_loss(w, b, labels, x, num_sampled=4, num_classes=10, seed=3)
        return loss[:, None]

    layer = Formula(sampled, {"w": (10, 4), "b": (10,)}, name="classes")
    x, _ = vectors(rng)
    return Case(net(dense(), layer, loss=lambda y, p: p), x, np.zeros((6, 1)))
