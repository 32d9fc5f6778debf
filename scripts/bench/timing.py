"""How long something takes: the median of several runs after a warm-up."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Timing:
    """Durations of the same work, in seconds.

    Attributes:
        first: of the first run, which may trace, compile and allocate.
        later: of the runs after it; may be empty.
    """

    first: float
    later: tuple[float, ...]

    @property
    def repeated(self) -> float | None:
        """The median of the later runs."""
        return float(np.median(self.later)) if self.later else None

    def answer(self) -> dict[str, Any]:
        """As JSON."""
        return {"first": self.first, "repeated": self.repeated, "runs": len(self.later)}


def once(work: Callable[[], object]) -> float:
    """How long one run takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def timed(work: Callable[[], object], *, repeats: int, seconds: float) -> Timing:
    """Run something once, and then again and again.

    Args:
        work: what is timed.
        repeats: later runs, at most.
        seconds: no later run but the first begins after so many seconds of later runs.
    """
    first = once(work)
    later: list[float] = []
    while len(later) < repeats and sum(later) < seconds:
        later.append(once(work))
    return Timing(first, tuple(later))


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile."""
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
    return float(low), float(middle), float(high)
