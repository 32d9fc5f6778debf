"""Finding where a gradient is wrong: the entries of a variable."""

from __future__ import annotations

import heapq
import itertools
import math

import numpy as np

from tfcheck.measure.differences import FIRST_STEP
from tfcheck.measure.directions import Array, gaussian, generator
from tfcheck.measure.sweep import loudest_entries
from tfcheck.measure.target import Target

_NOTHING_LEFT = 1e-3
"""What is left of a gap when every wrong entry is found, beside the whole."""


def suspicious_entries(target: Target, count: int) -> list[tuple[int, ...]]:
    """Entries where numerical and analytic gradient are most likely to differ.

    Args:
        target: the variable.
        count: how many entries are wanted.

    Returns:
        Up to `count` distinct indices: the wrong ones first, by the size of what they contribute;
        where there are fewer, the entries with the largest analytic gradients follow.
    """
    size = target.value.size
    if size <= count:
        return [tuple(int(i) for i in index) for index in np.ndindex(target.value.shape)]
    found = [
        tuple(int(i) for i in np.unravel_index(flat, target.value.shape))
        for flat in wrong_entries(target, max(1, count // 2))
    ]
    found += loudest_entries(target.tape, count)
    return list(dict.fromkeys(found))[:count]


def wrong_entries(target: Target, most: int) -> list[int]:
    """The entries that are wrong, as positions in the flat variable.

    The gap between the numerical and the analytic slope along a Gaussian direction is the sum of
    what the entries contribute. So the entries are halved again and again, the part with the
    largest gap first; what one half does not explain is in the other. Finding k wrong ones among n
    takes about 2·k·log₂(n) evaluations; where twice that many do not find them, more are wrong.

    Args:
        target: the variable.
        most: how many are looked for at most.
    """
    rng = generator(0, target.stream, "bisection")
    direction = gaussian(rng, target.value.shape, target.scale).ravel()
    whole = _gap(target, direction, 0, direction.size)
    order = itertools.count()
    parts = [(-abs(whole), next(order), whole, 0, direction.size)]
    found: list[int] = []
    left = 2 * most * math.ceil(math.log2(max(direction.size, 2)))
    while parts and len(found) < most and left > 0:
        _, _, gap, start, end = heapq.heappop(parts)
        if not math.isfinite(gap) or abs(gap) <= _NOTHING_LEFT * abs(whole):
            break
        if end - start == 1:
            found.append(start)
            continue
        left -= 1
        middle = (start + end) // 2
        first = _gap(target, direction, start, middle)
        for part, low, high in ((first, start, middle), (gap - first, middle, end)):
            heapq.heappush(parts, (-abs(part), next(order), part, low, high))
    return found


def _gap(target: Target, direction: Array, start: int, end: int) -> float:
    """Numerical less analytic slope along a direction masked to some entries."""
    masked = np.zeros_like(direction)
    masked[start:end] = direction[start:end]
    masked = masked.reshape(target.value.shape)
    numerical = target.slope(masked, (target.start or FIRST_STEP) / 4)
    analytic = 0.0 if target.gradient is None else float(np.vdot(masked, target.gradient))
    return numerical - analytic
