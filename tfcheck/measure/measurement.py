"""Measuring along random directions: the gradients' distance, from slopes of the loss."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfcheck.measure.directions import generator
from tfcheck.measure.similarity import similarity
from tfcheck.measure.target import Line, Movable

_MANY = 32
"""Lines for what only many of them can tell."""


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

    @classmethod
    def within(cls, size: float, gap: float, bar: float) -> Measurement:
        """What is known of a gradient that is measured together with others.

        Args:
            size: ‖g‖.
            gap: ‖ĝ − g‖, if all of the gap were its own.
            bar: how large that may be for right gradients.
        """
        return cls(
            lines=(),
            gap_square=_square(gap),
            numerical_square=_square(size + gap),  # it may be as large as that
            analytic_square=_square(size),
            bar_square=_square(bar),
            analytic_norm=size,
        )

    def of(self, size: float, unit: float) -> Measurement:
        """What was measured in units of one's own, as of a gradient.

        Args:
            size: ‖g‖, exactly.
            unit: how far an entry moves where a direction is 1.
        """

        def scaled(square: float) -> float:
            return _square(math.sqrt(square) / unit)

        return Measurement(
            lines=self.lines,
            gap_square=scaled(self.gap_square),
            numerical_square=scaled(self.numerical_square),
            analytic_square=scaled(self.analytic_square),
            bar_square=scaled(self.bar_square),
            analytic_norm=size,
        )

    def with_more(self, bar: float) -> Measurement:
        """The same with an error bar that is so much larger, as a norm of the gradient."""
        return dataclasses.replace(self, bar_square=_square(math.sqrt(self.bar_square) + bar))

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
        return similarity(math.sqrt(self.gap_square), self._sum_of_norms)

    @property
    def score_bar(self) -> float:
        """The score that a right gradient might have, by the error bars."""
        return similarity(math.sqrt(self.bar_square), self._sum_of_norms)


def _square(number: float) -> float:
    """A square, infinite where it is too large."""
    return number * number


def measure_directions(
    target: Movable, directions: int, epsilon: float | None, seed: int, *, brief: bool = False
) -> Measurement:
    """Measure a variable along Gaussian directions.

    The first direction settles the step. The others are measured there with one difference each,
    and only where that deviates with three steps and a search of their own.

    Args:
        target: the variable.
        directions: number of directions.
        epsilon: a fixed absolute step along directions of unit scale; None to choose it.
        seed: seeds the directions, with the target's stream.
        brief: whether one direction is enough where it is plainly off. Defaults to False.
    """
    rng = generator(seed, target.stream)
    drawn = (target.drawn(rng) for _ in range(directions))
    if epsilon is not None:
        step = epsilon / target.scale
        return _from_lines(target, [at_step(target, direction, step) for direction in drawn])
    reference = target.scale * target.norm
    leader = target.line(next(drawn), reference)
    if brief and leader.plainly_off:
        return _from_lines(target, [leader])
    followers = [_follow(target, direction, leader, reference) for direction in drawn]
    return _from_lines(target, [leader, *followers])


def glance(target: Movable, like: Line, seed: int) -> Measurement | None:
    """One difference along one direction, where what was found elsewhere lets it tell enough.

    Args:
        target: the variable.
        like: a line of the same loss, whose step and error bar are taken for this one's.
        seed: seeds the direction.

    Returns:
        What was measured; None where the gap is not plainly larger than the bar.
    """
    direction = target.drawn(generator(seed, target.stream))
    step = like.slope.step / 4
    analytic, phi = target.along(direction, step)
    ahead, behind = phi.at([step, -step])
    value = (ahead - behind) / (2 * step)
    part = abs(like.slope.truncation / like.slope.value) if like.slope.value else 0.0
    slope = dataclasses.replace(
        like.slope,
        value=value,
        truncation=part * abs(value),
        forward=math.nan,
        backward=math.nan,
    )
    line = Line(analytic, slope, abs(value - analytic), first_smooth=True)
    return _from_lines(target, [line]) if line.plainly_off else None


def measure_more(target: Movable, step: float, seed: int) -> list[Line]:
    """Lines along many more directions, all at one step, for what only many of them can tell."""
    rng = generator(seed, target.stream, "more")
    return [at_step(target, target.drawn(rng), step) for _ in range(_MANY)]


def at_step(target: Movable, direction: Any, step: float) -> Line:
    """Measure along a direction at one step, without a search."""
    analytic, slope = target.slope_at(direction, step)
    return Line(analytic, slope, abs(slope.value - analytic), slope.smooth)


def _follow(target: Movable, direction: Any, leader: Line, reference: float) -> Line:
    """Measure along a further direction at the step that the first one settled.

    One difference is enough where it agrees with the tape. Where the first direction is plainly
    wrong the three steps are taken without a search: whether a kink explains it is told by this
    direction's own one-sided slopes.
    """
    if leader.plainly_off:
        line = dataclasses.replace(at_step(target, direction, leader.slope.step), first_smooth=True)
        if line.plainly_off or line.gap <= line.slope.error_bar <= leader.slope.error_bar:
            return line
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


def _from_lines(target: Movable, lines: list[Line]) -> Measurement:

    def mean_square(values: list[float]) -> float:
        with np.errstate(over="ignore"):
            return float(np.mean(np.square(np.divide(values, target.scale))))

    return Measurement(
        lines=tuple(lines),
        gap_square=mean_square([line.gap for line in lines]),
        numerical_square=mean_square([line.slope.value for line in lines]),
        analytic_square=mean_square([line.analytic for line in lines]),
        bar_square=mean_square([line.slope.error_bar for line in lines]),
        analytic_norm=target.norm,
    )
