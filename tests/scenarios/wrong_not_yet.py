"""Wrong layers that no gradient reaches yet."""

# mypy: allow-subclassing-any

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from formula import Formula, wrong_backward
from wrong import BEFORE, Plant, around, not_yet, vectors

from tfcheck import Verdict


class Closed(keras.layers.Layer):
    """A residual branch behind a factor that is zero at first."""

    def __init__(self, branch: keras.layers.Layer, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.branch = branch

    def build(self, _shape: Any) -> None:
        self.alpha = self.add_weight(shape=(), name="alpha", initializer="zeros")

    def call(self, x: Any) -> Any:
        return x + self.alpha * self.branch(x)


@not_yet
def wrong_in_a_branch_still_closed(rng: np.random.Generator) -> Plant:
    """A layer in a residual branch that is closed at first: wrong once it opens."""
    wrong = Formula(wrong_backward(lambda x: 2 * x, lambda u, _: 2.2 * u), {}, name="off")
    model = around(Closed(wrong, name="gated"))
    return Plant(model, *vectors(rng), BEFORE, ("net/gated/off",), verdict=Verdict.SUSPECT)


@not_yet
def wrong_before_weights_of_zero(rng: np.random.Generator) -> Plant:
    """A layer before one whose kernel is zero at first, which hands no gradient back to it."""
    wrong = Formula(wrong_backward(tf.sin, lambda u, x: u * tf.sin(x)), {}, name="sine")
    silent = keras.layers.Dense(4, kernel_initializer="zeros", name="silent")
    return Plant(
        around([wrong, silent]), *vectors(rng), BEFORE, ("net/sine",), verdict=Verdict.SUSPECT
    )
