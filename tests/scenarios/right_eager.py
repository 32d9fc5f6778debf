"""Right models that can only be run eagerly."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from right import Case, dense, out_of_reach, tricky, vectors, wired

L = keras.layers


@tricky
def eager_only(rng: np.random.Generator) -> Case:
    """Python decides on values, and NumPy looks at them: no graph can be traced."""

    def wire(model: Any, x: Any, _training: bool) -> Any:
        hidden = model.one(x)
        if float(tf.reduce_max(hidden)) > 1e6:
            hidden = hidden / 2
        for _ in range(int(hidden.numpy().shape[0]) // 3):
            hidden = tf.sin(hidden)
        return model.two(hidden)

    x, y = vectors(rng)
    how = {"run_eagerly": True}
    return Case(wired(wire, x, how, one=dense(), two=L.Dense(2)), x, y)


@out_of_reach
def eager_with_kinks_and_dropout(rng: np.random.Generator) -> Case:
    """Eager only, with rectifiers at zero, BatchNorm and dropout."""

    def wire(model: Any, x: Any, training: bool) -> Any:
        hidden = model.norm(model.one(x), training=training)
        if bool(tf.reduce_any(tf.math.is_nan(hidden))):
            raise ValueError("not a number")
        return model.two(model.drop(tf.nn.relu(hidden), training=training))

    x, y = vectors(rng)
    x[:2] = 0
    parts = {"one": L.Dense(4), "norm": L.BatchNormalization(), "drop": L.Dropout(0.3)}
    return Case(wired(wire, x, {"run_eagerly": True}, two=L.Dense(2), **parts), x, y)


@out_of_reach
def eager_in_bfloat16(rng: np.random.Generator) -> Case:
    """Eager only, and in mixed bfloat16."""

    def wire(model: Any, x: Any, _training: bool) -> Any:
        hidden = model.one(x)
        if float(tf.reduce_max(tf.cast(hidden, tf.float32))) > 1e6:
            hidden = hidden / 2
        return model.two(hidden)

    x, y = vectors(rng)
    parts = {"one": dense(dtype="mixed_bfloat16"), "two": L.Dense(2, dtype="mixed_bfloat16")}
    return Case(wired(wire, x, {"run_eagerly": True}, **parts), x, y)


@out_of_reach
def raw_noise_run_eagerly(rng: np.random.Generator) -> Case:
    """Eager only, with raw noise."""

    def wire(model: Any, x: Any, _training: bool) -> Any:
        hidden = model.one(x)
        if float(tf.reduce_max(hidden)) > 1e6:
            hidden = hidden / 2
        return model.two(hidden + 0.1 * tf.random.normal((6, 4)))

    x, y = vectors(rng)
    return Case(wired(wire, x, {"run_eagerly": True}, one=dense(), two=L.Dense(2)), x, y)
