"""Wrong by omission: variables that a step leaves out, and weights that nobody tracks."""

# mypy: allow-subclassing-any

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from formula import Formula
from wrong import (
    EVERYTHING,
    KERNELS,
    STEP,
    Plant,
    around,
    error,
    planted,
    stepping,
    threes,
    vectors,
)

from tfcheck import Verdict


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
