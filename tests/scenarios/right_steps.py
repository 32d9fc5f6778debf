"""Right training steps: several updates, several batches, several networks."""

# mypy: allow-subclassing-any

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from right import Case, dense, descend, out_of_reach, stepping, tricky, vectors

L = keras.layers


@tricky
def sharpness_aware(rng: np.random.Generator) -> Case:
    """SAM: the second gradient is taken at weights moved uphill, and used at the old ones."""

    def step(model: Any, x: Any, y: Any) -> Any:
        weights = model.trainable_variables
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
        uphill = tape.gradient(loss, weights)
        norm = tf.linalg.global_norm(uphill)
        for weight, up in zip(weights, uphill, strict=True):
            weight.assign_add(0.05 * up / norm)
        with tf.GradientTape() as tape:
            above = tf.reduce_mean((model(x, training=True) - y) ** 2)
        gradients = tape.gradient(above, weights)
        for weight, up in zip(weights, uphill, strict=True):
            weight.assign_sub(0.05 * up / norm)
        model.optimizer.apply(gradients, weights)
        return loss

    return Case(stepping(step, dense(), L.Dense(2)), *vectors(rng))


@tricky
def accumulated_gradients(rng: np.random.Generator) -> Case:
    """Gradients gathered in variables over two batches, and applied every other time."""
    model = stepping(lambda *_: None, dense(), L.Dense(2))
    sums = [tf.Variable(tf.zeros(v.shape), trainable=False) for v in model.trainable_variables]
    count = tf.Variable(0, trainable=False)

    def step(model: Any, x: Any, y: Any) -> Any:
        weights = model.trainable_variables
        with tf.GradientTape() as tape:
            loss = model.compute_loss(y=y, y_pred=model(x, training=True)) / 2
        for total, gradient in zip(sums, tape.gradient(loss, weights), strict=True):
            total.assign_add(gradient)
        count.assign_add(1)

        def apply() -> Any:
            model.optimizer.apply([tf.identity(total) for total in sums], weights)
            for total in sums:
                total.assign(tf.zeros_like(total))
            return 0

        tf.cond(count % 2 == 0, apply, lambda: 0)
        return loss

    model.step = step
    model.optimizer.build(model.trainable_variables)
    return Case(model, *vectors(rng), raw=(*sums, count))


@tricky
def micro_batches(rng: np.random.Generator) -> Case:
    """A batch taken in three slices, whose gradients are added up before one step."""

    def step(model: Any, x: Any, y: Any) -> Any:
        weights = model.trainable_variables
        total = [tf.zeros(v.shape) for v in weights]
        for i in range(3):
            with tf.GradientTape() as tape:
                error = model(x[2 * i : 2 * i + 2], training=True) - y[2 * i : 2 * i + 2]
                loss = tf.reduce_mean(error**2) / 3
            total = [t + g for t, g in zip(total, tape.gradient(loss, weights), strict=True)]
        model.optimizer.apply(total, weights)
        return loss

    return Case(stepping(step, dense(), L.Dense(2)), *vectors(rng))


@tricky
def adversaries(rng: np.random.Generator) -> Case:
    """A GAN: two networks, tapes and optimizers, one network frozen in the other's gradient."""

    class Adversaries(keras.Model):
        def __init__(self) -> None:
            super().__init__(name="gan")
            self.maker = keras.Sequential([keras.Input((2,)), dense(), L.Dense(3)], name="maker")
            self.critic = keras.Sequential([keras.Input((3,)), dense(), L.Dense(1)], name="critic")
            self.seeds = keras.random.SeedGenerator(1)
            self.other = keras.optimizers.Adam(1e-3)

        def call(self, z: Any) -> Any:
            return self.critic(self.maker(z))

        def train_step(self, real: Any) -> Any:
            entropy = tf.nn.sigmoid_cross_entropy_with_logits
            noise = keras.random.normal((6, 2), seed=self.seeds)
            with tf.GradientTape() as one, tf.GradientTape() as two:
                fake = self.maker(noise, training=True)
                good, bad = self.critic(real, training=True), self.critic(fake, training=True)
                critics = tf.reduce_mean(
                    entropy(tf.ones_like(good), good) + entropy(tf.zeros_like(bad), bad)
                )
                makers = tf.reduce_mean(entropy(tf.ones_like(bad), bad))
            for tape, loss, part, optimizer in (
                (one, critics, self.critic, self.optimizer),
                (two, makers, self.maker, self.other),
            ):
                gradients = tape.gradient(loss, part.trainable_variables)
                optimizer.apply_gradients(zip(gradients, part.trainable_variables, strict=True))
            return {"loss": makers}

    model = Adversaries()
    model(tf.zeros((1, 2)))
    model.compile("adam")
    return Case(model, rng.normal(size=(6, 3)))


