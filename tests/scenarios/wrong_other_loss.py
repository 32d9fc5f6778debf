"""Wrong training steps that train another loss than the compiled one."""

# mypy: allow-subclassing-any

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from wrong import (
    EVERYTHING,
    KERNELS,
    STEP,
    Plant,
    Stepping,
    error,
    on_the_tape,
    planted,
    stepping,
    threes,
)

from tfcheck import Verdict


def other_loss(model: keras.Model, x: Any, y: Any, wrong: set[str], weight: Any = None) -> Plant:
    """What a check says of a step that trains another loss than the compiled one."""
    return Plant(
        model, x, y, wrong, STEP, "other_loss", sample_weight=weight, verdict=Verdict.SUSPECT
    )


@planted
def forgotten_regularisation(rng: np.random.Generator) -> Plant:
    """A step that never adds model.losses, so that the kernels' penalties have no effect."""
    model = stepping(on_the_tape(lambda model, x, y, _: error(y, model(x))), penalty=0.05)
    return other_loss(model, *threes(rng), KERNELS)


@planted
def doubled_regularisation(rng: np.random.Generator) -> Plant:
    """A step from Keras 2, which adds model.losses to a compute_loss that has them already."""

    def loss(model: Any, x: Any, y: Any, _: Any) -> Any:
        return model.compute_loss(x, y, model(x, training=True)) + tf.add_n(model.losses)

    model = stepping(on_the_tape(loss), penalty=0.05)
    return other_loss(model, *threes(rng), KERNELS)


@planted
def ignored_sample_weights(rng: np.random.Generator) -> Plant:
    """A step that unpacks the sample weights and does not pass them on."""
    model = stepping(on_the_tape(lambda model, x, y, _: model.compute_loss(x, y, model(x))))
    return other_loss(model, *threes(rng), EVERYTHING, np.linspace(0.2, 3.0, 6))


@planted
def sum_instead_of_mean(rng: np.random.Generator) -> Plant:
    """A loss for each sample handed to the tape, which adds them up."""
    per_sample = keras.losses.mean_squared_error
    model = stepping(on_the_tape(lambda model, x, y, _: per_sample(y, model(x))))
    return other_loss(model, *threes(rng), EVERYTHING)


class TwoHeads(keras.Model):
    """A model of two outputs whose step adds their losses up, whatever it is compiled with."""

    def train_step(self, batch: Any) -> Any:
        x, (y, z) = batch
        with tf.GradientTape() as tape:
            first, second = self(x, training=True)
            loss = error(y, first) + error(z, second)
        variables = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return {"loss": loss}


@planted
def ignored_loss_weights(rng: np.random.Generator) -> Plant:
    """A step that gives each output the same weight, where the compiled loss does not."""
    inputs = keras.Input((3,))
    hidden = keras.layers.Dense(4, activation="tanh", name="shared")(inputs)
    heads = [keras.layers.Dense(3, name=name)(hidden) for name in ("first", "second")]
    model = TwoHeads(inputs, heads, name="net")
    model.compile("sgd", ["mse", "mse"], loss_weights=[1.0, 0.2])
    x, y = threes(rng)
    wrong = {f"{layer}/{part}" for layer in ("shared", "second") for part in ("kernel", "bias")}
    return other_loss(model, x, [y, y[::-1].copy()], wrong)


@planted
def ignored_mask(rng: np.random.Generator) -> Plant:
    """A loss by hand that counts the padded steps, which the compiled loss leaves out."""
    model = Stepping(
        [
            keras.Input((5, 3)),
            keras.layers.Masking(),
            keras.layers.SimpleRNN(3, return_sequences=True, name="rnn"),
            keras.layers.Dense(1, name="after"),
        ],
        name="net",
    )
    model.step = on_the_tape(lambda model, x, y, _: error(y, model(x)))
    model.compile("sgd", "mse")
    x, y = rng.normal(size=(4, 5, 3)), rng.normal(size=(4, 5, 1))
    x[:2, 3:] = 0.0
    return other_loss(model, x, y, {variable.path for variable in model.trainable_variables})
