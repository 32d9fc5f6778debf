"""Wrong in the optimizer, right on the tape."""

# mypy: allow-subclassing-any

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from wrong import EVERYTHING, KERNELS, STEP, Plant, handing, on_the_tape, planted, stepping, threes

from tfcheck import Verdict


@planted
def swapped_on_the_way(rng: np.random.Generator) -> Plant:
    """Two kernels' gradients, right on the tape, handed over in the wrong order."""
    model = handing(lambda g: [g[2], g[1], g[0], g[3]])
    return Plant(model, *threes(rng), KERNELS, STEP, "misapplied")


@planted
def negated_on_the_way(rng: np.random.Generator) -> Plant:
    """A gradient handed to the optimizer with the opposite sign."""
    model = handing(lambda g: [g[0], g[1], g[2], -g[3]])
    return Plant(model, *threes(rng), {"net/two/bias"}, STEP, "misapplied")


@planted
def scaled_on_the_way(rng: np.random.Generator) -> Plant:
    """Gradients of a mean divided by the size of the batch once more."""
    model = handing(lambda g: [each / 6 for each in g])
    return Plant(model, *threes(rng), EVERYTHING, STEP, "misapplied")


@planted
def zeroed_on_the_way(rng: np.random.Generator) -> Plant:
    """A gradient replaced by zeros, so that its variable never moves."""
    model = handing(lambda g: [tf.zeros_like(g[0]), *g[1:]])
    return Plant(model, *threes(rng), {"net/one/kernel"}, STEP, "misapplied")


@planted
def transposed_on_the_way(rng: np.random.Generator) -> Plant:
    """A square kernel's gradient transposed: the shape says nothing."""
    model = handing(lambda g: [tf.transpose(g[0]), *g[1:]])
    return Plant(model, *threes(rng), {"net/one/kernel"}, STEP, "misapplied")


@planted
def rows_rolled_on_the_way(rng: np.random.Generator) -> Plant:
    """The rows of a gradient moved by one."""
    model = handing(lambda g: [g[0], g[1], tf.roll(g[2], 1, 0), g[3]])
    return Plant(model, *threes(rng), {"net/two/kernel"}, STEP, "misapplied")


@planted
def dropped_by_a_short_zip(rng: np.random.Generator) -> Plant:
    """Gradients zipped with a list that is too short: the last variable goes without."""

    def step(model: Any, x: Any, y: Any, _: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = model.compute_loss(x, y, model(x, training=True))
        variables = model.trainable_variables
        gradients = tape.gradient(loss, variables)
        model.optimizer.apply_gradients(zip(gradients, variables[:-1], strict=False))
        return loss

    model = stepping(step)
    wrong = {"net/two/bias"}
    return Plant(model, *threes(rng), wrong, STEP, "misapplied", verdict=Verdict.SUSPECT)


@planted
def applied_twice(rng: np.random.Generator) -> Plant:
    """The optimizer is given the same gradients twice."""

    def step(model: Any, x: Any, y: Any, _: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = model.compute_loss(x, y, model(x, training=True))
        variables = model.trainable_variables
        gradients = tape.gradient(loss, variables)
        model.optimizer.apply(gradients, variables)
        model.optimizer.apply(gradients, variables)
        return loss

    return Plant(stepping(step), *threes(rng), EVERYTHING, STEP, "misapplied")


@planted
def never_applied(rng: np.random.Generator) -> Plant:
    """Gradients are found, and the optimizer is never given them."""

    def step(model: Any, x: Any, y: Any, _: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = model.compute_loss(x, y, model(x, training=True))
        tape.gradient(loss, model.trainable_variables)
        return loss

    model = stepping(step)
    return Plant(model, *threes(rng), EVERYTHING, STEP, "misapplied", verdict=Verdict.SUSPECT)


@planted
def loss_never_scaled(rng: np.random.Generator) -> Plant:
    """A LossScaleOptimizer divides by the scale that the loss was never multiplied with."""
    model = stepping(
        on_the_tape(lambda model, x, y, _: model.compute_loss(x, y, model(x, training=True))),
        keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()),
        "mse",
    )
    return Plant(model, *threes(rng), EVERYTHING, STEP, "misapplied")


@planted
def microbatches_not_averaged(rng: np.random.Generator) -> Plant:
    """Gradients of the means over two halves of the batch, added up and not halved."""

    def step(model: Any, x: Any, y: Any, _: Any) -> Any:
        variables = model.trainable_variables
        total = [tf.zeros(variable.shape) for variable in variables]
        for half in (slice(0, 3), slice(3, 6)):
            with tf.GradientTape() as tape:
                loss = model.compute_loss(x[half], y[half], model(x[half], training=True))
            found = tape.gradient(loss, variables)
            total = [a + g for a, g in zip(total, found, strict=True)]
        model.optimizer.apply(total, variables)
        return loss

    model = stepping(step)
    return Plant(model, *threes(rng), EVERYTHING, STEP, "other_loss", verdict=Verdict.SUSPECT)


class Adversaries(keras.Model):
    """A generator and a judge of equal shapes, both updated with the gradients of the judge."""

    def __init__(self) -> None:
        super().__init__(name="gan")
        self.generator = self.layer("generator")
        self.judge = self.layer("judge")
        self.built = True

    @staticmethod
    def layer(name: str) -> keras.Model:
        dense = keras.layers.Dense(3, name="dense")
        return keras.Sequential([keras.Input((3,)), dense], name=name)

    def call(self, x: Any) -> Any:
        return self.judge(self.generator(x))

    def train_step(self, batch: Any) -> Any:
        x, y = batch
        with tf.GradientTape(persistent=True) as tape:
            real, forged = self.judge(y), self.judge(self.generator(x))
            of_judge = tf.reduce_mean(tf.nn.softplus(-real) + tf.nn.softplus(forged))
            of_generator = tf.reduce_mean(tf.nn.softplus(-forged))
        ours, theirs = self.judge.trainable_variables, self.generator.trainable_variables
        gradients = tape.gradient(of_judge, ours)
        self.optimizer.apply_gradients(zip(gradients, ours, strict=True))
        tape.gradient(of_generator, theirs)
        self.optimizer.apply_gradients(zip(gradients, theirs, strict=True))
        return {"loss": of_generator}


@planted
def gradient_of_the_adversary(rng: np.random.Generator) -> Plant:
    """A generator updated with the gradients that were found for the discriminator."""
    model = Adversaries()
    wrong = {"generator/dense/kernel", "generator/dense/bias"}
    model.compile(keras.optimizers.SGD())
    return Plant(model, *threes(rng), wrong, STEP, "misapplied")
