"""What is measured: a variable at a point, and the slopes of its loss along lines."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfcheck.measure.differences import (
    FIRST_STEP,
    MOST_MOVES,
    SMALLEST_STEP,
    Along,
    Slope,
    better,
    central_difference,
    confirm_slope,
    measure_noise,
    measure_slope,
)
from tfcheck.measure.directions import Array, dot, gaussian, norm, representable, scale_of
from tfcheck.measure.entries import Entries
from tfcheck.measure.lines import Direction, Factors, Values, slope_along

Displaced = Callable[[Array], float]
"""The loss as a function of a variable's displacement."""

NOISE_MARGIN = 4.0
"""What looks like so many times the loss's noise may still be noise."""

_NOISE_PART = 2.0**-6
"""The part of the tape's rounding that a single evaluation of the loss has at least."""

_HEARD_PART = 0.5
"""The part of the loss's noise that a line has, unless its own turns out to be less."""

_NOISE_SPACING = 16
"""A line's own noise is looked for this much closer together than its slope."""

_TREAD_NOISE = 16
"""Noise of this part of a tread gives an error bar of a tread a step: as steep as ties may hide."""

_USEFUL = 1e-2
"""An error bar of this part of a slope still tells something."""

_PLAINLY = 100
"""A gap of this many error bars needs no finer measurement of its size."""

_SURELY = 8
"""A gap of this many error bars is one, whatever its size."""

TAPE_ULPS = 32
"""Rounding of the tape's arithmetic, in units of the rounding of one operation."""

_STRAIGHT = 2.0**-8
"""The part of the loss by which a first step may change it, going by the tape's gradient."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line through the point: the tape's slope along it and the measured one.

    Attributes:
        analytic: z·g, 0 where the tape gave no gradient.
        slope: the measured derivative along z.
        first_gap: distance between the two at the first step tried.
        first_smooth: whether the loss looked smooth at that step.
    """

    analytic: float
    slope: Slope
    first_gap: float
    first_smooth: bool

    @property
    def gap(self) -> float:
        """How far the two slopes are apart."""
        return abs(self.slope.value - self.analytic)

    @property
    def deviates(self) -> bool:
        """Whether the error bar does not explain the gap."""
        return not self.gap <= self.slope.error_bar

    @property
    def plainly_off(self) -> bool:
        """Whether the gap is so many error bars that its size needs no finer measurement."""
        return _off(self.slope, self.analytic, _PLAINLY)


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """What is known of a loss's noise and rounding, whichever of its variables moves.

    Attributes:
        noise: its noise when everything moves, which a single variable cannot exceed.
        rounding: how far the tape's own rounding may move a slope.
        tape_rounding: the same, relative to the size the loss has far from here.
        tread: the largest step by which rounding may change it where it seems not to change at
            all; what changes in larger steps is no rounding.
    """

    noise: float = math.inf
    rounding: float = 0.0
    tape_rounding: float = TAPE_ULPS * 2.0**-53
    tread: float = math.inf

    @property
    def heard(self) -> float:
        """The noise where it is more than the rounding that is assumed anyway, else 0."""
        heard = math.isfinite(self.noise) and self.noise > self.rounding / 16
        return self.noise if heard else 0.0


