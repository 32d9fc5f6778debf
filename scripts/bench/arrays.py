"""The numbers that Keras, PyTorch and JAX share: batches and weights, from fixed seeds.

Weights are in the order and layout of Keras. Everything float is float64 and exactly representable
in float32, so that a float32 model and its float64 twins stand at the same point.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
CLASSES = 10


@dataclass(frozen=True)
class Arrays:
    """A batch, and the weights of a model.

    Attributes:
        x: inputs.
        y: labels.
        weights: kernels and biases in turn; None where Keras initialises them.
    """

    x: Array
    y: Array
    weights: list[Array] | None = None


def mlp(widths: list[int], batch: int) -> Arrays:
    """The MLP's; see `cases.mlp`."""
    return Arrays(
        _normal((batch, widths[0])),
        _labels(batch, widths[-1]),
        _weights((fan_in, fan_out) for fan_in, fan_out in pairwise(widths)),
    )


def cnn(image: int, filters: list[int], hidden: int, batch: int) -> Arrays:
    """The CNN's; see `cases.cnn`."""
    first, second = filters
    pooled = ((image - 2) // 2 - 2) // 2
    shapes = [
        (3, 3, 1, first),
        (3, 3, first, second),
        (pooled * pooled * second, hidden),
        (hidden, CLASSES),
    ]
    return Arrays(_normal((batch, image, image, 1)), _labels(batch), _weights(shapes))


def residual(width: int, batch: int, **_sizes: Any) -> Arrays:
    """The batch of the residual network."""
    return Arrays(_normal((batch, width)), _labels(batch))


TOKENS, LENGTH = 1000, 32


def transformer(batch: int, **_sizes: Any) -> Arrays:
    """The batch of the transformer encoder: token numbers."""
    return Arrays(_tokens((batch, LENGTH), TOKENS), _labels(batch))


def language(vocabulary: int, length: int, batch: int, **_sizes: Any) -> Arrays:
    """The batch of a language model: tokens, and a token to be found at each place."""
    labels = np.random.default_rng(2).integers(vocabulary, size=(batch, length))
    return Arrays(_tokens((batch, length), vocabulary), labels)


def application(image: int, batch: int, **_sizes: Any) -> Arrays:
    """The batch of a network of Keras: square images."""
    return Arrays(_normal((batch, image, image, 3)), _labels(batch))


grouped = application
"""The batch of the convolutional network in groups."""


def _tokens(shape: tuple[int, int], vocabulary: int) -> Array:
    return np.random.default_rng(1).integers(vocabulary, size=shape).astype("int32")


def _normal(shape: tuple[int, ...]) -> Array:
    return _rounded(np.random.default_rng(1).standard_normal(shape))


def _labels(batch: int, classes: int = CLASSES) -> Array:
    return np.random.default_rng(2).integers(classes, size=batch)


def _weights(shapes: Iterable[tuple[int, ...]]) -> list[Array]:
    """Kernels as Glorot drew them, and biases that are small but not zero."""
    random = np.random.default_rng(3)
    weights = []
    for shape in shapes:
        field = int(np.prod(shape[:-2]))
        limit = np.sqrt(6 / (field * (shape[-2] + shape[-1])))
        weights.append(_rounded(random.uniform(-limit, limit, shape)))
        weights.append(_rounded(random.uniform(-0.1, 0.1, shape[-1:])))
    return weights


def _rounded(values: Array) -> Array:
    return values.astype("float32").astype("float64")
