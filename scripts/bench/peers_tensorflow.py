"""What can be had with TensorFlow alone: `tf.test.compute_gradient`, and a plain loop."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfcheck.scripts.bench.models import build, float64, loss_of
from tfcheck.scripts.bench.processes import Answer
from tfcheck.scripts.bench.timing import once

STEP = 1e-6


def compute_gradient(model: str, sizes: dict[str, Any]) -> Answer:
    """Seconds of `tf.test.compute_gradient` for all weights, on a compiled float64 function."""
    with float64():
        built = build(model, sizes)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        fixed = [variable.value for variable in built.model.non_trainable_variables]

        @tf.function
        def of_weights(*weights: tf.Tensor) -> tf.Tensor:
            logits, _ = built.model.stateless_call(list(weights), fixed, built.x, training=True)
            return loss(built.y, logits)

        weights = [tf.convert_to_tensor(v.value) for v in built.model.trainable_variables]
        of_weights(*weights)
        found: list[Any] = []
        seconds = once(
            lambda: found.extend(tf.test.compute_gradient(of_weights, weights, delta=STEP))
        )
    pairs = zip(*found, strict=True)
    error = max(float(np.abs(analytic - numeric).max()) for analytic, numeric in pairs)
    return {
        "repeated": seconds,
        "runs": 1,
        "parameters": built.parameters,
        "note": f"largest difference {error:.0e}",
    }


def loop(model: str, sizes: dict[str, Any], entries: int, compiled: bool) -> Answer:
    """Seconds of a plain loop over randomly drawn entries of the weights.

    Args:
        model: see `cases.Case`.
        sizes: see `cases.Case`.
        entries: how many are drawn; all where there are no more.
        compiled: whether the loss is a `tf.function`, or computed eagerly.
    """
    with float64():
        built = build(model, sizes)
        loss = loss_of(built)
        if compiled:
            loss = tf.function(loss)
        variables = built.model.trainable_variables
        with tf.GradientTape() as tape:
            at_point = loss()
        analytic = [np.asarray(g).ravel() for g in tape.gradient(at_point, variables)]
        ends = np.cumsum([gradient.size for gradient in analytic])
        drawn = np.random.default_rng(0).permutation(ends[-1])[:entries]
        errors: list[float] = []

        def walk(numbers: np.ndarray[Any, Any]) -> None:
            for number in numbers:
                position = int(np.searchsorted(ends, number, side="right"))
                entry = int(number - ends[position] + analytic[position].size)
                numeric = _slope(variables[position], entry, loss)
                errors.append(abs(numeric - analytic[position][entry]))

        walk(drawn[:5])  # to warm up
        seconds = once(lambda: walk(drawn))
    return {
        "repeated": seconds / len(drawn) * int(ends[-1]) if len(drawn) == ends[-1] else None,
        "per_parameter": seconds / len(drawn),
        "parameters": int(ends[-1]),
        "entries": len(drawn),
        "note": f"largest difference {max(errors):.0e}",
    }


def _slope(variable: keras.Variable, entry: int, loss: Any) -> float:
    """The central difference by one entry of a variable."""
    place = [np.unravel_index(entry, variable.shape)]
    before = variable.numpy().flat[entry]

    def loss_at(value: float) -> float:
        variable.value.scatter_nd_update(place, [value])
        return float(loss())

    slope = (loss_at(before + STEP) - loss_at(before - STEP)) / (2 * STEP)
    variable.value.scatter_nd_update(place, [before])
    return slope


def loss_and_slope(model: str, sizes: dict[str, Any]) -> Answer:
    """The loss and the length of its gradient, to be compared with the other frameworks'."""
    with float64():
        built = build(model, sizes)
        loss = loss_of(built)
        with tf.GradientTape() as tape:
            value = loss()
        gradients = tape.gradient(value, built.model.trainable_variables)
    return {"loss": float(value), "slope": float(tf.linalg.global_norm(gradients))}
