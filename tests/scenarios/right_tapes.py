"""Right steps with tapes in tapes, tapes asked twice, and what is computed before the tape."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from right import Case, dense, descend, stepping, tricky, vectors, wired

L = keras.layers


@tricky
def gradient_penalty(rng: np.random.Generator) -> Case:
    """A tape in a tape: the norm of the gradient at mixed inputs is driven to one."""

    def step(model: Any, x: Any, y: Any) -> Any:
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                inner.watch(x)
                score = model(x, training=True)
            slope = inner.gradient(score, x)
            norm = tf.sqrt(tf.reduce_sum(slope**2, 1) + 1e-12)
            loss = tf.reduce_mean(score) + 10 * tf.reduce_mean((norm - 1) ** 2)
        gradients = outer.gradient(loss, model.trainable_variables)
        model.optimizer.apply(gradients, model.trainable_variables)
        return loss

    return Case(stepping(step, dense(), L.Dense(1)), *vectors(rng))


@tricky
def second_derivatives(rng: np.random.Generator) -> Case:
    """A physics-informed loss: u'' + u = 0 with second derivatives by two inner tapes."""

    def step(model: Any, x: Any, y: Any) -> Any:
        with tf.GradientTape() as outer:
            with tf.GradientTape() as second:
                second.watch(x)
                with tf.GradientTape() as first:
                    first.watch(x)
                    u = model(x, training=True)
                slope = first.gradient(u, x)
            curvature = second.gradient(slope, x)
            loss = tf.reduce_mean((curvature + u) ** 2) + tf.reduce_mean((u - y) ** 2)
        gradients = outer.gradient(loss, model.trainable_variables)
        model.optimizer.apply(gradients, model.trainable_variables)
        return loss

    model = stepping(step, dense(8), dense(8), L.Dense(1), shape=(1,), optimizer="adam")
    return Case(model, rng.normal(size=(6, 1)), rng.normal(size=(6, 1)))


@tricky
def unrolled_inner_step(rng: np.random.Generator) -> Case:
    """MAML: a step downhill inside of the loss, with the gradient of the gradient."""

    def predict(weights: Any, x: Any) -> Any:
        return tf.tanh(x @ weights[0] + weights[1]) @ weights[2] + weights[3]

    def step(model: Any, x: Any, y: Any) -> Any:
        with tf.GradientTape() as outer:
            weights = [tf.convert_to_tensor(v) for v in model.trainable_variables]
            with tf.GradientTape() as inner:
                inner.watch(weights)
                loss = tf.reduce_mean((predict(weights, x[:3]) - y[:3]) ** 2)
            down = inner.gradient(loss, weights)
            weights = [w - 0.3 * g for w, g in zip(weights, down, strict=True)]
            loss = tf.reduce_mean((predict(weights, x[3:]) - y[3:]) ** 2)
        gradients = outer.gradient(loss, model.trainable_variables)
        model.optimizer.apply(gradients, model.trainable_variables)
        return loss

    return Case(stepping(step, dense(), L.Dense(2)), *vectors(rng))


@tricky
def persistent_tape(rng: np.random.Generator) -> Case:
    """One tape asked twice, for two losses of two parts, with stop_recording in between."""

    def step(model: Any, x: Any, y: Any) -> Any:
        one, two = model.layers[0], model.layers[1]
        with tf.GradientTape(persistent=True) as tape:
            hidden = one(x)
            first = tf.reduce_mean(hidden**2)
            with tape.stop_recording():
                size = tf.norm(hidden)
            second = tf.reduce_mean((two(hidden) - y) ** 2) + 0 * size
        for part, loss in ((one, first), (two, second)):
            variables = part.trainable_variables
            model.optimizer.apply_gradients(
                zip(tape.gradient(loss, variables), variables, strict=True)
            )
        return second

    model = stepping(step, dense(), L.Dense(2))
    model.optimizer.build(model.trainable_variables)
    return Case(model, *vectors(rng))


@tricky
def forward_mode_in_the_loss(rng: np.random.Generator) -> Case:
    """A directional derivative by a ForwardAccumulator, driven to a value by the outer tape."""

    def step(model: Any, x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            with tf.autodiff.ForwardAccumulator(x, tf.ones_like(x)) as forward:
                p = model(x, training=True)
            loss = tf.reduce_mean((p - y) ** 2) + tf.reduce_mean(forward.jvp(p) ** 2)
        return descend(model, tape, loss)

    return Case(stepping(step, dense(), L.Dense(2)), *vectors(rng))


@tricky
def gradient_of_the_input_as_a_feature(rng: np.random.Generator) -> Case:
    """An energy network: forces are the tape's gradient of the energy inside the call."""

    def wire(model: Any, x: Any, training: bool) -> Any:
        x = tf.cast(x, tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(x)
            energy = model.out(model.one(x))
        return -tape.gradient(energy, x)

    x, _ = vectors(rng)
    model = wired(wire, x, one=dense(8), out=L.Dense(1, use_bias=False))
    return Case(model, x, np.sin(x))


@tricky
def adversarial_signs(rng: np.random.Generator) -> Case:
    """FGSM: the sign of the input's gradient, piecewise constant in the weights."""

    def step(model: Any, x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
        moved = x + 0.1 * tf.sign(tape.gradient(loss, x))
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(moved, training=True) - y) ** 2)
        return descend(model, tape, loss)

    return Case(stepping(step, dense(), L.Dense(2)), *vectors(rng))


