"""Directions to move in: an array, or the product of two, which takes no memory to speak of.

A large kernel need not be moved at all: a thin product is added to what its operation gives,
x·(W + t·abᵀ) = x·W + t·(x·a)bᵀ, which is exact and costs next to nothing where moving a large
kernel costs more than the network itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from tfcheck.measure.directions import Array, dot

Values: TypeAlias = Callable[[Sequence[float]], Array]
"""The loss at several places along a line."""


@dataclass(frozen=True)
class Factors:
    """A direction in a kernel that is the product of two, broadcast to the kernel's shape.

    Attributes:
        inner: the part along the axes that are summed over, 1 along the last one of the output.
        outer: the part along the axis of the output, which is the last or, transposed, the first.
        transposed: whether it is the first.
    """

    inner: Array
    outer: Array
    transposed: bool = False

    def slope(self, gradient: Array) -> float:
        """The product of the direction with a gradient of the kernel's shape.

        Not by BLAS, whose threads wait for each other where others compute.
        """
        first, last = self.inner.ravel(), self.outer
        if self.transposed:
            first, last = last, first
        rows = np.einsum("ij,j->i", gradient.reshape(first.size, last.size), last)
        return dot(first, rows)

    def dense(self) -> Array:
        """The direction as an array of the kernel's shape."""
        outer = self.outer[:, None] if self.transposed else self.outer
        return np.asarray(self.inner * outer)


Direction: TypeAlias = "Array | Factors"


def dense(direction: Direction) -> Array:
    """A direction as an array."""
    return direction.dense() if isinstance(direction, Factors) else direction


def random_direction(
    normal: Callable[[tuple[int, ...]], Array],
    shape: tuple[int, ...],
    unit: float,
    *,
    product: bool,
    transposed: bool = False,
) -> Direction:
    """A random direction.

    Args:
        normal: draws standard normal numbers, given a shape.
        shape: the shape of what moves.
        unit: the standard deviation of its entries' moves.
        product: whether the direction is the product of two.
        transposed: whether the outer one is along the first axis. Defaults to False.
    """
    if not product:
        return normal(shape) * unit
    inner, outer = factors_of(shape, transposed=transposed)
    return Factors(unit * normal(inner), normal(outer), transposed)


def slope_along(direction: Direction, gradient: Array) -> float:
    """The product of a direction with a gradient."""
    if isinstance(direction, Factors):
        return direction.slope(gradient)
    return dot(direction, gradient)


def factors_of(
    shape: Sequence[int], *, transposed: bool
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of the inner and the outer part of a direction in a kernel."""
    if transposed:
        return (1, *shape[1:]), (shape[0],)
    return (*shape[:-1], 1), (shape[-1],)
