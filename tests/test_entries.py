"""Perturbing entries many at once gives what perturbing them one by one gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tfcheck.check import check_gradients
from tfcheck.checker import GradientChecker
from tfcheck.evaluate.around import Around
from tfcheck.measure.directions import scale_of
from tfcheck.objective.objective import Objective
from tfcheck.objective.point import Base
from tfcheck.settings import Settings
from tfcheck.trace.batch import first_batch

LIMIT = 2**28


def sequential(shape: tuple[int, ...], *parts: Any) -> keras.Model:
    """The layers, and what makes three classes of what they give."""
    return keras.Sequential([keras.Input(shape), *parts, layers.Flatten(), layers.Dense(3)])


def residual() -> keras.Model:
    """Branches that meet again, by a sum and side by side."""
    x = keras.Input((6, 6, 4))
    y = layers.Conv2D(4, 3, padding="same")(x)
    y = layers.BatchNormalization()(y)
    y = layers.ReLU()(layers.Add()([x, y]))
    y = layers.Concatenate()([y, layers.Conv2D(2, 1)(y)])
    return keras.Model(x, layers.Dense(3)(layers.GlobalAveragePooling2D()(y)))


def attention() -> keras.Model:
    """Attention, a residual connection and what normalises it."""
    x = keras.Input((5, 8))
    y = layers.MultiHeadAttention(2, 4)(x, x)
    y = layers.LayerNormalization()(layers.Add()([x, y]))
    return keras.Model(x, layers.Dense(3)(layers.GlobalMaxPooling1D()(y)))


class Tied(keras.Model):  # type: ignore[misc]
    """One kernel twice, the second time transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = self.add_weight(shape=(5, 4), initializer="glorot_uniform")
        self.out = layers.Dense(3)

    def call(self, x: Any) -> Any:
        return self.out(tf.tanh(tf.matmul(tf.tanh(x @ self.kernel), self.kernel, transpose_b=True)))


class Broadcast(keras.Model):  # type: ignore[misc]
    """Weights with axes of size 1, a scalar, shapes asked for at run time, and `IdentityN`."""

    def __init__(self) -> None:
        super().__init__()
        self.row = self.add_weight(shape=(1, 5), initializer="glorot_uniform")
        self.one = self.add_weight(shape=(1,), initializer="ones")
        self.scalar = self.add_weight(shape=(), initializer="ones")
        self.table = self.add_weight(shape=(1, 3, 1), initializer="ones")
        self.out = layers.Dense(3)

    def call(self, x: Any) -> Any:
        y = keras.activations.silu(tf.where(x > 0, x * self.row, x + self.one)) * self.scalar
        y = tf.reshape(y, (tf.shape(y)[0], 1, 5)) * self.table
        return self.out(tf.reshape(tf.tanh(y), (-1, 15)))


