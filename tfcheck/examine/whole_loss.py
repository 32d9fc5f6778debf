"""Measuring variables through their whole loss: what is left where units do not tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from tfcheck.examine.deviating import Deviating
from tfcheck.examine.effort import Effort
from tfcheck.examine.finding import Seen
from tfcheck.examine.local_examination import LocalExamination
from tfcheck.examine.point_facts import PointFacts
from tfcheck.examine.remarks import coming_through, held_fixed
from tfcheck.examine.subject import Subject
from tfcheck.judge.judgement import JUMPS_ALONE, judge_missing
from tfcheck.judge.second_look import Look
from tfcheck.judge.verdict import Verdict
from tfcheck.measure.dependence import depends
from tfcheck.measure.measurement import Measurement, glance, measure_directions
from tfcheck.measure.sweep import measure_every_coordinate
from tfcheck.measure.target import Line, Target
from tfcheck.memory import bytes_of


class WholeLoss:
    """Measures variables through the losses of a step.

    Args:
        point: the step at the point.
        effort: what is spent on what is wrong.
        local: the losses that are examined unit by unit, as far as they are yet.
    """

    def __init__(
        self, point: PointFacts, effort: Effort, local: Mapping[int, LocalExamination]
    ) -> None:
        self._point = point
        self._effort = effort
        self._local = local
        self._deviating = Deviating(point, effort)
        self._like: dict[int, Line] = {}

    def seen(self, subject: Subject, advance: Callable[[int], None]) -> Seen:
        """What measuring a variable comes to.

        Args:
            subject: the variable.
            advance: called with the number of entries perturbed.
        """
        parameter, objective = subject.parameter, self._point.objective
        target = self._point.loss_of(subject).target(parameter, subject.gradient)
        look = self._without if subject.gradient is None else self._beside
        seen = look(subject, target, advance)
        judgement, local = seen.judgement, self._local.get(parameter.loss)
        if local is not None:
            wrong = local.wrong_behind(parameter.held_by)
            judgement = coming_through(judgement, wrong)
        judgement = held_fixed(judgement, draws=objective.facts.draws[parameter.loss])
        return replace(seen, judgement=judgement)

    def _beside(self, subject: Subject, target: Target, advance: Callable[[int], None]) -> Seen:
        """Hold the tape's gradient of a variable against the slopes."""
        measurement = self._measure(subject, target, advance)
        judgement = self._point.loss_of(subject).judged(measurement, target.scale)
        if self._deviating.jumps_alone(target, judgement):
            return Seen(JUMPS_ALONE, measurement, target)
        if judgement.verdict is Verdict.PASS:
            return Seen(judgement, measurement, target)
        look = self._deviating.second_look(subject, Look(judgement, measurement), target)
        return Seen(look.judgement, look.measurement, target, look.slopes)

    def _without(self, subject: Subject, target: Target, advance: Callable[[int], None]) -> Seen:
        """Judge a variable for which the tape gave None; only the first are measured, too.

        What depends on it only by way of values that the step assigns is measured past that.
        """
        objective, base, settings = self._point.objective, self._point.base, self._point.settings
        parameter = subject.parameter
        dependent = depends(target, settings.seed)
        if not dependent and objective.holds_back(parameter.loss):
            uncut = objective.along(base, parameter, uncut=True)
            target = replace(target, displaced=uncut, draw=None, values_along=None)
            dependent = depends(target, settings.seed)
        judgement = judge_missing(dependent, base.errors[parameter.loss])
        closely = self._effort.looks_closely or settings.method == "full"
        if not (dependent and closely):
            return Seen(judgement, None, target)
        return Seen(judgement, self._measure(subject, target, advance), target)

    def _measure(
        self, subject: Subject, target: Target, advance: Callable[[int], None]
    ) -> Measurement:
        objective, settings = self._point.objective, self._point.settings
        objective.deadline.require_time()
        epsilon = None if settings.epsilon == "auto" else float(settings.epsilon)
        if settings.method == "full":
            limit = bytes_of(settings.memory_limit)
            entries = self._point.around.entries(self._point.base, subject.parameter, limit)
            return measure_every_coordinate(replace(target, entries=entries), epsilon, advance)
        brief, loss = self._effort.is_brief, subject.parameter.loss
        if brief and loss in self._like:
            glimpse = glance(target, self._like[loss], settings.seed)
            if glimpse is not None:
                return glimpse
        measurement = measure_directions(
            target, settings.directions, epsilon, settings.seed, brief=brief
        )
        if measurement.lines and measurement.lines[0].plainly_off:
            self._like.setdefault(loss, measurement.lines[0])
        return measurement
