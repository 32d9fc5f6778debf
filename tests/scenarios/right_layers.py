"""Right models of normalised, reparametrised and unusually wired layers."""

# mypy: allow-subclassing-any

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from formula import Formula
from right import Case, around, dense, images, net, tricky, vectors, wired

L = keras.layers


@tricky
def normalisations_of_all_kinds(rng: np.random.Generator) -> Case:
    """Batch, synchronised, group, layer, RMS and unit normalisation after another."""
    layers = [
        L.Conv2D(4, 3),
        L.BatchNormalization(synchronized=True),
        L.GroupNormalization(2),
        L.Activation("gelu"),
        L.Conv2D(4, 2),
        L.LayerNormalization(),
        L.RMSNormalization(),
        L.UnitNormalization(),
        L.Flatten(),
        L.Dense(2),
    ]
    return Case(net(*layers, shape=(6, 6, 2)), *images(rng, 3))


@tricky
def batch_normalisation_of_a_constant(rng: np.random.Generator) -> Case:
    """A feature without any variance: 1/sqrt(0 + epsilon), and a large curvature."""
    x, y = vectors(rng)
    x[:, 1] = 2.0
    return Case(net(L.BatchNormalization(), dense(), L.Dense(2)), x, y)


@tricky
def orthogonality_penalty(rng: np.random.Generator) -> Case:
    """‖WᵀW − 1‖² of a matrix that is orthogonal: a quartic valley with a vanishing gradient."""
    layer = dense(
        3,
        kernel_initializer="orthogonal",
        kernel_regularizer=keras.regularizers.OrthogonalRegularizer(0.1),
    )
    return Case(net(layer, L.Dense(2)), *vectors(rng))


@tricky
def low_rank_adapters(rng: np.random.Generator) -> Case:
    """LoRA: one factor is zero, so that the other one's gradient is zero, and the kernel frozen."""
    model = around(dense())
    model.layers[0].enable_lora(2)
    model.layers[1].enable_lora(2)
    return Case(model, *vectors(rng))


@tricky
def frozen_integers(rng: np.random.Generator) -> Case:
    """A frozen kernel in 8-bit integers, dequantised in the forward pass."""

    class Quantised(keras.layers.Layer):
        def build(self, shape: Any) -> None:
            self.kernel = self.add_weight(
                shape=(shape[-1], 4), dtype="int8", initializer="ones", trainable=False
            )
            self.kernel.assign(np.arange(16).reshape(4, 4) - 8)
            self.scale = self.add_weight(shape=(4,), name="scale")

        def call(self, x: Any) -> Any:
            return x @ (tf.cast(self.kernel, x.dtype) * self.scale)

    return Case(around(Quantised(), L.Activation("tanh")), *vectors(rng))


@tricky
def hypernetwork(rng: np.random.Generator) -> Case:
    """The weights of one layer are the output of another."""

    def wire(model: Any, x: Any, _training: bool) -> Any:
        weights = tf.reshape(model.maker(x), (-1, 3, 2))
        return tf.einsum("bi,bio->bo", x, weights)

    x, y = vectors(rng)
    return Case(wired(wire, x, maker=dense(6)), x, y)


@tricky
def residual_network(rng: np.random.Generator) -> Case:
    """Five residual blocks with BatchNorm and rectifiers, on a batch of four."""
    x = inputs = keras.Input((3,))
    for _ in range(5):
        hidden = L.Activation("relu")(L.BatchNormalization()(L.Dense(3)(x)))
        x = L.Add()([x, L.Dense(3)(hidden)])
    model = keras.Model(inputs, L.Dense(2)(x))
    model.compile("sgd", "mse")
    return Case(model, *vectors(rng, 4))


