"""Wrong training steps, whose tape misses a part of what they train."""

# mypy: allow-subclassing-any

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from formula import Formula, wrong_backward
from wrong import EVERYTHING, STEP, Plant, error, on_the_tape, planted, stepping, threes, vectors

Call = Callable[..., Any]


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
