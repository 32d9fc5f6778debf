"""The step at a point: what is differentiated there, and what is known of its losses."""

from __future__ import annotations

from tfcheck.errors import ParityError
from tfcheck.evaluate.around import Around
from tfcheck.examine.loss_facts import LossFacts
from tfcheck.examine.subject import Subject
from tfcheck.measure.directions import scale_of
from tfcheck.objective.point import Base
from tfcheck.settings import Settings


class PointFacts:
    """A step at a point.

    Args:
        around: the losses around the point.
        base: the point.
        settings: the options of the check.

    Attributes:
        objective: the step.
        subjects: all that its tapes differentiate for, in the order of the objective's parameters.
        losses: what is known of each of its losses.
    """

    def __init__(self, around: Around, base: Base, settings: Settings) -> None:
        self.around = around
        self.objective = objective = around.objective
        self.base = base
        self.settings = settings
        self.subjects = tuple(
            Subject(position, parameter, gradient, scale_of(objective.value(base, parameter)))
            for position, (parameter, gradient) in enumerate(
                zip(objective.parameters, base.gradients, strict=True)
            )
        )
        self.losses = tuple(
            LossFacts(around, base, settings, loss, self.of_loss(loss))
            for loss in range(len(base.losses))
        )

    def of_loss(self, loss: int) -> list[Subject]:
        """All that a loss is differentiated for.

        Args:
            loss: index of the loss.
        """
        return [subject for subject in self.subjects if subject.parameter.loss == loss]

    def loss_of(self, subject: Subject) -> LossFacts:
        """What is known of the loss that a subject is differentiated for."""
        return self.losses[subject.parameter.loss]

    @property
    def parity(self) -> ParityError | None:
        """What is wrong where a finite loss in float64 is not the one that is trained."""
        errors = (loss.parity_error for loss in self.losses)
        return next((error for error in errors if error is not None), None)
