"""The step at a point, compared with what else becomes of its gradients: each way when asked."""

from __future__ import annotations

from collections.abc import Mapping

from tfcheck.examine.point_facts import PointFacts
from tfcheck.judge.judgement import Judgement
from tfcheck.prepared import Prepared
from tfcheck.trace.batch import Batch
from tfcheck.trace.steps import Step
from tfcheck.training.applied import misapplied
from tfcheck.training.compiled_loss import BesideCompiled, compare
from tfcheck.training.xla import CompiledPath, compare_compiled


class Comparisons:
    """What training does with the gradients of a step at a point.

    Args:
        step: the step.
        prepared: what is prepared of it.
        point: the step at the point.
        batch: the debug batch.
    """

    def __init__(self, step: Step, prepared: Prepared, point: PointFacts, batch: Batch) -> None:
        self._step = step
        self._prepared = prepared
        self._point = point
        self._batch = batch

    def with_compiled_loss(self) -> BesideCompiled:
        """How a loss of the user's own compares with the compiled one, where there are both."""
        objective, base, seed = self._point.objective, self._point.base, self._point.settings.seed
        if not self._step.own_loss or self._step.owner.loss is None:
            return BesideCompiled()
        objective.deadline.require_time()
        reference_step, parts = self._prepared.compiled_loss(self._batch)
        reference_step.deadline = objective.deadline
        reference = reference_step.at(self._batch)
        return compare(
            objective,
            reference_step,
            parts,
            (base, reference),
            lambda: (objective.aside(base, seed), reference_step.aside(reference, seed)),
        )

    def with_what_is_applied(self, beside: BesideCompiled) -> dict[str, Judgement]:
        """What speaks against how right gradients are handed to optimizers, by variable.

        Args:
            beside: how the loss compares with the compiled one.
        """
        objective, base, seed = self._point.objective, self._point.base, self._point.settings.seed
        return misapplied(
            objective,
            base,
            lambda: objective.aside(base, seed),
            scaled_back=beside.applied_as_compiled,
        )

    def choices(self, beside: BesideCompiled) -> tuple[str, ...]:
        """What there is to say of what the training step chooses to do.

        Args:
            beside: how the loss compares with the compiled one.
        """
        if self._step.source != "train_step":
            return ()
        choices = self._point.objective.facts.choices
        notes = choices.notes
        if beside.another and choices.ignores_compiled:
            notes += (choices.note_on_compiled(self._step.owner),)
        return notes

    def with_xla(self, judgements: Mapping[str, Judgement]) -> CompiledPath:
        """What XLA makes of the step, where `fit` compiles it so.

        Args:
            judgements: what is said of the variables so far, by path.
        """
        return compare_compiled(self._step.owner, self._point, judgements, self._batch)