@dataclass(frozen=True, kw_only=True)
class Movable(ABC):
    """What a loss is measured for along lines: a variable, or several of them together.

    Attributes:
        stream: seeds the random directions.
        at_zero: the loss at the point.
        resolution: relative size of the error bar that is good enough.
        loudest: the largest scaled gradient norm among the variables of the same loss, against
            which a gradient of zero is judged.
        arithmetic: what is known of the loss's noise and rounding.
        start: a step known to suit the loss around this point, None where none is.
        moves: how often a search for a step goes on to another one.
    """

    stream: str
    at_zero: float
    resolution: float
    loudest: float
    arithmetic: Arithmetic = Arithmetic()
    start: float | None = None
    moves: int = MOST_MOVES

    @property
    @abstractmethod
    def scale(self) -> float:
        """Size of a natural change."""

    @property
    @abstractmethod
    def norm(self) -> float:
        """‖g‖, 0 where the tape gave no gradient."""

    @abstractmethod
    def drawn(self, rng: np.random.Generator) -> Any:
        """A random direction."""

    @abstractmethod
    def along(self, direction: Any, smallest_step: float) -> tuple[float, Along]:
        """The tape's slope along a direction, and the loss, where `smallest_step` is exact."""

    def wanted(self, reference: float) -> float:
        """The error bar that is good enough for slopes of the size `reference`."""
        silent = reference <= 1e-13 * self.loudest
        wanted = 1e-9 * self.loudest if silent else self.resolution * reference
        return max(wanted, 4 * self.arithmetic.rounding)

    def slope_at(
        self, direction: Any, step: float, wanted: float = math.inf
    ) -> tuple[float, Slope]:
        """The tape's and the measured slope along a direction, at a step.

        Args:
            direction: the direction.
            step: the largest of the three steps.
            wanted: the error bar that is good enough; where a quiet line of a noisy loss has more,
                and may agree with the tape, a dozen more evaluations tell its own noise. Defaults
                to infinity: only six.
        """
        analytic, phi = self.along(direction, step / 4)

        def difference(least_noise: float) -> Slope:
            slope = central_difference(
                phi,
                self.at_zero,
                step,
                loudest_noise=NOISE_MARGIN * self.arithmetic.noise,
                least_noise=max(_NOISE_PART * self.arithmetic.rounding, least_noise),
            )
            return dataclasses.replace(slope, roundoff=slope.roundoff + self.arithmetic.rounding)

        heard = _HEARD_PART * self.arithmetic.heard
        slope = difference(heard)
        open_question = not slope.error_bar <= wanted and not _off(slope, analytic, _SURELY)
        if slope.noise <= heard and open_question:
            # Seven values may agree by luck, a dozen more show whether this line is that quiet.
            own = measure_noise(phi, step / _NOISE_SPACING, widenings=0)
            if own == 0:  # They all tie, perhaps on one tread of the steps that rounding makes.
                own = self.arithmetic.tread / _TREAD_NOISE
            slope = difference(min(own, heard) if math.isfinite(own) else heard)
        return analytic, slope

    def line(self, direction: Any, reference: float, first_step: float | None = None) -> Line:
        """Measure along a direction, looking for a step that is good enough."""
        analytic: dict[float, float] = {}

        def measure(step: float) -> Slope:
            analytic[step], slope = self.slope_at(direction, step, wanted)
            return slope

        def enough(slope: Slope) -> bool:
            return _off(slope, analytic[slope.step], _PLAINLY)

        wanted = self.wanted(reference)
        start = self.first_step(reference) if first_step is None else first_step
        first, best = measure_slope(measure, wanted, start, enough=enough, moves=self.moves)
        useful = best.error_bar <= _USEFUL * reference or enough(best)
        if start > FIRST_STEP and self.moves == MOST_MOVES and not useful:
            # What is too coarse a step for a loss with jumps may be right for one with noise.
            best = better(best, measure_slope(measure, wanted, FIRST_STEP)[1])
        if not abs(best.value - analytic[best.step]) <= best.error_bar:
            best = confirm_slope(measure, best)
            if self._saturated(analytic[best.step], best):
                best = min(first, best, key=lambda slope: slope.step)
        first_gap = abs(first.value - analytic[first.step])
        return Line(analytic[best.step], best, first_gap, first.smooth)

    def _saturated(self, analytic: float, slope: Slope) -> bool:
        """Whether the loss could not follow the tape's slope as far as this step went.

        A loss with slopes so steep levels off at once, and flatness beyond that says nothing.
        """
        size = max(abs(self.at_zero), self.arithmetic.rounding / self.arithmetic.tape_rounding)
        return abs(analytic) * slope.step > size

    def first_step(self, reference: float) -> float:
        """Where to begin: where a loss with slopes of size `reference` could be straight."""
        if self.start is not None:
            return self.start
        straight = _STRAIGHT * abs(self.at_zero) / reference if reference > 0 else math.inf
        exponent = math.floor(math.log2(straight)) if 0 < straight < math.inf else 0
        return max(min(FIRST_STEP, 2.0**exponent), 64 * SMALLEST_STEP)


def _off(slope: Slope, analytic: float, bars: float) -> bool:
    """Whether a slope is more than so many error bars off the tape's."""
    return abs(slope.value - analytic) > bars * slope.error_bar


@dataclass(frozen=True)
class Target(Movable):
    """One variable at one point, ready to be measured; its other attributes are `Movable`'s.

    Attributes:
        displaced: the loss as a function of the variable's displacement.
        value: the variable's value.
        gradient: the tape's gradient, None where it gave none.
        bits: how many bits of the variable are kept where the loss is evaluated.
        unit: size of a natural change, where it is not the root mean square of `value`.
        draw: draws a random direction; None for Gaussian ones.
        values_along: the loss along a direction, at several places at once; None for one by one.
        entries: the loss where single entries are perturbed, many at once; None for one by one.
        known: the right gradient, where it is known already; None where it is not.
        known_bar: how far that may be off, as a norm.
    """

    displaced: Displaced
    value: Array
    gradient: Array | None
    bits: int = 53
    unit: float | None = None
    draw: Callable[[np.random.Generator], Direction] | None = None
    values_along: Callable[[Direction], Values] | None = None
    entries: Entries | None = None
    known: Array | None = None
    known_bar: float = 0.0

    @property
    def scale(self) -> float:
        """Size of a natural change of the variable."""
        return scale_of(self.value) if self.unit is None else self.unit

    @property
    def tape(self) -> Array:
        """The tape's gradient, zero where it gave none."""
        return np.zeros(self.value.shape) if self.gradient is None else self.gradient

    @property
    def norm(self) -> float:
        """‖g‖, 0 where the tape gave no gradient."""
        return 0.0 if self.gradient is None else norm(self.gradient)

    def drawn(self, rng: np.random.Generator) -> Any:
        """A random direction."""
        if self.draw is not None:
            return self.draw(rng)
        return gaussian(rng, self.value.shape, self.scale)

    def slope(self, direction: Array, step: float) -> float:
        """The slope along a direction by one central difference, without an error bar."""
        ahead, behind = self.displaced(step * direction), self.displaced(-step * direction)
        return (ahead - behind) / (2 * step)

    def along(self, direction: Any, smallest_step: float) -> tuple[float, Along]:
        """The tape's slope along a direction, and the loss, where `smallest_step` is exact."""
        if isinstance(direction, Factors) and self.values_along is not None:
            analytic = 0.0 if self.gradient is None else slope_along(direction, self.gradient)
            return analytic, Along(self.values_along(direction))
        exact = representable(direction, self.value, smallest_step, self.bits)
        analytic = 0.0 if self.gradient is None else dot(exact, self.gradient)
        if self.values_along is not None:
            return analytic, Along(self.values_along(exact))
        return analytic, Along(lambda places: [self.displaced(t * exact) for t in places])
