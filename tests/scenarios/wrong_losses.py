"""Wrong losses and penalties."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from formula import wrong_backward
from wrong import BEFORE, Plant, around, planted, vectors

Call = Callable[..., Any]


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
