"""Measuring one variable: slopes of its loss along lines, beside the tape's."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfcheck.differences import (
    FIRST_STEP,
    SMALLEST_STEP,
    Along,
    Slope,
    better,
    central_difference,
    confirm_slope,
    measure_noise,
    measure_slope,
)
from tfcheck.directions import Array, dot, gaussian, generator, representable, scale_of
from tfcheck.entries import Entries, one_by_one
from tfcheck.lines import Direction, Factors, Values, slope_along

Displaced = Callable[[Array], float]
"""The loss as a function of a variable's displacement."""

_NOISE_MARGIN = 4.0
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

_PLAIN = 100
"""A gap of this many error bars needs no finer measurement of its size."""

TAPE_ULPS = 32
"""Rounding of the tape's arithmetic, in units of the rounding of one operation."""

_STRAIGHT = 2.0**-8
"""The part of the loss by which a first step may change it, going by the tape's gradient."""

_REFINED = 256
"""How many deviating entries of a sweep are measured again, each with a search for its step."""

_DEPENDENCE_STEPS = (0.01, 0.3, 3.0, 100.0)


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


@dataclass(frozen=True)
class Measurement:
    """What was measured of one variable.

    Squares are sums over the entries of the variable, estimated from the lines when these are
    random directions: ‖ĝ − g‖², ‖ĝ‖², ‖g‖² and the square of the error bar on ‖ĝ − g‖.

    Attributes:
        lines: the lines looked at closely: the random directions, or the entries that deviated in
            a sweep over all of them.
        gap_square: ‖ĝ − g‖².
        numerical_square: ‖ĝ‖².
        analytic_square: ‖g‖², by the same estimate.
        bar_square: how large ‖ĝ − g‖² may be for a right gradient.
        analytic_norm: ‖g‖, exactly.
    """

    lines: tuple[Line, ...]
    gap_square: float
    numerical_square: float
    analytic_square: float
    bar_square: float
    analytic_norm: float

    @property
    def numerical_norm(self) -> float:
        """‖ĝ‖: the exact ‖g‖, times how much longer ĝ is along the lines."""
        if self.analytic_square == 0.0:
            return math.sqrt(self.numerical_square)
        return self.analytic_norm * math.sqrt(self.numerical_square / self.analytic_square)

    @property
    def _sum_of_norms(self) -> float:
        return math.sqrt(self.numerical_square) + math.sqrt(self.analytic_square)

    @property
    def score(self) -> float:
        """The similarity score ‖ĝ − g‖ / (‖ĝ‖ + ‖g‖); 0 when both gradients are zero."""
        return _ratio(math.sqrt(self.gap_square), self._sum_of_norms)

    @property
    def score_bar(self) -> float:
        """The score that a right gradient might have, by the error bars."""
        return _ratio(math.sqrt(self.bar_square), self._sum_of_norms)


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


