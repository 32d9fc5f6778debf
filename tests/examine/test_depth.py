"""Many layers: measured all at once, whatever their number and their loudness."""

from __future__ import annotations

import keras
import numpy as np

from tfcheck import Verdict, check_gradients

RNG = np.random.default_rng(1)


def deep(layers: int) -> keras.Model:
    """A model of many small layers of very different loudness."""
    keras.utils.set_random_seed(1)
    stack = [
        keras.layers.Dense(4, activation="tanh", use_bias=False, name=f"dense{i}")
        for i in range(layers)
    ]
    model = keras.Sequential([keras.Input((4,)), *stack], name="deep")
    model.compile("sgd", "mse")
    return model


def test_a_check_costs_the_same_at_any_depth() -> None:
    """Layers are measured all at once, so that many of them cost no more evaluations than few."""
    x, y = RNG.normal(size=(4, 4)), RNG.normal(size=(4, 4))
    few = check_gradients(deep(3), x, y)
    many = check_gradients(deep(60), x, y)
    assert few.verdict is many.verdict is Verdict.PASS, str(many)
    assert many.evaluations <= few.evaluations + 5
    assert all(variable.score < 1e-7 for variable in many.variables)
    by_norm = sorted(variable.analytic_norm for variable in many.variables)
    assert by_norm[-1] > 10 * by_norm[0]
