"""What an examination finds of one variable, in numbers: later stages add to it and change none."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from tfcheck.examine.corrected import Corrected
from tfcheck.examine.subject import Subject
from tfcheck.judge.judgement import Judgement, detectable_error
from tfcheck.judge.reasons import Reason
from tfcheck.judge.verdict import Thresholds
from tfcheck.measure.measurement import Measurement
from tfcheck.measure.target import Target
from tfcheck.report.rows import Coordinate


@dataclass(frozen=True)
class Seen:
    """What looking at a variable came to.

    Attributes:
        judgement: its judgement.
        measurement: what was measured; None where nothing was.
        target: what was looked at; None where no more can be asked of it.
        slopes: where a kink was found, the slopes to the left, by the tape and to the right.
        right: the right gradient, where it follows from what was measured of units.
    """

    judgement: Judgement
    measurement: Measurement | None = None
    target: Target | None = None
    slopes: tuple[float, float, float] | None = None
    right: Corrected | None = None


@dataclass(frozen=True)
class Details:
    """How and where a gradient is wrong.

    Attributes:
        pattern: how the right one follows from something at hand, `""` where it does not.
        worst: the most deviating entries, worst first.
    """

    pattern: str = ""
    worst: tuple[Coordinate, ...] = ()


@dataclass(frozen=True)
class Numbers:
    """What was measured of a variable, its loss scale undone; `nan` where that is unknown.

    The squares are what scores of layers and models are made of.
    """

    score: float = math.nan
    analytic_norm: float = math.nan
    numerical_norm: float = math.nan
    error_bar: float = math.nan
    detectable_error: float = math.nan
    gap_square: float = math.nan
    numerical_square: float = math.nan
    analytic_square: float = math.nan


@dataclass(frozen=True, eq=False)
class Looked:
    """What was looked at, and what that came to.

    Attributes:
        subject: the variable at the point.
        seen: what looking at it came to.
    """

    subject: Subject
    seen: Seen


@dataclass(frozen=True)
class Finding:
    """What was found of one variable.

    Attributes:
        path: its path.
        layer: path of the layer that owns it.
        shape: its shape.
        judgement: its judgement.
        numbers: what was measured.
        slopes: where a kink was found, the slopes to the left, by the tape and to the right.
        details: how and where it is wrong, as far as that was looked into.
        looked: what was looked at, where the gradient is wrong; None elsewhere, so that no more is
            kept of large models than is needed.
    """

    path: str
    layer: str
    shape: tuple[int, ...]
    judgement: Judgement
    numbers: Numbers = Numbers()
    slopes: tuple[float, float, float] | None = None
    details: Details = Details()
    looked: Looked | None = field(default=None, compare=False, repr=False)

    def outranks(self, other: Finding) -> bool:
        """Whether it is worse than another one of the same variable.

        Args:
            other: the other one.
        """
        severity, before = self.judgement.verdict.severity, other.judgement.verdict.severity
        if severity != before:
            return severity > before
        return bool(np.nan_to_num(self.numbers.score) > np.nan_to_num(other.numbers.score))


def layer_of(path: str) -> str:
    """The path of the layer that a variable belongs to, by the variable's path."""
    return path.rsplit("/", 1)[0]


def numbers_of(seen: Seen, size: float, scale: float, thresholds: Thresholds) -> Numbers:
    """What there is to report of what was measured.

    Args:
        seen: what looking at the variable came to.
        size: ‖g‖, with the loss scale; `nan` where unknown.
        scale: the loss scale.
        thresholds: the bands.
    """
    analytic_norm = size / abs(scale)
    measurement, reason = seen.measurement, seen.judgement.reason
    if measurement is None:
        if reason == Reason.UNUSED:
            return Numbers(0.0, analytic_norm, 0.0, math.nan, math.nan, 0.0, 0.0, 0.0)
        return Numbers(analytic_norm=analytic_norm)
    return Numbers(
        score=_score_shown(measurement, reason),
        analytic_norm=analytic_norm,
        numerical_norm=_numerical_norm_shown(measurement, reason) / abs(scale),
        error_bar=measurement.score_bar,
        detectable_error=detectable_error(measurement, reason, thresholds) / abs(scale),
        gap_square=measurement.gap_square / scale**2,
        numerical_square=measurement.numerical_square / scale**2,
        analytic_square=measurement.analytic_square / scale**2,
    )


def _numerical_norm_shown(measurement: Measurement, reason: str) -> float:
    """‖ĝ‖ for the report: measured jointly and too small to be seen, it is unknown."""
    unseen = reason == Reason.BELOW_RESOLUTION and not measurement.lines
    return math.nan if unseen else measurement.numerical_norm


def _score_shown(measurement: Measurement, reason: str) -> float:
    """The score for the report: two gradients that are both zero within the bar have none."""
    if reason == Reason.BELOW_RESOLUTION:
        return math.nan
    return 0.0 if reason == Reason.UNUSED else measurement.score
