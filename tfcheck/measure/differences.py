"""Central differences that carry their own error bar.

The loss along a line, φ(t), is looked at from both sides of t = 0 at three steps h, h/2 and h/4.
From these seven values follow the slope, extrapolated to h = 0, how much of it truncation may
explain, and, because combinations that cancel every low power of h leave only noise, how noisy φ
itself is.

Source: extrapolation after Romberg and Ridders (1982), but with the distance between the two
fourth-order estimates as the bar, which covers the error of the sixth-order one; choosing steps by
the measured noise after Moré & Wild, "Estimating derivatives of noisy simulations" (TOMS 38, 2012).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

FIRST_STEP = 2.0**-16
"""Where the search for a step begins, relative to the variable's scale: 1.5e-5."""

SMALLEST_STEP = 2.0**-44
LARGEST_STEP = 1.0
"""A variable's own size: a loss that levels off looks flat from further away, and the three slopes
there agree with each other rather than with the derivative."""

_STRIDE = 8.0
MOST_MOVES = 10
"""How often a search for a step goes on to another one."""

_CONFIRMATIONS = 4
_SAFETY = 6.0
_TABLE = 12
_ORDER = 4
_WIDENINGS = 4
"""How often values of the noise table are taken further apart: up to 2**12 times as far."""

_LEAST_NOISE = 2.0**-51
"""Rounding of a sum of many terms, relative to φ; some values agree to the last bit by luck."""


class Along:
    """The loss along a line, φ: each place is looked at once, several of them together.

    Args:
        values: gives φ at several places.
    """

    def __init__(self, values: Callable[[Sequence[float]], Iterable[float]]) -> None:
        self._values = values
        self._known: dict[float, float] = {}

    def at(self, places: Sequence[float]) -> list[float]:
        """φ at several places."""
        unknown = [place for place in dict.fromkeys(places) if place not in self._known]
        if unknown:
            found = map(float, self._values(unknown))
            self._known.update(zip(unknown, found, strict=True))
        return [self._known[place] for place in places]

    def __call__(self, place: float) -> float:
        """φ at one place."""
        return self.at([place])[0]


def _at(phi: Callable[[float], float], places: Sequence[float]) -> list[float]:
    return phi.at(places) if isinstance(phi, Along) else [phi(place) for place in places]


@dataclass(frozen=True, slots=True)
class Slope:
    """The derivative of φ at 0, as measured.

    Attributes:
        value: the central differences, extrapolated to a step of zero.
        truncation: how far the finite step may have moved it.
        roundoff: how far the noise of φ may have moved it.
        noise: standard deviation of φ's noise, in units of φ.
        step: the largest of the three steps.
        forward: derivative to the right of 0, extrapolated from one side.
        backward: derivative to the left of 0.
        one_sided_bar: how far `forward` and `backward` may each be off.
        smooth: whether truncation shrank as it does for a smooth φ, rather than over a kink.
    """

    value: float
    truncation: float
    roundoff: float
    noise: float
    step: float
    forward: float
    backward: float
    one_sided_bar: float
    smooth: bool

    @property
    def error_bar(self) -> float:
        """How far `value` may be from the true derivative; `nan` when it could not be measured."""
        return self.truncation + self.roundoff

    @property
    def has_kink(self) -> bool:
        """Whether the slopes to the left and to the right have settled, on different values."""
        gap = abs(self.forward - self.backward)
        return gap > 4 * self.one_sided_bar and self.one_sided_bar < 0.25 * gap


def central_difference(
    phi: Callable[[float], float],
    at_zero: float,
    step: float,
    *,
    loudest_noise: float = math.inf,
    least_noise: float = 0.0,
) -> Slope:
    """Measure the slope of φ at 0 with steps h, h/2 and h/4.

    Args:
        phi: the loss along a line.
        at_zero: φ(0).
        step: h, the largest step.
        loudest_noise: φ's noise is known to be no more than this: what looks like more is the
            shape of φ, such as kinks. Defaults to infinity.
        least_noise: φ's noise is known to be no less than this, whatever a few values show that
            agree by luck. Defaults to 0.

    Returns:
        The slope with its error bar; `nan` where φ is not finite around 0.

    Example:
        >>> slope = central_difference(math.exp, 1.0, 2.0**-10)
        >>> abs(slope.value - 1.0) <= slope.error_bar < 1e-6
        True
    """
    steps = (step, step / 2, step / 4)
    values = _at(phi, [*steps, *(-h for h in steps)])
    right, left = values[:3], values[3:]
    if not all(math.isfinite(value) for value in (*right, *left, at_zero)):
        nan = math.nan
        return Slope(nan, nan, nan, nan, step, nan, nan, nan, smooth=False)
    odd = [ahead - behind for ahead, behind in zip(right, left, strict=True)]
    even = [ahead + behind - 2 * at_zero for ahead, behind in zip(right, left, strict=True)]
    slopes = [o / (2 * h) for o, h in zip(odd, steps, strict=True)]

    magnitude = max(map(abs, (at_zero, *right, *left)))
    seen = min(_noise(odd, even), loudest_noise)
    noise = max(seen, least_noise, _LEAST_NOISE * magnitude)
    coarse, fine = slopes[0] - slopes[1], slopes[1] - slopes[2]
    fourth_coarse, fourth_fine = slopes[1] - coarse / 3, slopes[2] - fine / 3
    truncation = abs(fourth_coarse - fourth_fine)
    roundoff = _SAFETY * 1.5 * math.sqrt(2) * noise / (2 * steps[2])
    settled = abs(coarse) <= 2 * roundoff
    smooth = settled or 2 <= abs(coarse) / max(abs(fine), 1e-300) <= 8

    forward, forward_bar = _one_sided(right, at_zero, steps)
    backward, backward_bar = _one_sided(left, at_zero, steps)
    return Slope(
        value=fourth_fine - (fourth_coarse - fourth_fine) / 15,
        truncation=truncation,
        roundoff=roundoff,
        noise=noise,
        step=step,
        forward=forward,
        backward=-backward,
        one_sided_bar=max(forward_bar, backward_bar) + 8 * _SAFETY * noise / steps[2],
        smooth=smooth,
    )


