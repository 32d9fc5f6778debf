"""Right models that assign, keep, follow or capture what they do not train."""

# mypy: allow-subclassing-any

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from right import Case, around, dense, stepping, tricky, vectors

Call = Callable[..., Any]
L = keras.layers


@tricky
def spectral_normalisation(rng: np.random.Generator) -> Case:
    """A power iteration that assigns to its vector and kernel in every training step."""
    return Case(around(L.SpectralNormalization(dense())), *vectors(rng))


@tricky
def teacher_and_student(rng: np.random.Generator) -> Case:
    """A teacher that follows the student by moving averages, assigned before the tape."""
    teacher = keras.Sequential([keras.Input((3,)), dense(), L.Dense(2)], name="teacher")
    teacher.trainable = False

    def step(model: Any, x: Any, y: Any) -> Any:
        for slow, fast in zip(teacher.weights, model.weights, strict=True):
            slow.assign(0.9 * slow + 0.1 * fast)
        with tf.GradientTape() as tape:
            p = model(x, training=True)
            loss = tf.reduce_mean((p - y) ** 2) + tf.reduce_mean((p - teacher(x)) ** 2)
        gradients = tape.gradient(loss, model.trainable_variables)
        model.optimizer.apply(gradients, model.trainable_variables)
        return loss

    model = stepping(step, dense(), L.Dense(2))
    return Case(model, *vectors(rng), raw=tuple(v.value for v in teacher.weights))


def beside(step: Call, *networks: keras.layers.Layer) -> keras.Model:
    """A model of several networks, whose own step trains the first."""

    class Beside(keras.Model):
        def __init__(self) -> None:
            super().__init__(name="beside")
            self.networks = list(networks)

        def call(self, x: Any, training: bool = False) -> Any:
            return self.networks[0](x, training=training)

        def train_step(self, batch: Any) -> Any:
            x, y = batch
            with tf.GradientTape() as tape:
                loss = step(self, x, y)
            variables = self.networks[0].trainable_variables
            self.optimizer.apply(tape.gradient(loss, variables), variables)
            self.after()
            return {"loss": loss}

        def after(self) -> None:
            """Nothing more."""

    model = Beside()
    model.built = True
    model.compile("sgd")
    return model


def encoder(width: int = 4) -> keras.Model:
    """A network of which all print alike."""
    return keras.Sequential(
        [keras.Input((3,)), L.Dense(width, activation="tanh", name="hidden"), L.Dense(2)],
        name="encoder",
    )


def close_to_the_second(**how: Any) -> Call:
    """The loss of a first network that learns what a second one says."""

    def loss(model: Any, x: Any, y: Any) -> Any:
        first, second = model.networks[:2]
        p = first(x, training=True)
        return tf.reduce_mean((p - y) ** 2) + tf.reduce_mean((p - second(x, **how)) ** 2)

    return loss


@tricky
def momentum_encoder(rng: np.random.Generator) -> Case:
    """A trainable copy that the step itself keeps close; its variables print as the original's."""
    model = beside(close_to_the_second(), encoder(), encoder())

    def follow() -> None:
        for fast, slow in zip(*(network.weights for network in model.networks), strict=True):
            slow.assign(0.99 * slow + 0.01 * fast)

    model.after = follow
    return Case(model, *vectors(rng))


@tricky
def target_network(rng: np.random.Generator) -> Case:
    """A trainable copy that something else than the step brings up to date."""
    return Case(beside(close_to_the_second(), encoder(), encoder()), *vectors(rng))


@tricky
def teacher_on_the_tape(rng: np.random.Generator) -> Case:
    """A larger teacher within the tape's sight, not frozen, but called as at inference."""
    return Case(beside(close_to_the_second(training=False), encoder(), encoder(9)), *vectors(rng))


@tricky
def judge_on_the_tape(rng: np.random.Generator) -> Case:
    """A network that judges what the first one makes, not frozen, but called as at inference."""

    def loss(model: Any, x: Any, y: Any) -> Any:
        first, judge = model.networks
        made = first(x, training=True)
        return tf.reduce_mean((judge(made, training=False) - judge(y, training=False)) ** 2)

    judge = keras.Sequential([keras.Input((2,)), dense(5)], name="judge")
    return Case(beside(loss, encoder(), judge), *vectors(rng))


@tricky
def frozen_and_captured(rng: np.random.Generator) -> Case:
    """A frozen layer that a lambda captures, frozen after it was built."""
    features = dense(name="features")
    features.build((None, 4))
    features.trainable = False
    return Case(around(L.Lambda(lambda x: 2 * features(x))), *vectors(rng))


@tricky
def state_that_nobody_tracks(rng: np.random.Generator) -> Case:
    """A running mean and a counter in plain variables, trainable by TensorFlow's default."""
    mean, count = tf.Variable(tf.zeros((4,))), tf.Variable(1.0)

    def centred(x: Any) -> Any:
        mean.assign(0.9 * mean + 0.1 * tf.reduce_mean(x, 0))
        count.assign_add(1.0)
        return (x - mean) / tf.sqrt(count)

    layer = L.Lambda(centred)
    return Case(around(layer), *vectors(rng), raw=(mean, count))


@tricky
def running_centre(rng: np.random.Generator) -> Case:
    """A running mean, assigned in the call and read at once: no gradient flows through it."""

    class Centre(keras.layers.Layer):
        def build(self, shape: Any) -> None:
            self.centre = self.add_weight(shape=(shape[-1],), trainable=False, name="centre")

        def call(self, x: Any) -> Any:
            self.centre.assign(0.9 * self.centre + 0.1 * keras.ops.mean(x, 0))
            return keras.ops.tanh(x - self.centre)

    return Case(around(Centre()), *vectors(rng))


@tricky
def scores_kept_for_later(rng: np.random.Generator) -> Case:
    """A layer that keeps its last activations as an attribute, as for a plot."""

    class Keeping(keras.layers.Layer):
        last: Any = None

        def call(self, x: Any) -> Any:
            self.last = tf.tanh(x)
            return self.last

    return Case(around(Keeping()), *vectors(rng))


@tricky
def regrouped_kernels(rng: np.random.Generator) -> Case:
    """A kernel assigned to in the call before it is used: weights projected onto the unit ball."""

    class Projected(keras.layers.Layer):
        def build(self, shape: Any) -> None:
            self.kernel = self.add_weight(shape=(shape[-1], 3), name="kernel")

        def call(self, x: Any) -> Any:
            self.kernel.assign(self.kernel / tf.maximum(tf.norm(self.kernel), 1.0))
            return x @ self.kernel

    return Case(around(Projected(), L.Activation("tanh")), *vectors(rng))
