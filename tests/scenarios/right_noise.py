"""Right models with random numbers: drawn by layers, drawn raw, with and without a gradient."""

# mypy: allow-subclassing-any

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from formula import Formula
from right import Case, around, dense, images, net, out_of_reach, tricky, vectors, wired

L = keras.layers


class Sampling(keras.layers.Layer):
    """z = mean + exp(log variance / 2) · noise, and its divergence from the prior as a loss."""

    def __init__(self) -> None:
        super().__init__()
        self.seeds = keras.random.SeedGenerator(3)

    def call(self, moments: Any) -> Any:
        mean, log_variance = tf.split(moments, 2, -1)
        divergence = 1 + log_variance - mean**2 - tf.exp(log_variance)
        self.add_loss(-0.5 * tf.reduce_mean(tf.reduce_sum(divergence, -1)))
        noise = keras.random.normal(tf.shape(mean), seed=self.seeds)
        return mean + tf.exp(0.5 * log_variance) * noise


@tricky
def variational_autoencoder(rng: np.random.Generator) -> Case:
    """Reparametrised sampling from a seed generator, and a divergence as a loss of the layer."""
    x, _ = vectors(rng)
    return Case(net(dense(), L.Dense(4), Sampling(), dense(), L.Dense(3)), x, x)


@tricky
def dropout_of_all_kinds(rng: np.random.Generator) -> Case:
    """Dropout and noise layers of every kind, between dense layers."""
    layers = [
        L.Dropout(0.5),
        dense(),
        L.GaussianNoise(0.5),
        dense(),
        L.GaussianDropout(0.3),
        dense(),
        L.AlphaDropout(0.3),
        dense(),
        L.Reshape((2, 2)),
        L.SpatialDropout1D(0.5),
        L.Flatten(),
    ]
    return Case(around(*layers), *vectors(rng))


@tricky
def raw_noise(rng: np.random.Generator) -> Case:
    """tf.random.normal in a call: other numbers at every evaluation."""
    noisy = Formula(lambda x, s: x + s * tf.random.normal(tf.shape(x)), {"s": (4,)}, name="noisy")
    return Case(around(noisy), *vectors(rng), reason="stochastic")


@tricky
def gumbel_softmax(rng: np.random.Generator) -> Case:
    """A relaxed choice: −log(−log u) of raw uniform numbers, at a low temperature."""

    def relaxed(x: Any) -> Any:
        u = tf.random.uniform(tf.shape(x), 1e-6, 1.0)
        return tf.nn.softmax((x - tf.math.log(-tf.math.log(u))) / 0.2)

    return Case(around(L.Lambda(relaxed)), *vectors(rng), reason="stochastic")


@tricky
def stochastic_depth(rng: np.random.Generator) -> Case:
    """Whole samples dropped from a residual branch by a Bernoulli mask of a seed generator."""
    seeds = keras.random.SeedGenerator(3)

    def wire(model: Any, x: Any, training: bool) -> Any:
        hidden = model.one(x)
        if training:
            keep = keras.random.binomial((6, 1), 1, 0.5, seed=seeds)
            hidden = hidden * keep / 0.5
        return model.two(hidden)

    x, y = vectors(rng)
    return Case(wired(wire, x, one=dense(), two=L.Dense(2)), x, y, raw=(seeds.state.value,))


@tricky
def raw_gamma_weights(rng: np.random.Generator) -> Case:
    """Raw gamma and Poisson noise that depends on no variable."""
    noise = L.Lambda(lambda x: x * tf.random.gamma((6, 4), 2.0) + tf.random.poisson((4,), 3.0))
    return Case(around(noise), *vectors(rng), reason="stochastic")


@tricky
def raw_noise_in_a_condition(rng: np.random.Generator) -> Case:
    """Raw flips and brightness of tf.image, which decide by tf.cond."""

    def augment(x: Any) -> Any:
        x = tf.image.random_flip_left_right(x)
        chance = tf.random.uniform(()) < 0.5
        x = tf.cond(chance, lambda: tf.image.random_brightness(x, 0.2), lambda: x)
        return tf.image.random_crop(x, (2, 5, 5, 2))

    layers = [L.Conv2D(2, 1), L.Lambda(augment, output_shape=(5, 5, 2)), L.Flatten(), L.Dense(2)]
    return Case(net(*layers, shape=(6, 6, 2)), *images(rng))


@out_of_reach
def reparametrised_gamma(rng: np.random.Generator) -> Case:
    """Gamma noise whose shape is learnt: an implicit gradient through the sampler."""

    def draw(x: Any, a: Any) -> Any:
        return x * tf.random.stateless_gamma((6, 4), seed=(1, 2), alpha=1.5 + a**2)

    return Case(around(Formula(draw, {"a": (4,)}, name="gamma")), *vectors(rng))


@out_of_reach
def stateful_gamma(rng: np.random.Generator) -> Case:
    """Raw gamma noise whose shape is learnt."""

    def draw(x: Any, a: Any) -> Any:
        return x * tf.random.gamma((6,), alpha=1.5 + a**2)

    return Case(around(Formula(draw, {"a": (4,)}, name="gamma")), *vectors(rng))


@tricky
def raw_noise_in_a_loop(rng: np.random.Generator) -> Case:
    """Raw random numbers in a graph loop."""

    @tf.function
    def walk(x: Any) -> Any:
        for _ in tf.range(3):
            x = tf.sin(x) + 0.1 * tf.random.normal((6, 4))
        return x

    return Case(around(L.Lambda(walk)), *vectors(rng))


@tricky
def raw_noise_in_a_function(rng: np.random.Generator) -> Case:
    """Raw random numbers in a tf.function without a loop."""

    @tf.function
    def noisy(x: Any) -> Any:
        return tf.sin(x) + 0.1 * tf.random.normal((6, 4))

    return Case(around(L.Lambda(noisy)), *vectors(rng))


@tricky
def own_generator(rng: np.random.Generator) -> Case:
    """Noise of a tf.random.Generator, whose state is a variable."""
    source = tf.random.Generator.from_seed(4)
    noisy = L.Lambda(lambda x: x + 0.3 * source.normal((6, 4)))
    return Case(around(noisy), *vectors(rng), raw=(source.state,))
