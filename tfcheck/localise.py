"""Finding where a gradient is wrong: the entries of a variable."""

from __future__ import annotations

import numpy as np

from tfcheck.differences import FIRST_STEP
from tfcheck.directions import Array, gaussian, generator
from tfcheck.measure import Target, loudest_entries


def suspicious_entries(target: Target, count: int) -> list[tuple[int, ...]]:
    """Entries where numerical and analytic gradient are most likely to differ.

    A Gaussian direction, masked to half of the entries again and again, always the half with the
    larger gap, ends at an entry that is wrong: about 2·log₂(n) slopes for n entries. The entries
    with the largest analytic gradients fill the list up.

    Args:
        target: the variable.
        count: how many entries are wanted.

    Returns:
        Up to `count` distinct indices, the bisected ones first.
    """
    size = target.value.size
    if size <= count:
        return [tuple(int(i) for i in index) for index in np.ndindex(target.value.shape)]
    found: list[tuple[int, ...]] = []
    excluded: set[int] = set()
    for attempt in range(max(1, count // 2)):
        flat = _bisect(target, attempt, excluded)
        excluded.add(flat)
        found.append(tuple(int(i) for i in np.unravel_index(flat, target.value.shape)))
    gradient = np.zeros(target.value.shape) if target.gradient is None else target.gradient
    found += loudest_entries(gradient, count)
    return list(dict.fromkeys(found))[:count]


def _bisect(target: Target, attempt: int, excluded: set[int]) -> int:
    rng = generator(0, target.path, f"bisection {attempt}")
    direction = gaussian(rng, target.value).ravel()
    candidates = np.setdiff1d(np.arange(direction.size), sorted(excluded))
    while candidates.size > 1:
        half = candidates.size // 2
        halves = (candidates[:half], candidates[half:])
        gaps = [_gap(target, direction, part) for part in halves]
        candidates = halves[0] if gaps[0] >= gaps[1] else halves[1]
    return int(candidates[0])


def _gap(target: Target, direction: Array, kept: Array) -> float:
    masked = np.zeros_like(direction)
    masked[kept] = direction[kept]
    analytic, slope = target.slope_at(masked.reshape(target.value.shape), FIRST_STEP)
    return abs(slope.value - analytic)