class Branching(keras.Model):  # type: ignore[misc]
    """A branch and a loop of the graph's own, and operations no rule knows."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = self.add_weight(shape=(5, 4), initializer="glorot_uniform")
        self.out = layers.Dense(3)

    def call(self, x: Any) -> Any:
        y = x @ self.kernel
        y = tf.cond(tf.reduce_sum(y) > 0, lambda: tf.sinh(y), lambda: tf.sin(y))
        y = tf.while_loop(lambda i, _: i < 3, lambda i, z: (i + 1, tf.tanh(z) * 1.5), (0, y))[1]
        return self.out(tf.sort(tf.cumsum(y, axis=1), axis=1))


def cholesky() -> keras.Model:
    """A decomposition of a matrix made of a weight."""

    class Whiten(layers.Layer):  # type: ignore[misc]
        def build(self, _shape: Any) -> None:
            self.root = self.add_weight(shape=(4, 4), initializer="orthogonal")

        def call(self, x: Any) -> Any:
            covariance = tf.matmul(self.root, self.root, transpose_b=True) + tf.eye(4)
            return tf.transpose(
                tf.linalg.cholesky_solve(tf.linalg.cholesky(covariance), tf.transpose(x))
            )

    return sequential((4,), Whiten())


l2 = keras.regularizers.L2(0.01)
l1 = keras.regularizers.L1L2(0.01, 0.02)
rng = np.random.default_rng(0)

MODELS: dict[str, tuple[Callable[[], keras.Model], Any]] = {
    "dense": (lambda: sequential((7,), layers.Dense(5, "tanh"), layers.Dense(4, "gelu")), (7,)),
    "regularised": (
        lambda: sequential(
            (7,),
            layers.Dense(5, "elu", kernel_regularizer=l2, bias_regularizer=l1),
            layers.Dense(4, kernel_regularizer="orthogonal_regularizer", activity_regularizer=l2),
        ),
        (7,),
    ),
    "dense in sequence": (
        lambda: sequential((4, 6), layers.Dense(5, "silu"), layers.Dense(3)),
        (4, 6),
    ),
    "convolutions": (
        lambda: sequential(
            (9, 8, 3),
            layers.Conv2D(4, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2D(5, (2, 3), activation="tanh"),
            layers.Conv2D(3, 1),
        ),
        (9, 8, 3),
    ),
    "dilated": (
        lambda: sequential(
            (9, 9, 2), layers.Conv2D(3, 3, dilation_rate=2), layers.AveragePooling2D(2)
        ),
        (9, 9, 2),
    ),
    "pooled": (
        lambda: sequential(
            (8, 8, 2),
            layers.Conv2D(3, 3, padding="same"),
            layers.MaxPooling2D(3, strides=2, padding="same"),
            layers.ReLU(),
            layers.Conv2D(2, 3, padding="same", use_bias=False),
            layers.GlobalAveragePooling2D(),
        ),
        (8, 8, 2),
    ),
    "grouped": (lambda: sequential((6, 6, 4), layers.Conv2D(4, 3, groups=2)), (6, 6, 4)),
    "depthwise": (
        lambda: sequential(
            (6, 6, 3),
            layers.Conv2D(4, 1),
            layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same"),
            layers.SeparableConv2D(5, 3),
        ),
        (6, 6, 3),
    ),
    "transposed convolution": (
        lambda: sequential((4, 4, 2), layers.Conv2DTranspose(3, 3, strides=2)),
        (4, 4, 2),
    ),
    "one dimension": (
        lambda: sequential(
            (9, 3),
            layers.Conv1D(4, 3, padding="causal"),
            layers.MaxPooling1D(2),
            layers.Conv1D(2, 2),
        ),
        (9, 3),
    ),
    "three dimensions": (lambda: sequential((4, 4, 4, 2), layers.Conv3D(2, 2)), (4, 4, 4, 2)),
    "norms": (
        lambda: sequential(
            (6, 6, 4),
            layers.Conv2D(4, 1),
            layers.BatchNormalization(),
            layers.GroupNormalization(2),
            layers.LayerNormalization(),
            layers.UnitNormalization(),
        ),
        (6, 6, 4),
    ),
    "recurrent": (
        lambda: sequential((4, 3), layers.LSTM(3, return_sequences=True), layers.GRU(2)),
        (4, 3),
    ),
    "einsum": (
        lambda: sequential((4, 6), layers.EinsumDense("abc,cde->abde", (4, 2, 3), bias_axes="de")),
        (4, 6),
    ),
    "permuted": (
        lambda: sequential(
            (4, 6),
            layers.Dense(8),
            layers.Reshape((4, 2, 4)),
            layers.Permute((2, 1, 3)),
            layers.Dense(2, "relu"),
        ),
        (4, 6),
    ),
    "residual": (residual, (6, 6, 4)),
    "attention": (attention, (5, 8)),
    "tied": (Tied, (5,)),
    "broadcast": (Broadcast, (5,)),
    "shared slopes": (
        lambda: sequential((5, 5, 2), layers.Conv2D(3, 2), layers.PReLU(shared_axes=[1, 2])),
        (5, 5, 2),
    ),
    "same and dilated": (
        lambda: sequential((7, 7, 2), layers.Conv2D(3, 3, padding="same", dilation_rate=2)),
        (7, 7, 2),
    ),
    "branching": (Branching, (5,)),
    "cholesky": (cholesky, (4,)),
    "spectral": (lambda: sequential((5,), layers.SpectralNormalization(layers.Dense(4))), (5,)),
}


def at(model: keras.Model, x: Any) -> tuple[Objective, Base]:
    """The objective of a model, compiled for three classes, at a point of no special place."""
    y = rng.integers(0, 3, len(x))
    model(x)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    for variable in model.trainable_variables:
        variable.assign_add(0.1 * rng.standard_normal(variable.shape))
    objective = GradientChecker(model, Settings()).objective(batch := first_batch(x, y))
    return objective, objective.at(batch)


def assert_same(objective: Objective, base: Base) -> None:
    """Assert that losses with entries perturbed at once are those of plain perturbation."""
    for parameter in objective.parameters:
        value = objective.value(base, parameter)
        entries = Around(objective).entries(base, parameter, LIMIT)
        assert entries is not None, parameter.path
        count = min(4, value.size)
        index = rng.choice(value.size, count, replace=False)
        change = scale_of(value) * rng.choice([-0.3, 0.3, 1e-3], count)
        along = objective.along(base, parameter)
        expected = []
        for entry, step in zip(index, change, strict=True):
            displacement = np.zeros(value.size)
            displacement[entry] = step
            expected.append(along(displacement.reshape(value.shape)))
        found = entries.losses(index, change)
        np.testing.assert_allclose(found, expected, rtol=3e-14, atol=0, err_msg=parameter.path)
        assert np.ptp(found) > 0 or value.size == 1 or np.ptp(expected) == 0, parameter.path


@pytest.mark.parametrize("name", MODELS)
def test_entries_at_once_are_what_they_are_one_by_one(name: str) -> None:
    """Losses with perturbed entries are those of plain perturbation, to rounding."""
    make, shape = MODELS[name]
    keras.utils.set_random_seed(1)
    assert_same(*at(make(), rng.standard_normal((3, *shape)).astype("float32")))


@pytest.mark.parametrize("confidence", [0.0, 12.0, 25.0])
def test_entries_through_a_cross_entropy_keep_its_precision(confidence: float) -> None:
    """Also where the model is so sure that the loss is next to nothing."""
    keras.utils.set_random_seed(1)
    labels = np.array([0, 1, 2])
    x = rng.standard_normal((3, 4)).astype("float32")
    for loss, y in (
        (keras.losses.SparseCategoricalCrossentropy(from_logits=True), labels),
        (keras.losses.CategoricalCrossentropy(from_logits=True), np.eye(3)[labels]),
    ):
        inputs = keras.Input((4,))
        sure = layers.Lambda(lambda z: z + confidence * tf.eye(3, dtype=z.dtype))
        model = keras.Model(inputs, sure(layers.Dense(3)(inputs)))
        model.compile("sgd", loss)
        objective = GradientChecker(model, Settings()).objective(batch := first_batch(x, y))
        if objective.facts.precision == "float64":
            assert_same(objective, objective.at(batch))


def test_entries_of_an_embedding() -> None:
    """Rows of a table that occur several times, once, or not at all."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((4,), dtype="int32"),
            layers.Embedding(6, 3),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    assert_same(*at(model, np.array([[0, 1, 1, 4], [4, 4, 2, 0]], "int32")))


