"""What pictures are drawn from: the loss along a direction, and what differences give, by step.

It is measured when all verdicts are known, and changes none of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from tfcheck.examine.finding import Finding
from tfcheck.examine.point_facts import PointFacts
from tfcheck.examine.subject import Subject
from tfcheck.examine.worst_direction import STEEPEST, sized, worst_direction
from tfcheck.judge.verdict import Verdict
from tfcheck.measure.differences import Slope
from tfcheck.measure.directions import Array, dot, norm
from tfcheck.measure.target import Target
from tfcheck.objective.objective import Objective
from tfcheck.report.curves import Curves, Differences
from tfcheck.trace.batch import Batch

MOST = 3
"""So many wrong variables have a picture; one alone, where evaluations are not cheap."""

_PLACES = 5
"""So many places to each side show the loss along a direction."""

_STEPS = (1e-11, 1e-9, 1e-7, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
_STEPS_AS_TRAINED = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
"""Steps to show the error of; those of the classical recipe, 1e-7, among them."""

_MOVES = 1
"""How often the search for a step goes on, since only a picture depends on it."""

_CHANGE = 0.25
"""By which part of itself the loss changes in the picture, going by the steeper of its tangents."""

_FURTHEST, _NEAREST = 0.5, 2.0**-12
"""How far the variable moves at most and at least, beside its own size."""

_SMALL = 2**17
"""A step with no more numbers in it, batch and variables together, is evaluated in no time."""


class CurvesAt:
    """Curves of the variables of a step at a point.

    Args:
        point: the step at the point.
        batch: the batch of the point.
    """

    def __init__(self, point: PointFacts, batch: Batch) -> None:
        self._point = point
        self._batch = batch
        self._objective = point.objective

    def of(self, findings: Sequence[Finding], *, also_right: bool) -> Iterator[tuple[str, Curves]]:
        """The curves of the first wrong variables, the worst first.

        Where none is wrong, those of the loudest right one, if the step is small.

        Args:
            findings: what was found of the variables.
            also_right: whether a right one is of interest.
        """
        wrong = sorted((f for f in findings if f.judgement.accuses), key=_badness, reverse=True)
        most = MOST if self._is_cheap else 1
        with _uncounted(self._objective):
            drawn = 0
            for finding in wrong[: 2 * most]:
                curves = self._of_wrong(finding, first=drawn == 0) if drawn < most else None
                if curves is not None:
                    yield finding.path, curves
                    drawn += 1
            if also_right and not wrong and self._is_cheap:
                yield from self._of_loudest(findings)

    @property
    def _is_large(self) -> bool:
        return sum(math.prod(value.shape) for value in self._point.base.inputs) > _SMALL

    @property
    def _is_cheap(self) -> bool:
        return not (self._objective.facts.costly or self._is_large)

    def _of_wrong(self, finding: Finding, *, first: bool) -> Curves | None:
        """The curves of a wrong variable; for the first of a small step also those by step."""
        if finding.looked is None:
            return None
        settings = self._point.settings
        found = worst_direction(finding.looked, finding.details, settings.seed)
        if found is None:
            return None
        name, direction = found
        subject = finding.looked.subject
        target = self._target(subject)
        tape = math.nan if subject.gradient is None else dot(direction, subject.gradient)
        measured = self._measured(target, direction)
        right, bar = measured.value, measured.error_bar
        known = finding.looked.seen.right
        if known is not None:
            right, bar = dot(direction, known.gradient), known.bar * norm(direction)
        if not abs(right - np.nan_to_num(tape)) > bar:
            return None
        line = _line(target, direction, _reach(target.at_zero, right, tape))
        curves = Curves(
            direction=name,
            precision=self._objective.facts.precision,
            places=tuple(line),
            losses=tuple(line.values()),
            tape=tape,
            right=right,
            right_bar=bar,
            step=measured.step,
        )
        if first and not self._is_large:
            curves = replace(curves, differences=self._differences(subject, target, direction))
        return _unscaled(curves, self._point.base.scales[subject.parameter.loss])

    def _of_loudest(self, findings: Sequence[Finding]) -> Iterator[tuple[str, Curves]]:
        """What differences give for the loudest right variable, along its gradient."""
        right = {f.path for f in findings if f.judgement.verdict is Verdict.PASS}
        subjects = [s for s in self._point.subjects if s.parameter.path in right and s.size > 0]
        if not subjects:
            return
        subject = max(subjects, key=lambda subject: subject.size)
        target = self._target(subject)
        direction = sized(target.tape, subject.scale)
        slope = dot(direction, target.tape)
        curves = Curves(
            direction=STEEPEST,
            precision=self._objective.facts.precision,
            places=(),
            losses=(),
            tape=slope,
            right=slope,
            right_bar=0.0,
            step=self._measured(target, direction).step,
            differences=self._differences(subject, target, direction),
        )
        scale = self._point.base.scales[subject.parameter.loss]
        yield subject.parameter.path, _unscaled(curves, scale)

    def _target(self, subject: Subject) -> Target:
        """A variable, ready to be measured through the whole loss."""
        loss = self._point.loss_of(subject)
        target = loss.target(subject.parameter, subject.gradient, heard=False)
        return replace(target, moves=min(target.moves, _MOVES), draw=None, values_along=None)

    def _measured(self, target: Target, direction: Array) -> Slope:
        """The slope along a direction, by the step that a check takes there."""
        epsilon = self._point.settings.epsilon
        if not isinstance(epsilon, str):
            return target.slope_at(direction, epsilon / target.scale)[1]
        return target.line(direction, target.scale * target.norm).slope

    def _differences(
        self, subject: Subject, target: Target, direction: Array
    ) -> tuple[Differences, ...]:
        """What differences give by their steps: as a check measures, and in what trains."""
        facts, parameter = self._objective.facts, subject.parameter
        exact = facts.precision == "float64"
        steps = _STEPS if exact else _STEPS_AS_TRAINED
        found = [_by_step(facts.precision, target.displaced, direction, steps)]
        trained = self._objective.along_as_trained(self._batch, self._point.base, parameter)
        if trained is not None and facts.lowest != facts.precision:
            found.append(_by_step(facts.lowest, trained, direction, _STEPS_AS_TRAINED))
        return tuple(found)


@contextmanager
def _uncounted(objective: Objective) -> Iterator[None]:
    """Have evaluations not count: they belong to no measurement."""
    counted = objective.evaluations
    try:
        yield
    finally:
        objective.evaluations = counted


def _badness(finding: Finding) -> tuple[int, float]:
    """As `report.rows.badness`: the worst verdict is the largest, then the highest score."""
    score = finding.numbers.score
    return finding.judgement.verdict.severity, math.inf if math.isnan(score) else score


def _line(target: Target, direction: Array, reach: float) -> dict[float, float]:
    """The loss at some places to both sides of the point, where it is finite."""
    places = [reach * place / _PLACES for place in range(-_PLACES, _PLACES + 1)]
    losses = (target.displaced(t * direction) if t else target.at_zero for t in places)
    line = dict(zip(places, map(float, losses), strict=True))
    return {place: loss for place, loss in line.items() if math.isfinite(loss)}


def _reach(at_zero: float, right: float, tape: float) -> float:
    """How far to look at the loss, so that both tangents can be told from it and each other."""
    steepest = max(abs(right), abs(tape) if math.isfinite(tape) else 0.0)
    reach = _CHANGE * abs(at_zero) / steepest if steepest > 0 and at_zero else _FURTHEST
    return min(max(reach, _NEAREST), _FURTHEST)


def _by_step(
    precision: str,
    displaced: Callable[[Array], float],
    direction: Array,
    steps: Sequence[float],
) -> Differences:
    """Central differences along a direction, by their steps; without those that are not finite."""
    found: Mapping[float, float] = {
        step: (displaced(step * direction) - displaced(-step * direction)) / (2 * step)
        for step in steps
    }
    known = {step: slope for step, slope in found.items() if np.isfinite(slope)}
    return Differences(precision, tuple(known), tuple(map(float, known.values())))


def _unscaled(curves: Curves, scale: float) -> Curves:
    """Curves of a loss without the scale that an optimizer puts on it."""
    return replace(
        curves,
        losses=tuple(loss / scale for loss in curves.losses),
        tape=curves.tape / scale,
        right=curves.right / scale,
        right_bar=curves.right_bar / abs(scale),
        differences=tuple(
            replace(one, slopes=tuple(slope / scale for slope in one.slopes))
            for one in curves.differences
        ),
    )