@dataclass(frozen=True)
class Target:
    """One variable at one point, ready to be measured.

    Attributes:
        stream: seeds the random directions.
        displaced: the loss as a function of the variable's displacement.
        value: the variable's value.
        gradient: the tape's gradient, None where it gave none.
        at_zero: the loss at the point.
        resolution: relative size of the error bar that is good enough.
        loudest: the largest scaled gradient norm among the variables of the same loss, against
            which a gradient of zero is judged.
        arithmetic: what is known of the loss's noise and rounding.
        start: a step known to suit the loss around this point, None where none is.
        bits: how many bits of the variable are kept where the loss is evaluated.
        unit: size of a natural change, where it is not the root mean square of `value`.
        draw: draws a random direction; None for Gaussian ones.
        values_along: the loss along a direction, at several places at once; None for one by one.
        entries: the loss where single entries are perturbed, many at once; None for one by one.
    """

    stream: str
    displaced: Displaced
    value: Array
    gradient: Array | None
    at_zero: float
    resolution: float
    loudest: float
    arithmetic: Arithmetic = Arithmetic()
    bits: int = 53
    start: float | None = None
    unit: float | None = None
    draw: Callable[[np.random.Generator], Direction] | None = None
    values_along: Callable[[Direction], Values] | None = None
    entries: Entries | None = None

    @property
    def scale(self) -> float:
        """Size of a natural change of the variable."""
        return scale_of(self.value) if self.unit is None else self.unit

    @property
    def norm(self) -> float:
        """‖g‖, 0 where the tape gave no gradient."""
        return 0.0 if self.gradient is None else math.sqrt(dot(self.gradient, self.gradient))

    def wanted(self, reference: float) -> float:
        """The error bar that is good enough for slopes of the size `reference`."""
        silent = reference <= 1e-13 * self.loudest
        wanted = 1e-9 * self.loudest if silent else self.resolution * reference
        return max(wanted, 4 * self.arithmetic.rounding)

    def drawn(self, rng: np.random.Generator) -> Any:
        """A random direction."""
        if self.draw is not None:
            return self.draw(rng)
        return gaussian(rng, self.value.shape, self.scale)

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

    def slope_at(
        self, direction: Any, step: float, wanted: float = math.inf
    ) -> tuple[float, Slope]:
        """The tape's and the measured slope along a direction, at a step.

        Args:
            direction: the direction.
            step: the largest of the three steps.
            wanted: the error bar that is good enough; where a quiet line of a noisy loss has more,
                a dozen more evaluations tell its own noise. Defaults to infinity: only six.
        """
        analytic, phi = self.along(direction, step / 4)

        def difference(least_noise: float) -> Slope:
            slope = central_difference(
                phi,
                self.at_zero,
                step,
                loudest_noise=_NOISE_MARGIN * self.arithmetic.noise,
                least_noise=max(_NOISE_PART * self.arithmetic.rounding, least_noise),
            )
            return dataclasses.replace(slope, roundoff=slope.roundoff + self.arithmetic.rounding)

        heard = _HEARD_PART * self.arithmetic.heard
        slope = difference(heard)
        if slope.noise <= heard and not slope.error_bar <= wanted:
            # Seven values may agree by luck, a dozen more show whether this line is that quiet.
            own = measure_noise(phi, step / _NOISE_SPACING, widenings=0)
            if (
                own == 0
            ):  # They all tie, perhaps on one tread of a loss that rounding moves in steps.
                own = self.arithmetic.tread / _TREAD_NOISE
            slope = difference(min(own, heard) if math.isfinite(own) else heard)
        return analytic, slope

    def line(self, direction: Any, reference: float, first_step: float | None = None) -> Line:
        """Measure along a direction, looking for a step that is good enough."""
        analytic: dict[float, float] = {}

        def measure(step: float) -> Slope:
            analytic[step], slope = self.slope_at(direction, step, wanted)
            return slope

        wanted = self.wanted(reference)
        start = self.first_step(reference) if first_step is None else first_step
        first, best = measure_slope(measure, wanted, start)
        if start > FIRST_STEP and not best.error_bar <= _USEFUL * reference:
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


def measure_directions(
    target: Target, directions: int, epsilon: float | None, seed: int
) -> Measurement:
    """Measure a variable along Gaussian directions.

    The first direction settles the step. The others are measured there with one difference each,
    and only where that deviates with three steps and a search of their own.

    Args:
        target: the variable.
        directions: number of directions.
        epsilon: a fixed absolute step along directions of unit scale; None to choose it.
        seed: seeds the directions, with the target's stream.
    """
    rng = generator(seed, target.stream)
    drawn = (target.drawn(rng) for _ in range(directions))
    if epsilon is not None:
        step = epsilon / target.scale
        lines = []
        for direction in drawn:
            analytic, slope = target.slope_at(direction, step)
            lines.append(Line(analytic, slope, abs(slope.value - analytic), slope.smooth))
        return _from_lines(target, lines)
    reference = target.scale * target.norm
    lines = [target.line(next(drawn), reference)]
    lines += [_follow(target, direction, lines[0], reference) for direction in drawn]
    return _from_lines(target, lines)


def measure_more(target: Target, step: float, seed: int) -> list[Line]:
    """Lines along many more directions, all at one step, for what only many of them can tell."""
    rng = generator(seed, target.stream, "more")
    lines = []
    for _ in range(_MANY):
        direction = target.drawn(rng)
        analytic, slope = target.slope_at(direction, step)
        lines.append(Line(analytic, slope, abs(slope.value - analytic), slope.smooth))
    return lines


_MANY = 32


