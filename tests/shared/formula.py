"""Layers that compute a formula, and functions with a gradient of their own, which may be wrong."""

# mypy: allow-subclassing-any

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

Call = Callable[..., Any]


class Formula(keras.layers.Layer):
    """A layer that computes `formula(x, *weights)`.

    Args:
        formula: the function.
        weights: shape of each weight by its name; `{"w": (4, 3)}` makes a weight `w`. Defaults to
            none.
        start: initializer of the weights. Defaults to random normal numbers.
        kwargs: keyword arguments of every layer.
    """

    def __init__(
        self,
        formula: Call,
        weights: dict[str, tuple[int, ...]] | None = None,
        start: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.formula = formula
        self.shapes = dict(weights or {})
        self.start = start
        self.parts: list[Any] = []

    def build(self, _shape: Any) -> None:
        for name, shape in self.shapes.items():
            start = self.start or keras.initializers.RandomNormal(stddev=0.6)
            self.parts.append(self.add_weight(shape=shape, name=name, initializer=start))

    def call(self, x: Any) -> Any:
        return self.formula(x, *(tf.convert_to_tensor(part) for part in self.parts))


def wrong_backward(forward: Call, backward: Call) -> Call:
    """A function with a gradient of its own: `backward(upstream, *arguments)`."""

    @tf.custom_gradient
    def function(*arguments: Any) -> Any:
        return forward(*arguments), lambda upstream: backward(upstream, *arguments)

    return function
