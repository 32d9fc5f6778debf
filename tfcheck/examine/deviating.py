"""A variable that deviates from the slopes of its whole loss: rounding, jumps, or a second look."""

from __future__ import annotations

import numpy as np

from tfcheck.examine.effort import Effort
from tfcheck.examine.point_facts import PointFacts
from tfcheck.examine.subject import Subject
from tfcheck.judge.judgement import Judgement, settled
from tfcheck.judge.reasons import Reason
from tfcheck.judge.second_look import Look, look_again
from tfcheck.judge.verdict import Verdict
from tfcheck.measure.dependence import only_jumps
from tfcheck.measure.target import Target

_QUIET_PART = 1e-4
_ROUNDED = 0.1
"""A gradient of at most this part of the loudest is but rounding where it changes that much."""


class Deviating:
    """Looks again at variables that deviate.

    Args:
        point: the step at the point.
        effort: what is spent on that.
    """

    def __init__(self, point: PointFacts, effort: Effort) -> None:
        self._point = point
        self._effort = effort

    def jumps_alone(self, target: Target, judgement: Judgement) -> bool:
        """Whether two gradients that are zero throughout are so because the loss has only jumps.

        Args:
            target: the variable.
            judgement: its judgement so far.
        """
        silent = target.gradient is not None and not np.any(target.gradient)
        if not silent or judgement.accuses or not self._effort.may_try_jumps():
            return False
        return only_jumps(target, self._point.settings.seed)

    def second_look(self, subject: Subject, first: Look, target: Target) -> Look:
        """Judge again with a look a little aside; on a kink, what was measured there counts.

        Args:
            subject: the variable.
            first: what the first look came to.
            target: what was looked at.
        """
        deviating = [line for line in first.measurement.lines if line.deviates]
        certain = bool(deviating) and all(map(settled, deviating))
        self._effort.look_again()
        if (rounded := self._within_rounding(subject, first)) is not None:
            return rounded
        if certain and self._effort.settles_for_less:
            return first
        costly, settings = self._point.objective.facts.costly, self._point.settings
        loss = self._point.loss_of(subject)
        return look_again(
            first,
            target,
            lambda: self._aside(subject),
            lambda measurement, there: loss.judged(measurement, there.scale),
            directions=1 if costly else settings.directions,
            seed=settings.seed,
            widely=self._effort.looks_widely,
            brief=costly,
        )

    def _aside(self, subject: Subject) -> Target | None:
        """A variable at the point a little aside; None where nothing is known there."""
        loss = self._point.loss_of(subject)
        nudged = loss.aside
        gradient = None if nudged is None else nudged.gradients[subject.position]
        if nudged is None or gradient is None or not np.all(np.isfinite(gradient)):
            return None
        return loss.target(subject.parameter, gradient, nudged)

    def _within_rounding(self, subject: Subject, first: Look) -> Look | None:
        """A look that counts rounding of the tape's own arithmetic, where that explains the gap.

        A step that amplifies rounding, as layers of BatchNorm on equal samples do, gives another
        gradient where everything has moved by a few units in the last place: so far it may be off.
        """
        gradient, loss = subject.gradient, self._point.loss_of(subject)
        if gradient is None or subject.size > _QUIET_PART * loss.loudest:
            return None
        jittered = loss.jittered
        again = None if jittered is None else jittered.gradients[subject.position]
        if again is None:
            return None
        rounding = float(np.linalg.norm(again - gradient)) / _ROUNDED
        measurement = first.measurement.with_more(rounding)
        if not measurement.gap_square <= measurement.bar_square:
            return None
        note = "Beside the others it is zero but for rounding of the tape's own arithmetic."
        return Look(Judgement(Verdict.PASS, Reason.BELOW_RESOLUTION, note), measurement)