def _follow(target: Target, direction: Any, leader: Line, reference: float) -> Line:
    """Measure along a further direction at the step that the first one settled.

    One difference is enough where it agrees with the tape. Where the first direction is plainly
    wrong the three steps are taken without a search: whether a kink explains it is told by this
    direction's own one-sided slopes.
    """
    if leader.gap > _PLAIN * leader.slope.error_bar:
        analytic, slope = target.slope_at(direction, leader.slope.step)
        gap = abs(slope.value - analytic)
        if gap > _PLAIN * slope.error_bar or gap <= slope.error_bar <= leader.slope.error_bar:
            return Line(analytic, slope, gap, first_smooth=True)
        return target.line(direction, reference, leader.slope.step)
    step = leader.slope.step / 4
    analytic, phi = target.along(direction, step)
    ahead, behind = phi.at([step, -step])
    value = (ahead - behind) / (2 * step)
    gap = abs(value - analytic)
    if gap <= max(target.wanted(reference), min(leader.slope.error_bar, reference)):
        # The one-sided slopes of the first direction say nothing of this one.
        slope = dataclasses.replace(leader.slope, value=value, forward=math.nan, backward=math.nan)
        return Line(analytic, slope, gap, first_smooth=True)
    return target.line(direction, reference, leader.slope.step)


def _from_lines(target: Target, lines: list[Line]) -> Measurement:
    square = target.scale**2

    def mean_square(values: list[float]) -> float:
        with np.errstate(over="ignore"):
            return float(np.mean(np.square(values))) / square

    return Measurement(
        lines=tuple(lines),
        gap_square=mean_square([line.gap for line in lines]),
        numerical_square=mean_square([line.slope.value for line in lines]),
        analytic_square=mean_square([line.analytic for line in lines]),
        bar_square=mean_square([line.slope.error_bar for line in lines]),
        analytic_norm=target.norm,
    )


def measure_every_coordinate(
    target: Target, epsilon: float | None, progress: Callable[[int], None]
) -> Measurement:
    """Perturb every entry of a variable, one at a time.

    Args:
        target: the variable.
        epsilon: a fixed absolute step; None to choose it by the entries with large gradients.
        progress: called with the number of entries done since the last call.
    """
    gradient = np.zeros(target.value.shape) if target.gradient is None else target.gradient
    probes = [measure_coordinate(target, index) for index in loudest_entries(gradient, 2)]
    if epsilon is None:
        step = min(probe.slope.step for probe in probes) / 4 * target.scale
    else:
        step = epsilon
    numerical = _sweep(target, step, progress)
    bars = _sweep_bars(probes, numerical, step) + target.arithmetic.rounding / target.scale
    gaps = np.abs(numerical - gradient)
    excess = gaps - np.maximum(bars, target.resolution * np.abs(gradient))
    order = np.argsort(excess, axis=None)[::-1][:_REFINED]
    refined = []
    for index in (_unravel(flat, gaps.shape) for flat in order if not excess.flat[flat] <= 0):
        line = measure_coordinate(target, index)
        refined.append(
            dataclasses.replace(line, first_gap=max(line.first_gap, gaps[index] * target.scale))
        )
        numerical[index] = line.slope.value / target.scale
        bars[index] = line.slope.error_bar / target.scale
    return Measurement(
        lines=tuple(refined),
        gap_square=float(np.sum((numerical - gradient) ** 2)),
        numerical_square=float(np.sum(numerical**2)),
        analytic_square=float(np.sum(gradient**2)),
        bar_square=float(np.sum(bars**2)),
        analytic_norm=target.norm,
    )


