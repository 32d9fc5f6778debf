"""Right models in other precisions than float32, alone and mixed, with their losses scaled."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from right import Case, around, dense, tricky, vectors

L = keras.layers


def in_precision(policy: str, **how: Any) -> keras.Model:
    """A normalised network under a dtype policy."""
    layers = [dense(6, dtype=policy), L.LayerNormalization(dtype=policy)]
    model = keras.Sequential([keras.Input((3,)), *layers, L.Dense(2, dtype=policy)], name="precise")
    model.compile(**{"optimizer": "adam", "loss": "mse", **how})
    return model


@tricky
def pure_bfloat16(rng: np.random.Generator) -> Case:
    """Weights, too, in eight bits of mantissa."""
    return Case(in_precision("bfloat16"), *vectors(rng))


@tricky
def eight_bits(rng: np.random.Generator) -> Case:
    """Products in float8, whose scales Keras overwrites with what the tape gives for them."""
    return Case(around(L.Dense(4, dtype="float8_from_mixed_bfloat16")), *vectors(rng))


@tricky
def eight_bits_that_saturate(rng: np.random.Generator) -> Case:
    """The same once the scales are those of earlier batches, which this one exceeds."""
    model, (x, y) = around(L.Dense(4, dtype="float8_from_float32")), vectors(rng)
    model.fit(x, y, epochs=3, verbose=0)
    return Case(model, 3 * x[:3], y[:3])


@tricky
def eight_bits_and_a_scaled_loss(rng: np.random.Generator) -> Case:
    """The same where the optimizer scales the loss, and the scales in eight bits are not."""
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam())
    middle = L.EinsumDense("ab,bc->ac", 4, dtype="float8_from_float32")
    return Case(around(middle, optimizer=optimizer), *vectors(rng))


@tricky
def scaled_loss(rng: np.random.Generator) -> Case:
    """A LossScaleOptimizer around an optimizer with clipping, in single precision."""
    inner = keras.optimizers.SGD(clipvalue=1e-3, momentum=0.9, nesterov=True)
    optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0**20)
    return Case(around(dense(), optimizer=optimizer), *vectors(rng))


@tricky
def double_inside_single(rng: np.random.Generator) -> Case:
    """One layer in float64 in a model in float32, and one in float16."""
    layers = [dense(4, dtype="float64"), dense(4, dtype="float16"), dense(4)]
    return Case(around(*layers), *vectors(rng))


@tricky
def half_precision_overflow_of_squares(rng: np.random.Generator) -> Case:
    """Errors of 400 in float16: their squares overflow it, so Keras casts them before."""
    model = around(dense(dtype="mixed_float16"), L.Activation("linear", dtype="float32"))
    x, y = vectors(rng)
    return Case(model, x, 400 * y)
