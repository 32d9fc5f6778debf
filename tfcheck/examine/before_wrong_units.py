"""Variables before wrong units: their gradients against what they would be if these were right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tfcheck.examine.corrected import Corrected, Correction
from tfcheck.examine.effort import Effort
from tfcheck.examine.finding import Seen
from tfcheck.examine.local_examination import LocalExamination
from tfcheck.examine.point_facts import PointFacts
from tfcheck.examine.remarks import coming_through, held_fixed
from tfcheck.examine.subject import Subject
from tfcheck.measure.measurement import measure_directions
from tfcheck.measure.target import Target


class BeforeWrongUnits:
    """Judges the variables whose gradients come through wrong units.

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
        self._right: dict[int, dict[int, Corrected]] = {}

    def seen(self, subject: Subject) -> Seen | None:
        """What the gradient of a variable is, and what it would be; None where that is unknown.

        Of the first few it is measured through the loss besides.

        Args:
            subject: the variable.
        """
        parameter, gradient = subject.parameter, subject.gradient
        objective, loss = self._point.objective, self._point.loss_of(subject)
        right = self.corrected(parameter.loss).get(subject.position)
        if right is None or gradient is None:
            return None
        measurement = right.measurement(gradient)
        judgement = loss.judged(measurement, subject.scale)
        target = None
        if judgement.accuses and self._effort.looks_closely:
            target = self._confirmed(subject, right)
            if target is None:
                return None
        wrong = self._local[parameter.loss].wrong_behind(parameter.held_by)
        judgement = coming_through(judgement, wrong)
        judgement = held_fixed(judgement, draws=objective.facts.draws[parameter.loss])
        return Seen(judgement, measurement, target, right=right)

    def _confirmed(self, subject: Subject, right: Corrected) -> Target | None:
        """A variable with its right gradient known; None where the loss contradicts that."""
        loss = self._point.loss_of(subject)
        target = loss.target(subject.parameter, subject.gradient, heard=False)
        # What is measured through the loss must be what it would be.
        (line,) = measure_directions(
            replace(target, gradient=right.gradient), 1, None, self._point.settings.seed
        ).lines
        if line.plainly_off:
            return None
        return replace(target, known=right.gradient, known_bar=right.bar)

    def corrected(self, loss: int) -> dict[int, Corrected]:
        """The right gradients of the variables before wrong units, by their positions.

        They are found once for all of them.

        Args:
            loss: index of a loss that is examined unit by unit.
        """
        if loss not in self._right:
            local, objective = self._local[loss], self._point.objective
            totals = {
                subject.position: total
                for subject in self._point.of_loss(loss)
                if local.wrong_behind(subject.parameter.held_by)
                if (total := objective.parameters[subject.position].total) is not None
            }
            found = Correction(local).gradients(list(totals.values()))
            self._right[loss] = {} if found is None else dict(zip(totals, found, strict=True))
        return self._right[loss]
