"""Finding where a gradient is wrong: the entries of a variable."""

from __future__ import annotations

import numpy as np

from tfcheck.differences import FIRST_STEP
from tfcheck.directions import Array, gaussian, generator
from tfcheck.measure import Target, loudest_entries


def suspicious_entries(target: Target, count: int) -> list[tuple[int, ...]]:
    """Entries where numerical and analytic gradient are most likely to differ.

    A Gaussian direction, masked to half of the entries again and again, always the half with the
    larger gap, ends at an entry that is wrong: about log₂(n) slopes for n entries. The entries
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
    direction = gaussian(rng, target.value.shape, target.scale).ravel()
    candidates = np.setdiff1d(np.arange(direction.size), sorted(excluded))
    gap = _gap(target, direction, candidates)
    while candidates.size > 1:
        half = candidates.size // 2
        # Slopes add up, so what the first half does not explain is in the second.
        first = _gap(target, direction, candidates[:half])
        in_first = abs(first) >= abs(gap - first)
        candidates = candidates[:half] if in_first else candidates[half:]
        gap = first if in_first else gap - first
    return int(candidates[0])


def _gap(target: Target, direction: Array, kept: Array) -> float:
    """Numerical less analytic slope along a direction masked to some entries."""
    masked = np.zeros_like(direction)
    masked[kept] = direction[kept]
    masked = masked.reshape(target.value.shape)
    step = FIRST_STEP / 4
    ahead, behind = target.displaced(step * masked), target.displaced(-step * masked)
    analytic = 0.0 if target.gradient is None else float(np.vdot(masked, target.gradient))
    return (ahead - behind) / (2 * step) - analytic
