"""Where to look: random directions, exactly representable, and single coordinates."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_LARGEST_WEIGHT = 64.0
_ZERO_SCALE = 0.1
_SMALLEST_SCALE = 1e-8

NUDGE = 2.0**-7
"""How far aside is a little aside, relative to a variable's scale."""


def generator(seed: int, stream: str, purpose: str = "") -> np.random.Generator:
    """A random generator of its own for each variable, the same on every machine and run."""
    return np.random.default_rng([seed, zlib.crc32(f"{stream}|{purpose}".encode())])


def scale_of(value: Array) -> float:
    """The size of a natural change of a variable: its root mean square.

    A variable that is zero throughout has no scale of its own; it gets 0.1.
    """
    if not math.isfinite(square := dot(value, value)):
        value = value[np.isfinite(value)]  # NaN may say that something is missing
        square = dot(value, value)
    rms = math.sqrt(square / value.size) if value.size else 0.0
    return rms if np.isfinite(rms) and rms > _SMALLEST_SCALE else _ZERO_SCALE


def gaussian(rng: np.random.Generator, shape: tuple[int, ...], scale: float) -> Array:
    """A Gaussian direction of a variable's shape and scale, so that steps are relative ones.

    For a vector e, the mean of (z·e)² over Gaussian directions z is ‖e‖² (times the squared scale),
    whatever the number of entries.
    """
    return rng.standard_normal(shape) * scale


def balanced(loudness: Sequence[float], scales: Sequence[float]) -> list[float]:
    """How far each of several that move together goes, so that the quiet ones are heard, too.

    Args:
        loudness: how much a natural change of each changes the loss.
        scales: the sizes of their natural changes.

    Returns:
        Powers of two, so that what is exact in these units is exact in their own.
    """
    loudest = max(loudness, default=0.0)
    weights = (min(_LARGEST_WEIGHT, loudest / loud) if loud else 1.0 for loud in loudness)
    return [
        2.0 ** round(math.log2(weight * scale))
        for weight, scale in zip(weights, scales, strict=True)
    ]


class Draws:
    """Normal numbers, and those drawn before: the same ones are drawn at every checkpoint.

    Args:
        kept: how many numbers are remembered at most.
    """

    def __init__(self, kept: int) -> None:
        self._left = kept
        self._known: dict[tuple[str, tuple[int, ...]], tuple[Array, Any]] = {}

    def normal(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        """What `rng.standard_normal` gives, read-only where it is remembered."""
        key = (str(rng.bit_generator.state), shape)
        if key in self._known:
            values, rng.bit_generator.state = self._known[key]
            return values
        values = rng.standard_normal(shape)
        if values.size <= self._left:
            self._left -= values.size
            values.setflags(write=False)
            self._known[key] = values, rng.bit_generator.state
        return values


def dot(one: Array, other: Array) -> float:
    """The sum of the products of all entries.

    In rows, so that rounding stays small; and not by BLAS, whose threads wait for each other where
    others compute.
    """
    one, other = one.ravel(), other.ravel()
    whole = one.size // _ROW * _ROW
    rows = np.einsum("ij,ij->i", one[:whole].reshape(-1, _ROW), other[:whole].reshape(-1, _ROW))
    return float(rows.sum() + np.einsum("i,i->", one[whole:], other[whole:]))


_ROW = 1024


def norm(array: Array) -> float:
    """The square root of the sum of all squared entries."""
    return math.sqrt(dot(array, array))


def representable(direction: Array, value: Array, smallest_step: float, bits: int = 53) -> Array:
    """The direction, rounded so that value ± step·direction is exact.

    The derivative along the rounded direction is the one that a difference then measures; without
    this, steps near the spacing of floating-point numbers would be realised inexactly. Twice and
    four times the smallest step stay exact.

    Args:
        direction: the direction.
        value: where it starts, in float32 or less.
        smallest_step: the smallest of the steps.
        bits: how many bits of a number are kept: 53 (the default) for float64.
    """
    largest = float(np.max(np.abs(value), initial=0.0)) + 8 * smallest_step * float(
        np.max(np.abs(direction), initial=0.0)
    )
    if not np.isfinite(largest) or largest == 0.0:
        return direction
    spacing = 2.0 ** (np.ceil(np.log2(largest)) - (bits - 1))
    return np.asarray(np.rint(direction * (smallest_step / spacing)) * (spacing / smallest_step))