@tricky
def weighted_by_gradient_norms(rng: np.random.Generator) -> Case:
    """Two tasks weighted by the inverse norms of their gradients, by an inner persistent tape."""

    def step(model: Any, x: Any, y: Any) -> Any:
        kernel = model.trainable_variables[0]
        with tf.GradientTape() as outer:
            with tf.GradientTape(persistent=True) as inner:
                p = model(x, training=True)
                one, two = tf.reduce_mean((p - y) ** 2), tf.reduce_mean(tf.abs(p + y))
            first = tf.norm(inner.gradient(one, kernel.value))
            second = tf.norm(inner.gradient(two, kernel.value))
            loss = one / first + two / second
        return descend(model, outer, loss)

    return Case(stepping(step, dense(), L.Dense(2)), *vectors(rng))


@tricky
def bootstrapped_targets(rng: np.random.Generator) -> Case:
    """Q-learning: the target is made by the same network, but before the tape begins."""

    def step(model: Any, x: Any, y: Any) -> Any:
        best = tf.reduce_max(model(x + y[:, :1], training=True), -1)
        target = y[:, 0] + 0.9 * best
        with tf.GradientTape() as tape:
            value = tf.reduce_max(model(x, training=True) * [1.0, 0.5], -1)
            loss = tf.reduce_mean((value - target) ** 2)
        return descend(model, tape, loss)

    return Case(stepping(step, dense(), L.Dense(2)), *vectors(rng))


@tricky
def targets_under_stop_recording(rng: np.random.Generator) -> Case:
    """The model's own output as a target, made while the tape does not record."""

    def step(model: Any, x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            p = model(x, training=True)
            with tape.stop_recording():
                target = 0.5 * (model(x[::-1], training=True) + y)
            loss = tf.reduce_mean((p - target) ** 2)
        return descend(model, tape, loss)

    return Case(stepping(step, dense(), L.Dense(2)), *vectors(rng))


@tricky
def adversarial_examples(rng: np.random.Generator) -> Case:
    """Inputs moved uphill by a first tape, in a direction that depends on the weights."""

    def step(model: Any, x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
        moved = x + 0.3 * tf.math.l2_normalize(tape.gradient(loss, x), -1)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(moved, training=True) - y) ** 2)
        return descend(model, tape, loss)

    return Case(stepping(step, dense(), L.Dense(2)), *vectors(rng))


@tricky
def proximal_policy(rng: np.random.Generator) -> Case:
    """PPO: old probabilities made before the tape, so that the ratio is one, its slope is not."""

    def step(model: Any, x: Any, y: Any) -> Any:
        old = tf.nn.log_softmax(model(x, training=True))[:, 0]
        with tf.GradientTape() as tape:
            new = tf.nn.log_softmax(model(x, training=True))[:, 0]
            ratio = tf.exp(new - old)
            clipped = tf.clip_by_value(ratio, 0.8, 1.2)
            loss = -tf.reduce_mean(tf.minimum(ratio * y[:, 0], clipped * y[:, 0]))
        return descend(model, tape, loss)

    return Case(stepping(step, dense(), L.Dense(2)), *vectors(rng))


@tricky
def responsibilities_before_the_tape(rng: np.random.Generator) -> Case:
    """EM: soft assignments by the model itself, fixed while its likelihood is raised."""

    def step(model: Any, x: Any, y: Any) -> Any:
        soft = tf.nn.softmax(model(x, training=True) * 2)
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(tf.reduce_sum(soft * tf.nn.log_softmax(model(x)), -1))
        return descend(model, tape, loss)

    return Case(stepping(step, dense(), L.Dense(2)), *vectors(rng))
