"""A loss where single entries of a variable are perturbed: what a sweep asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from tfcheck.measure.directions import Array

Indices: TypeAlias = npt.NDArray[np.int64]

_ONE_BY_ONE = 64


@dataclass(frozen=True)
class Entries:
    """A loss around a point, as a function of which entries of a variable are perturbed.

    Attributes:
        losses: gives [K] losses for flat indices, [K] integers, and changes, [K]: in each of them
            one entry is perturbed. `nan` where an operation refuses one of them.
        at_once: how many entries to perturb at once; 0 where memory is too small.
    """

    losses: Callable[[Indices, Array], Array]
    at_once: int


def one_by_one(displaced: Callable[[Array], float], shape: Sequence[int]) -> Entries:
    """The same by an evaluation of its own for every entry.

    Args:
        displaced: the loss as a function of the variable's displacement.
        shape: the variable's shape.
    """
    unit = np.zeros(shape)

    def losses(index: Indices, change: Array) -> Array:
        found = np.empty(len(index))
        for lane, (entry, step) in enumerate(zip(index, change, strict=True)):
            unit.flat[entry] = step
            found[lane] = displaced(unit)
            unit.flat[entry] = 0.0
        return found

    return Entries(losses, _ONE_BY_ONE)
