"""How and where the gradient of a wrong variable is wrong: its pattern, and its worst entries."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from tfcheck.deadline import InTime
from tfcheck.examine.effort import Effort
from tfcheck.examine.finding import Details, Seen
from tfcheck.examine.point_facts import PointFacts
from tfcheck.examine.subject import Subject
from tfcheck.judge.judgement import Judgement
from tfcheck.judge.reasons import Reason
from tfcheck.judge.verdict import Verdict
from tfcheck.measure.differences import FIRST_STEP
from tfcheck.measure.directions import Array
from tfcheck.measure.measurement import Measurement
from tfcheck.measure.pattern import pattern_of
from tfcheck.measure.sweep import loudest_entries, measure_coordinate
from tfcheck.measure.target import Target
from tfcheck.measure.wrong_entries import suspicious_entries
from tfcheck.report.rows import Coordinate

_WORST_SHOWN = 5
_FEW_SHOWN = 3
"""How many of the worst entries are measured, and how many where each costs the whole loss."""

_BARELY = 3.0
"""A gap of at most so many bars needs entries that bear it out."""

_IN_NO_ENTRY = Judgement(
    Verdict.INCONCLUSIVE,
    "",
    "The score is hardly more than its error bar, and of the entries most likely to differ none "
    "does.",
)


class Detailing:
    """Looks into wrong variables, the first few of them.

    Where one layer corrupts all before it, the entries of more of them tell nothing more.

    Args:
        point: the step at the point.
        effort: how many are looked into.
        in_time: does what there is time for.
    """

    def __init__(self, point: PointFacts, effort: Effort, in_time: InTime) -> None:
        self._point = point
        self._effort = effort
        self._in_time = in_time

    def of(self, subject: Subject, seen: Seen) -> tuple[Judgement, Details]:
        """The judgement of a variable, and how and where it is wrong, where it is.

        Args:
            subject: the variable.
            seen: what looking at it came to.
        """
        judgement, target, measurement = seen.judgement, seen.target, seen.measurement
        if not judgement.accuses or target is None or measurement is None:
            return judgement, Details()
        if not self._effort.looks_closely:
            return judgement, Details()
        pattern = partial(self._pattern, subject, target, measurement)
        told = judgement.reason == Reason.BLOCKED
        how = "" if told else self._in_time(pattern, "")
        self._effort.look_closely()
        none: tuple[Coordinate, ...] = ()
        worst = self._in_time(partial(self._worst, subject, target), none)
        if _contradicted_by_entries(worst, measurement):
            return _IN_NO_ENTRY, Details(worst=worst)
        return judgement, Details(how, worst)

    def _pattern(self, subject: Subject, target: Target, measurement: Measurement) -> str:
        """How the gradient is wrong."""
        if not (measurement.lines or target.known is not None):
            return ""
        others = {
            other.parameter.path: other.gradient
            for other in self._point.of_loss(subject.parameter.loss)
            if other is not subject and other.gradient is not None
        }
        step = measurement.lines[0].slope.step / 4 if measurement.lines else FIRST_STEP
        return pattern_of(target, step, others)

    def _worst(self, subject: Subject, target: Target) -> tuple[Coordinate, ...]:
        """The most deviating entries among those that are likely to be wrong."""
        scale = self._point.base.scales[subject.parameter.loss]
        if target.known is not None:
            return _of_known(target, target.known, scale)
        search = not self._point.objective.facts.costly
        shown = _WORST_SHOWN if search else _FEW_SHOWN
        coordinates = [
            _measured(target, index, scale, search=search)
            for index in suspicious_entries(target, shown)
        ]
        return tuple(sorted(coordinates, key=_deviation, reverse=True))


def _measured(target: Target, index: tuple[int, ...], scale: float, *, search: bool) -> Coordinate:
    """An entry, measured."""
    line = measure_coordinate(target, index, search=search)
    unit = target.scale * scale
    analytic = math.nan if target.gradient is None else line.analytic / unit
    return Coordinate(index, analytic, line.slope.value / unit, line.slope.error_bar / abs(unit))


def _of_known(target: Target, right: Array, scale: float) -> tuple[Coordinate, ...]:
    """The entries of a variable that are furthest from its right gradient."""
    worst = loudest_entries(right - target.tape, _WORST_SHOWN)
    bar = target.known_bar / abs(scale)
    return tuple(
        Coordinate(index, float(target.tape[index]) / scale, float(right[index]) / scale, bar)
        for index in worst
    )


def _deviation(coordinate: Coordinate) -> float:
    gap = abs(np.nan_to_num(coordinate.analytic) - coordinate.numerical)
    return math.inf if math.isnan(gap) else gap


def _contradicted_by_entries(worst: tuple[Coordinate, ...], measurement: Measurement) -> bool:
    """Whether a gap hardly larger than its bar is found in none of the entries looked at."""
    bar = measurement.bar_square
    barely = bar < measurement.gap_square <= _BARELY**2 * bar
    equal = all(abs(c.analytic - c.numerical) <= c.error_bar for c in worst)
    return bool(worst) and barely and equal