def test_less_memory_means_fewer_entries_at_once() -> None:
    """The limit bounds how many entries are perturbed at once, down to one by one."""
    objective, base = at(MODELS["convolutions"][0](), rng.standard_normal((3, 9, 8, 3)))
    parameter = objective.parameters[0]
    counts = []
    for limit in (2**30, 2**20):
        entries = Around(objective).entries(base, parameter, limit)
        assert entries is not None
        counts.append(entries.at_once)
    assert counts[0] > counts[1]
    assert Around(objective).entries(base, parameter, 2**10) is None


def test_progress_is_told_within_a_variable() -> None:
    """A sweep over every entry says how far it is while it is in the middle of a variable."""
    told: list[tuple[str, int, int]] = []
    model = sequential((40,), layers.Dense(30, "tanh"))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    batch = first_batch(rng.standard_normal((2048, 40)), rng.integers(0, 3, 2048))
    checker = GradientChecker(model, Settings(method="full"))
    checker.check(batch, progress=lambda what, done, total: told.append((what, done, total)))
    steps = [(done, total) for what, done, total in told if what.endswith("kernel")]
    assert steps == sorted(steps)
    assert sum(0 < done < 1200 and total == 1323 for done, total in steps) > 2


def test_a_full_check_agrees_with_one_along_directions() -> None:
    """Both methods pass a right model, and both name a wrong kernel."""

    @tf.custom_gradient
    def wrong(x: Any) -> Any:
        return tf.tanh(x), lambda upstream: 1.01 * upstream * (1 - tf.tanh(x) ** 2)

    for activation, verdict in (("tanh", "pass"), (wrong, "fail")):
        model = sequential((6, 6, 2), layers.Conv2D(3, 3, activation=activation))
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        x, y = rng.standard_normal((3, 6, 6, 2)), rng.integers(0, 3, 3)
        full = check_gradients(model, x, y, method="full")
        plain = check_gradients(model, x, y)
        assert full.verdict == plain.verdict == verdict
        for one, other in zip(full.variables, plain.variables, strict=True):
            assert one.verdict == other.verdict
            assert one.score == pytest.approx(other.score, rel=3, abs=1e-7)
