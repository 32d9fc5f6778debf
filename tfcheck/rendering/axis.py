"""An axis of a picture: numbers to pixels, and the numbers that are written at it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tfcheck.rendering import words


@dataclass(frozen=True, slots=True)
class Tick:
    """A number at an axis.

    Attributes:
        at: where it stands, in pixels.
        label: the number.
    """

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis.

    Attributes:
        low: the number at its beginning.
        high: the number at its end.
        start: where it begins, in pixels.
        end: where it ends.
        logarithmic: whether equal factors, and not equal differences, are equally far apart.
    """

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    @classmethod
    def around(cls, numbers: Iterable[float], start: float, end: float) -> Axis:
        """A linear axis on which all of some numbers have their place, and a little room."""
        known = [number for number in numbers if math.isfinite(number)]
        low, high = min(known, default=0.0), max(known, default=1.0)
        room = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
        return cls(low - room, high + room, start, end)

    @classmethod
    def decades(cls, numbers: Iterable[float], start: float, end: float) -> Axis:
        """A logarithmic axis, from a power of ten to another, around positive numbers."""
        powers = [math.log10(number) for number in numbers]
        low, high = math.floor(min(powers)), math.ceil(max(powers))
        return cls(10.0**low, 10.0 ** max(high, low + 1), start, end, logarithmic=True)

    def at(self, number: float) -> float:
        """Where a number stands, in pixels to a tenth."""
        low, high = self.low, self.high
        if self.logarithmic:
            number, low, high = math.log10(number), math.log10(low), math.log10(high)
        part = (number - low) / (high - low)
        return round(self.start + part * (self.end - self.start), 1)

    def holds(self, number: float) -> bool:
        """Whether a number has its place on the axis."""
        return math.isfinite(number) and self.low <= number <= self.high

    def ticks(self, most: int) -> Sequence[Tick]:
        """Numbers to write at the axis.

        Args:
            most: how many at most.
        """
        if self.logarithmic:
            low, high = round(math.log10(self.low)), round(math.log10(self.high))
            every = -(-(high - low) // most)
            powers = range(high, low - 1, -every)
            return [Tick(self.at(10.0**power), words.limit(10.0**power)) for power in powers]
        from matplotlib.ticker import MaxNLocator

        numbers = MaxNLocator(nbins=most).tick_values(self.low, self.high)
        inside = [float(number) for number in numbers if self.holds(float(number))]
        return [Tick(self.at(number), f"{number:.6g}") for number in inside]