@tricky
def policy_gradient(rng: np.random.Generator) -> Case:
    """REINFORCE with a baseline that is stopped on purpose: the surrogate's gradient is right."""

    def step(model: Any, x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            logits = model(x, training=True)
            chosen = tf.random.stateless_categorical(logits, 1, seed=(1, 2))[:, 0]
            log_p = -tf.nn.sparse_softmax_cross_entropy_with_logits(chosen, logits)
            reward = tf.reduce_sum(y * tf.one_hot(chosen, 2), -1)
            advantage = reward - tf.reduce_mean(reward)
            loss = -tf.reduce_mean(advantage * log_p)
        gradients = tape.gradient(loss, model.trainable_variables)
        model.optimizer.apply(gradients, model.trainable_variables)
        return loss

    return Case(stepping(step, dense(), L.Dense(2)), *vectors(rng))


@tricky
def raw_variables_in_modules(rng: np.random.Generator) -> Case:
    """Weights in a tf.Module and a list of tf.Variables, found and stepped by hand."""

    class Affine(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = tf.Variable(tf.constant(rng.normal(size=(2, 2)), tf.float32), name="w")
            self.extra = [tf.Variable([0.1, -0.2], name="b")]

        def __call__(self, x: Any) -> Any:
            return x @ self.w + self.extra[0]

    affine = Affine()

    def step(model: Any, x: Any, y: Any) -> Any:
        variables = [*affine.trainable_variables, *(v.value for v in model.trainable_variables)]
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((affine(model(x, training=True)) - y) ** 2)
        for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
            variable.assign_sub(0.01 * gradient)
        return loss

    model = stepping(step, dense(), L.Dense(2))
    return Case(model, *vectors(rng), raw=tuple(affine.variables))


@tricky
def several_updates_in_a_step(rng: np.random.Generator) -> Case:
    """Three descents on one batch: later tapes see weights that the earlier ones moved."""

    def step(model: Any, x: Any, y: Any) -> Any:
        for _ in range(3):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
            descend(model, tape, loss)
        return loss

    return Case(stepping(step, dense(), L.Dense(2), optimizer="adam"), *vectors(rng))


@tricky
def gradients_of_each_sample(rng: np.random.Generator) -> Case:
    """DP-SGD: a Jacobian gives each sample's gradient, each of which is clipped."""

    def step(model: Any, x: Any, y: Any) -> Any:
        weights = model.trainable_variables
        with tf.GradientTape() as tape:
            losses = tf.reduce_mean((model(x, training=True) - y) ** 2, -1)
        rows = tape.jacobian(losses, weights)
        gradients = [tf.reduce_mean(tf.clip_by_norm(row, 1.0, axes=None), 0) for row in rows]
        model.optimizer.apply(gradients, weights)
        return tf.reduce_mean(losses)

    return Case(stepping(step, dense(), L.Dense(2)), *vectors(rng))


@tricky
def mixed_up_samples(rng: np.random.Generator) -> Case:
    """Mixup: a raw permutation of the batch and raw beta weights."""

    def step(model: Any, x: Any, y: Any) -> Any:
        order = tf.random.shuffle(tf.range(6))
        a, b = tf.random.gamma((6, 1), 0.4), tf.random.gamma((6, 1), 0.4)
        part = a / (a + b + 1e-6)
        x = part * x + (1 - part) * tf.gather(x, order)
        y = part * y + (1 - part) * tf.gather(y, order)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
        return descend(model, tape, loss)

    return Case(stepping(step, dense(), L.Dense(2)), *vectors(rng))


@out_of_reach
def complex_variables(rng: np.random.Generator) -> Case:
    """A raw complex variable: TensorFlow's gradient is the conjugate of the textbook's."""
    start = rng.normal(size=(2,)) + 1j * rng.normal(size=(2,))
    phase = tf.Variable(tf.constant(start, tf.complex64), name="phase")

    def step(model: Any, x: Any, y: Any) -> Any:
        variables = [phase, *model.trainable_variables]
        with tf.GradientTape() as tape:
            p = tf.abs(tf.cast(model(x, training=True), tf.complex64) * phase + phase**2)
            loss = tf.reduce_mean((p - y) ** 2)
        gradients = tape.gradient(loss, variables)
        phase.assign_sub(0.01 * gradients[0])
        model.optimizer.apply(gradients[1:], model.trainable_variables)
        return loss

    return Case(stepping(step, dense(), L.Dense(2)), *vectors(rng), raw=(phase,))
