"""Examining a point: every variable measured and judged, one after the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from tfcheck.deadline import InTime, TimeIsUpError
from tfcheck.evaluate.around import Around
from tfcheck.examine.detailing import Detailing
from tfcheck.examine.effort import Effort
from tfcheck.examine.finding import Finding, Looked, Seen, layer_of, numbers_of
from tfcheck.examine.from_units import FromUnits
from tfcheck.examine.local_examination import LocalExamination
from tfcheck.examine.meter import Meter
from tfcheck.examine.notes import notes_on_losses
from tfcheck.examine.obstacles import obstacle_of, without_measuring
from tfcheck.examine.point_facts import PointFacts
from tfcheck.examine.subject import Subject
from tfcheck.examine.whole_loss import WholeLoss
from tfcheck.judge.judgement import Judgement
from tfcheck.judge.reasons import Reason
from tfcheck.judge.verdict import Verdict
from tfcheck.measure.directions import norm
from tfcheck.objective.point import Base
from tfcheck.progress import Progress
from tfcheck.settings import Settings
from tfcheck.variables import entries_of

NOT_REACHED = Judgement(
    Verdict.INCONCLUSIVE, Reason.UNCHECKED, "It was not reached within the time_limit."
)
"""Of a variable that there was no time to measure."""


class Examination:
    """One check at one point: measuring and judging variable by variable.

    Args:
        around: the losses around the point.
        base: the point.
        settings: the options of the check.
        progress: called as the examination goes on.
        verdicts_only: whether what is wrong need not be looked into closely. Defaults to False.

    Attributes:
        point: the step at the point.
        notes: sentences a reader should know.
        uncomposed: whether there was no time to see if a loss contradicts its units.
    """

    def __init__(
        self,
        around: Around,
        base: Base,
        settings: Settings,
        progress: Progress,
        *,
        verdicts_only: bool = False,
    ) -> None:
        self._evaluated_before = around.objective.evaluations
        self._progress = progress
        self.point = PointFacts(around, base, settings)
        self.notes = list(around.objective.facts.notes)
        self.uncomposed = False
        self._in_time = InTime()
        effort = Effort(around.objective, verdicts_only=verdicts_only)
        self._units = FromUnits(self.point, effort, self._in_time, progress)
        self._whole_loss = WholeLoss(self.point, effort, self.local)
        self._detailing = Detailing(self.point, effort, self._in_time)
        self._contradicting: set[int] = set()

    @property
    def local(self) -> dict[int, LocalExamination]:
        """The losses that are examined unit by unit, as far as they are yet."""
        return self._units.local

    @property
    def cut_short(self) -> bool:
        """Whether there was no time for some of it."""
        return self._in_time.cut_short

    @property
    def evaluations(self) -> int:
        """How often a loss was evaluated since the examination began."""
        local = sum(local.locally.at.evaluations for local in self.local.values())
        return self.point.objective.evaluations - self._evaluated_before + math.ceil(local)

    def examine(self) -> list[Finding]:
        """The findings for all trainable variables of the training step, one a variable."""
        subjects = [
            subject
            for subject in self.point.subjects
            if subject.parameter.within or subject.parameter.variable.trainable
        ]
        obstacles = [
            self._in_time(partial(obstacle_of, self.point, loss), None)
            for loss in self.point.losses
        ]
        self.notes += notes_on_losses(self.point, obstacles)
        settings = self.point.settings
        if settings.method != "full" and settings.epsilon == "auto":
            for loss, obstacle in enumerate(obstacles):
                if obstacle is None:
                    self._in_time(partial(self.examine_locally, loss), None)
        found: dict[str, Finding] = {}
        for subject, advance in self._told(subjects):
            _keep(found, self._examined(subject, obstacles[subject.parameter.loss], advance))
        try:
            self._contradicting |= self._units.contradicted()
        except TimeIsUpError:
            self.uncomposed = True
        for subject in subjects:
            if subject.parameter.loss in self._contradicting:
                _keep(found, self._examined(subject))
        return list(found.values())

    def examine_locally(self, loss: int) -> None:
        """Examine a loss unit by unit, where that can be done and was not done before.

        Args:
            loss: index of the loss.
        """
        self._units.examine(loss)

    def _told(self, subjects: Sequence[Subject]) -> Iterator[tuple[Subject, Callable[[int], None]]]:
        """Variables, each with what notes progress through its entries."""
        sizes = [entries_of(subject.parameter.variable) for subject in subjects]
        for done, subject in enumerate(subjects):
            path = subject.parameter.path
            if self.point.settings.method == "full":
                meter = Meter(self._progress, path, sum(sizes[:done]), sum(sizes))
            else:
                meter = Meter(self._progress, path, done, len(subjects), counting=False)
            yield subject, meter.advance

    def _examined(
        self,
        subject: Subject,
        obstacle: Judgement | None = None,
        advance: Callable[[int], None] = lambda _count: None,
    ) -> Finding:
        """Measure and judge one variable."""
        judgement = without_measuring(self.point, subject, obstacle)
        if judgement is not None:
            return self._finding(subject, Seen(judgement))
        seen = self._in_time(partial(self._measured, subject, advance), Seen(NOT_REACHED))
        return self._finding(subject, seen)

    def _measured(self, subject: Subject, advance: Callable[[int], None]) -> Seen:
        """What the units say of a variable, or the loss, where that contradicts them."""
        trusted = subject.parameter.loss not in self._contradicting
        seen = self._units.seen(subject) if trusted else None
        return self._whole_loss.seen(subject, advance) if seen is None else seen

    def _finding(self, subject: Subject, seen: Seen) -> Finding:
        """What was found of a variable, looked into where it is wrong."""
        path, gradient = subject.parameter.path, subject.gradient
        known = seen.judgement.reason != Reason.WRONG_SHAPE
        size = norm(gradient) if gradient is not None and known else math.nan
        scale = self.point.base.scales[subject.parameter.loss]
        numbers = numbers_of(seen, size, scale, self.point.settings.thresholds)
        judgement, details = self._detailing.of(subject, seen)
        return Finding(
            path=path,
            layer=layer_of(path),
            shape=tuple(subject.parameter.variable.shape),
            judgement=judgement,
            numbers=numbers,
            slopes=seen.slopes,
            details=details,
            looked=Looked(subject, seen) if judgement.accuses else None,
        )


def _keep(found: dict[str, Finding], finding: Finding) -> None:
    """Keep a variable's finding, or the worse one: several tapes give it several findings."""
    if finding.path not in found or finding.outranks(found[finding.path]):
        found[finding.path] = finding
