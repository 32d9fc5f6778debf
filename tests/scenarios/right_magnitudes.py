"""Right models whose gradients are zero, vanishing, tiny or huge, and losses that hide them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from formula import Formula
from right import Case, around, dense, images, net, series, tricky, vectors

L = keras.layers


@tricky
def zero_initialised_head(rng: np.random.Generator) -> Case:
    """A head of zeros passes no gradient on: the layers before it have exactly zero."""
    return Case(net(dense(), L.Dense(2, kernel_initializer="zeros")), *vectors(rng))


@tricky
def bias_of_attention_keys(rng: np.random.Generator) -> Case:
    """A key bias shifts all scores of a query alike: its gradient is zero but for round-off."""
    inputs = keras.Input((5, 3))
    attended = L.MultiHeadAttention(2, 3)(inputs, inputs, use_causal_mask=True)
    model = keras.Model(inputs, L.Dense(2)(L.GlobalMaxPooling1D()(attended)))
    model.compile("adam", "mse")
    return Case(model, *series(rng), reason="below_resolution")


@tricky
def bias_before_normalisation(rng: np.random.Generator) -> Case:
    """BatchNorm takes out the bias before it, on a batch of two."""
    layers = [L.BatchNormalization(), L.Activation("tanh")]
    return Case(around(*layers), *vectors(rng, 2), reason="below_resolution")


@tricky
def shift_shared_by_all_logits(rng: np.random.Generator) -> Case:
    """Adding one number to all logits changes no probability."""
    x, _ = vectors(rng)
    shift = Formula(lambda z, s: z + s, {"s": (1,)}, name="shift")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = net(dense(), L.Dense(3), shift, loss=loss)
    return Case(model, x, np.array([0, 1, 2, 0, 1, 2]), reason="below_resolution")


@tricky
def deep_and_vanishing(rng: np.random.Generator) -> Case:
    """Twelve sigmoid layers: the first get a gradient smaller by many powers of ten."""
    return Case(net(*(L.Dense(3, "sigmoid") for _ in range(12)), L.Dense(2)), *vectors(rng))


@tricky
def squared_again_and_again(rng: np.random.Generator) -> Case:
    """Twelve layers that square small numbers: what the last are given is 1e-200 and less."""
    x, y = vectors(rng)
    squares = [part for _ in range(12) for part in (L.Dense(3), L.Lambda(lambda z: z * z))]
    return Case(net(*squares, L.Dense(2)), 0.1 * x, y)


@tricky
def almost_trained_to_the_end(rng: np.random.Generator) -> Case:
    """Errors of 1e-5: the loss is 1e-10, and its gradient is still right."""
    x, y = vectors(rng)
    model = around(L.Activation("tanh"))
    return Case(model, x, model.predict_on_batch(x) + 1e-5 * y)


@tricky
def weights_of_a_million(rng: np.random.Generator) -> Case:
    """A kernel of size 1e6 behind inputs of size 1e-6."""
    start = keras.initializers.RandomNormal(stddev=1e6)
    x, y = vectors(rng)
    return Case(net(dense(4, kernel_initializer=start), L.Dense(2)), 1e-6 * x, y)


@tricky
def inputs_that_nobody_scaled(rng: np.random.Generator) -> Case:
    """Inputs of 1e4 and targets of 1e6 under a squared loss."""
    x, y = vectors(rng)
    return Case(net(L.Dense(4, "relu"), L.Dense(2)), 1e4 * x, 1e6 * y)


@tricky
def loss_with_a_large_constant(rng: np.random.Generator) -> Case:
    """A constant of 1e5 hides the loss from single precision."""
    return Case(
        around(dense(), loss=lambda y, p: 1e5 + tf.reduce_mean((y - p) ** 2)), *vectors(rng)
    )


@tricky
def residual_branches_before_a_head_of_zeros(rng: np.random.Generator) -> Case:
    """A head that is zero at first hands nothing back to branches that share an input."""
    given = keras.Input((6, 6, 2))
    x = L.Conv2D(4, 3, padding="same")(given)
    kept = x
    for _ in range(2):
        y = L.BatchNormalization(center=False, scale=False)(x)
        y = L.Conv2D(4, 3, padding="same", activation="swish")(y)
        x = L.Add()([L.Conv2D(4, 1)(x), L.Conv2D(4, 3, padding="same")(y)])
    x = L.Concatenate()([L.AveragePooling2D(2)(x), L.AveragePooling2D(2)(kept)])
    model = keras.Model(given, L.Dense(2, kernel_initializer="zeros")(L.Flatten()(x)), name="net")
    model.compile("sgd", "mse")
    return Case(model, *images(rng))


@tricky
def activations_of_next_to_nothing(rng: np.random.Generator) -> Case:
    """Activations of 1e-10 with kinks: a step is small beside them, not beside one."""
    tiny = L.Dense(16, kernel_initializer=keras.initializers.RandomNormal(stddev=1e-10))
    return Case(net(tiny, L.ReLU(), L.LayerNormalization(epsilon=1e-24), L.Dense(2)), *vectors(rng))


@tricky
def variance_by_two_means(rng: np.random.Generator) -> Case:
    """E[x²] − E[x]² of numbers near 30: right, though single precision loses four digits."""

    def loss(_y: Any, p: Any) -> Any:
        p = p + 30.0
        return tf.reduce_mean(p**2) - tf.reduce_mean(p) ** 2

    return Case(around(dense(), loss=loss), *vectors(rng))


@tricky
def cosine_of_zero_predictions(rng: np.random.Generator) -> Case:
    """A cosine loss at predictions of exactly zero, guarded by an epsilon: a curvature of 1e6."""
    layer = L.Dense(2, kernel_initializer="zeros")
    return Case(net(layer, loss="cosine_similarity"), *vectors(rng))


@tricky
def scale_before_layer_normalisation(rng: np.random.Generator) -> Case:
    """LayerNorm takes out the scale before it, but for its epsilon."""
    scale = Formula(lambda z, s: z * (2 + s), {"s": (1,)}, name="scale")
    norm = L.LayerNormalization(epsilon=1e-12)
    return Case(around(scale, norm), *vectors(rng))


@tricky
def deep_and_exploding(rng: np.random.Generator) -> Case:
    """Ten linear layers with large weights: the first get huge gradients."""
    start = keras.initializers.RandomNormal(stddev=3.0)
    layers = [L.Dense(4, kernel_initializer=start) for _ in range(10)]
    return Case(net(*layers, L.Dense(2)), *vectors(rng))


@tricky
def trained_to_the_end(rng: np.random.Generator) -> Case:
    """The targets are what the model says: the loss and all gradients are nothing but round-off."""
    x, _ = vectors(rng)
    model = around(L.Activation("tanh"))
    return Case(model, x, model.predict_on_batch(x))