def _noise(odd: list[float], even: list[float]) -> float:
    """Standard deviation of φ's noise, from combinations in which every low power of h cancels.

    The odd one cancels h and h³. The even one cancels h², or, over a kink at 0, |h|. Divided by the
    norms of their coefficients, each has the standard deviation of a single evaluation.
    """
    from_odd = (odd[0] - 10 * odd[1] + 16 * odd[2]) / math.sqrt(714)
    from_even = min(
        abs(even[1] - 4 * even[2]) / math.sqrt(70), abs(even[1] - 2 * even[2]) / math.sqrt(14)
    )
    return math.hypot(from_even, from_odd) / math.sqrt(2)


def measure_noise(
    phi: Callable[[float], float], spacing: float, widenings: int = _WIDENINGS
) -> float:
    """Standard deviation of φ's noise, from values so close together that only noise differs.

    Where most neighbours tie, φ does not resolve the spacing, and what rounding does to larger
    changes is still to be seen: the values are taken further apart.

    Args:
        phi: the loss along a line.
        spacing: distance between the values, far below any structure of φ.
        widenings: how often they may be taken further apart where most neighbours tie, each time
            eight times as far. Defaults to 4.

    Source: fourth differences, after Hamming's table, and wider spacings where values tie, both
    as used by Moré & Wild (2011).
    """
    for _ in range(widenings + 1):
        values = _at(phi, [spacing * offset for offset in range(_TABLE)])
        ties = sum(after == before for before, after in itertools.pairwise(values))
        if ties <= _TABLE // 2:
            break
        spacing *= _STRIDE
    for _ in range(_ORDER):
        values = [after - before for before, after in itertools.pairwise(values)]
    coefficient = math.comb(2 * _ORDER, _ORDER)
    return math.hypot(*values) / math.sqrt(len(values) * coefficient)


def _one_sided(
    values: list[float], at_zero: float, steps: tuple[float, float, float]
) -> tuple[float, float]:
    """A one-sided slope, extrapolated once, and how far it moved between steps."""
    first, second, third = ((v - at_zero) / h for v, h in zip(values, steps, strict=True))
    coarse, fine = 2 * second - first, 2 * third - second
    return fine, abs(coarse - fine)


def measure_slope(
    measure: Callable[[float], Slope],
    wanted: float,
    first_step: float = FIRST_STEP,
    *,
    enough: Callable[[Slope], bool] = lambda _: False,
    moves: int = MOST_MOVES,
) -> tuple[Slope, Slope]:
    """Look for the step at which a slope's error bar is at most `wanted`.

    Where truncation dominates the step shrinks, where round-off does it grows, until the bar is
    small enough or no step does better.

    Args:
        measure: gives the slope measured at a step.
        wanted: the error bar that is good enough.
        first_step: where to begin. Defaults to `FIRST_STEP`.
        enough: whether a slope tells enough, whatever its error bar. Defaults to never.
        moves: how often it goes on to another step at most. Defaults to 10.

    Returns:
        The first slope measured and the best one.
    """
    step = first_step
    first = best = latest = measure(step)
    heading = 0
    for _ in range(moves):
        if best.error_bar <= wanted or enough(best):
            break
        shrink = math.isnan(latest.error_bar) or latest.truncation > latest.roundoff
        turn = -1 if shrink else 1
        step = step / _STRIDE if shrink else step * _STRIDE
        if heading == -turn or not SMALLEST_STEP <= step <= LARGEST_STEP:
            break
        heading = turn
        latest = measure(step)
        best = better(best, latest)
    return first, best


def confirm_slope(measure: Callable[[float], Slope], best: Slope) -> Slope:
    """Measure again with smaller steps, until one agrees with the step before it.

    A loss can look straight at steps far larger than its structure. What a smaller step does not
    confirm, within both bars, was no derivative.
    """
    for _ in range(_CONFIRMATIONS):
        step = best.step / _STRIDE
        if step < SMALLEST_STEP:
            break
        smaller = measure(step)
        if better(best, smaller) is best:
            break
        agrees = abs(smaller.value - best.value) <= best.error_bar + smaller.error_bar
        best = smaller
        if agrees:
            break
    return best


def better(one: Slope, other: Slope) -> Slope:
    """Which of two slopes to believe: the smaller bar if they agree, else the smaller step."""
    if math.isnan(one.error_bar) or math.isnan(other.error_bar):
        return other if math.isnan(one.error_bar) else one
    if abs(one.value - other.value) <= one.error_bar + other.error_bar:
        return other if other.error_bar < one.error_bar else one
    return other if other.step < one.step else one