def _sweep(target: Target, step: float, progress: Callable[[int], None]) -> Array:
    """The central difference of every entry, at an absolute step."""
    plain = one_by_one(target.displaced, target.value.shape)
    entries = target.entries
    if entries is None or not _agrees(target, entries, plain):
        entries = plain
    value = target.value.ravel()
    numerical = np.empty(value.size)
    for start in range(0, value.size, max(1, entries.at_once // 2)):
        index = np.arange(start, min(start + max(1, entries.at_once // 2), value.size))
        both, steps = np.tile(index, 2), np.repeat([step, -step], index.size)
        losses = entries.losses(both, steps)
        lost = ~np.isfinite(losses)
        if np.any(lost):  # where one point is refused, all others are with it
            losses[lost] = plain.losses(both[lost], steps[lost])
        realised = (value[index] + step) - (value[index] - step)
        numerical[index] = (losses[: index.size] - losses[index.size :]) / realised
        progress(index.size)
    return numerical.reshape(target.value.shape)


def _agrees(target: Target, entries: Entries, plain: Entries) -> bool:
    """Whether perturbing entries at once gives what perturbing them one by one does."""
    gradient = np.zeros(target.value.shape) if target.gradient is None else target.gradient
    loudest = [np.ravel_multi_index(i, gradient.shape) for i in loudest_entries(gradient, _TRIED)]
    rng = generator(0, target.stream, "trial")
    others = rng.choice(gradient.size, min(_TRIED_AT_RANDOM, gradient.size), replace=False)
    index = np.array([*loudest, *others], np.int64)
    change = np.resize([target.scale, -target.scale], index.size)
    expected = plain.losses(index, change)
    found = entries.losses(index, change)
    noise = target.arithmetic.noise if math.isfinite(target.arithmetic.noise) else 0.0
    tolerance = _SAME * (abs(target.at_zero) + np.abs(expected)) + _NOISE_MARGIN**2 * noise
    tolerance += _SAME_CHANGE * np.abs(expected - target.at_zero)
    same = (np.abs(found - expected) <= tolerance) | ~np.isfinite(expected)
    return bool(np.all(same))


_TRIED = 3
_TRIED_AT_RANDOM = 8
_SAME = 1e-13
_SAME_CHANGE = 1e-8
"""How far two ways to evaluate a loss may be apart, relative to the loss and to its change."""


def _sweep_bars(probes: list[Line], numerical: Array, step: float) -> Array:
    """Error bars of plain differences, from what the probes showed of noise and truncation."""
    roundoff = 6 * math.sqrt(2) * max(probe.slope.noise for probe in probes) / (2 * step)
    truncation = max(
        min(1.0, probe.slope.truncation / abs(probe.slope.value)) if probe.slope.value else 0.0
        for probe in probes
    )
    return np.asarray(roundoff + truncation * np.abs(numerical))


def measure_coordinate(target: Target, index: tuple[int, ...]) -> Line:
    """Measure one entry of a variable, with a search for its step."""
    direction = np.zeros(target.value.shape)
    direction[index] = target.scale
    gradient = 0.0 if target.gradient is None else float(target.gradient[index])
    reference = target.scale * max(
        abs(gradient), target.norm / math.sqrt(max(target.value.size, 1))
    )
    return target.line(direction, reference)


def depends(target: Target, seed: int) -> bool:
    """Whether the loss changes at all when the variable moves far along a random direction."""
    rng = generator(seed, target.stream, "dependence")
    direction = gaussian(rng, target.value.shape, target.scale)
    return any(
        target.displaced(sign * step * direction) != target.at_zero
        for step in _DEPENDENCE_STEPS
        for sign in (1.0, -1.0)
    )


def only_jumps(target: Target, seed: int) -> bool:
    """Whether the loss depends on a variable in jumps alone, so that no slope says where to go.

    A unit that is switched off, such as a ReLU's, has no slope here either, but some elsewhere.
    """
    rng = generator(seed, target.stream, "dependence")
    direction = gaussian(rng, target.value.shape, target.scale)
    changed = [
        t
        for step in _DEPENDENCE_STEPS
        for t in (step, -step)
        if abs(target.displaced(t * direction) - target.at_zero) > _CHANGE * abs(target.at_zero)
    ]
    if not changed:
        return False
    for t in changed:
        here = target.displaced(t * direction)
        if any(target.displaced(t * (1 + nearby) * direction) != here for nearby in _NEARBY):
            return False
    return _jump(lambda t: target.displaced(t * direction), changed[0]) > 0


_CHANGE = 1e-6
"""The part of itself by which a loss must change to depend on a variable, rather than to round."""

_NEARBY = (1e-6, -1e-6)
_HALVINGS = 40
_JUMP_LEFT = 1e-3


def _jump(phi: Callable[[float], float], end: float) -> float:
    """The size of a jump of φ between 0 and `end`, 0 where it gets there without one."""
    low, high = 0.0, end
    at_low, at_high = phi(low), phi(high)
    whole = abs(at_high - at_low)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        at_middle = phi(middle)
        if abs(at_middle - at_low) >= abs(at_high - at_middle):
            high, at_high = middle, at_middle
        else:
            low, at_low = middle, at_middle
    left = abs(at_high - at_low)
    return left if left > _JUMP_LEFT * whole else 0.0


def loudest_entries(gradient: Array, count: int) -> list[tuple[int, ...]]:
    """Indices of the entries with the largest magnitude, largest first."""
    order = np.argsort(np.abs(gradient), axis=None)[::-1][:count]
    return [_unravel(flat, gradient.shape) for flat in order]


def _unravel(flat: np.intp, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(flat, shape))


def _ratio(numerator: float, denominator: float) -> float:
    if math.isnan(numerator) or math.isnan(denominator):
        return math.nan
    if denominator == 0.0:
        return 0.0 if numerator == 0.0 else math.inf
    return numerator / denominator