@tricky
def twins(rng: np.random.Generator) -> Case:
    """A Siamese network: a shared encoder, a distance with a guard, a contrastive margin."""
    encoder = keras.Sequential([keras.Input((3,)), dense(), L.Dense(2)], name="encoder")
    left, right = keras.Input((3,)), keras.Input((3,))
    gap = L.Subtract()([encoder(left), encoder(right)])
    distance = L.Lambda(lambda d: tf.sqrt(tf.maximum(tf.reduce_sum(d**2, -1, True), 1e-7)))(gap)
    model = keras.Model([left, right], distance)
    model.compile(
        "sgd",
        lambda y, d: (
            tf.cast(y, d.dtype) * d**2 + (1 - tf.cast(y, d.dtype)) * tf.maximum(1 - d, 0.0) ** 2
        ),
    )
    x, _ = vectors(rng)
    other = x[::-1].copy()
    other[0] = x[0]
    return Case(model, [x, other], np.array([[1], [0], [1], [0], [1], [0]]))


@tricky
def capsules(rng: np.random.Generator) -> Case:
    """Capsules with three rounds of routing by agreement and squashed norms."""

    def route(x: Any, w: Any) -> Any:
        votes = tf.einsum("bi,iod->biod", x, w)
        logits = tf.zeros(tf.shape(votes)[:3])
        for _ in range(3):
            total = tf.einsum("bio,biod->bod", tf.nn.softmax(logits, -1), votes)
            square = tf.reduce_sum(total**2, -1, keepdims=True)
            out = square / (1 + square) * total / tf.sqrt(square + 1e-9)
            logits += tf.einsum("bod,biod->bio", out, votes)
        return tf.reshape(out, (-1, 6))

    return Case(around(Formula(route, {"w": (4, 2, 3)}, name="route")), *vectors(rng))


@tricky
def mixture_of_experts(rng: np.random.Generator) -> Case:
    """Two of four experts for each sample by top_k; two experts are hardly ever chosen."""

    def mix(x: Any, gate: Any, experts: Any) -> Any:
        value, index = tf.math.top_k(x @ gate + [3.0, 2.0, 0.0, -9.0], 2)
        chosen = tf.gather(experts, index)
        out = tf.einsum("bi,bkio->bko", x, chosen)
        return tf.reduce_sum(tf.nn.softmax(value)[..., None] * out, 1)

    layer = Formula(mix, {"gate": (4, 4), "experts": (4, 4, 3)}, name="experts")
    return Case(around(layer), *vectors(rng))


@tricky
def more_than_32_variables(rng: np.random.Generator) -> Case:
    """A dense block of twenty layers, each with all before it, dead units among them."""
    x = inputs = keras.Input((3,))
    for _ in range(20):
        x = L.Concatenate()([x, L.Dense(1, "relu")(x)])
    model = keras.Model(inputs, L.Dense(2)(x))
    model.compile("sgd", "mae")
    return Case(model, *vectors(rng))


@tricky
def fused_normalisation(rng: np.random.Generator) -> Case:
    """TensorFlow's fused batch normalisation, which insists on single precision."""

    def normalised(x: Any, scale: Any, offset: Any) -> Any:
        x = tf.reshape(x, (-1, 1, 1, 4))
        out = tf.compat.v1.nn.fused_batch_norm(x, 1 + scale, offset, is_training=True)[0]
        return tf.reshape(out, (-1, 4))

    layer = Formula(normalised, {"scale": (4,), "offset": (4,)}, name="fused")
    return Case(around(layer, L.Activation("tanh")), *vectors(rng))


@tricky
def one_sample_and_scalars(rng: np.random.Generator) -> Case:
    """A batch of one, scalar weights and a weight without any entry."""

    def scaled(x: Any, a: Any, empty: Any) -> Any:
        return a * tf.sin(x) + tf.reduce_sum(empty)

    return Case(around(Formula(scaled, {"a": (), "none": (0, 3)}, name="s")), *vectors(rng, 1))


@tricky
def ensembles_by_vectorised_weights(rng: np.random.Generator) -> Case:
    """Five members with their weights in one stack, mapped over by vectorized_map."""

    def members(x: Any, w: Any) -> Any:
        each = tf.vectorized_map(lambda one: tf.tanh(x @ one), w)
        return tf.reduce_mean(each, 0) + tf.math.reduce_variance(each, 0)

    return Case(around(Formula(members, {"w": (5, 4, 3)}, name="members")), *vectors(rng))
