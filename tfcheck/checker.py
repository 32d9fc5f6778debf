"""The one place where the steps follow each other: trace, promote, measure, judge, report."""

from __future__ import annotations

import time
from collections.abc import Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import keras

from tfcheck.after_examining import AfterExamining
from tfcheck.assemble.assemble import assemble
from tfcheck.assemble.merging import Additions, with_objections
from tfcheck.assemble.summary import summary_of
from tfcheck.assemble.untouched import frozen_paths, untouched_notes
from tfcheck.deadline import UNLIMITED, Deadline
from tfcheck.errors import BatchError, NoTapeError, TfcheckError
from tfcheck.evaluate.around import Around
from tfcheck.examine.examination import NOT_REACHED, Examination
from tfcheck.examine.finding import Finding
from tfcheck.examine.unasked import never_trained, unchecked, untracked, untrained
from tfcheck.gradient_report import GradientReport
from tfcheck.judge.reasons import Reason
from tfcheck.judge.verdict import Verdict
from tfcheck.locate.culprits import Culprits, with_uses
from tfcheck.locate.declared import declared_by
from tfcheck.locate.placing import where_step_is
from tfcheck.memory import bytes_of
from tfcheck.objective.objective import Objective
from tfcheck.objective.point import Base
from tfcheck.prepared import Prepared
from tfcheck.progress import Progress, silent
from tfcheck.report.chain import Link
from tfcheck.report.curves import Curves
from tfcheck.report.rows import ObjectiveSummary
from tfcheck.reproduce.case import Case
from tfcheck.reproduce.known_cases import KnownCases
from tfcheck.settings import Settings
from tfcheck.stages import Stages
from tfcheck.trace.batch import Batch
from tfcheck.trace.layers import EagerCall
from tfcheck.trace.preconditions import require_checkable
from tfcheck.trace.steps import LossFunction, Step, model_step, repeated_call
from tfcheck.training.comparisons import Comparisons
from tfcheck.training.eager_losses import EagerLosses, notes_on_eager


@dataclass(frozen=True)
class _Occasion:
    """One check: when it is made, and on what.

    Attributes:
        batch: the debug batch.
        step: optimizer iterations so far; None outside training.
        checkpoint: the moment's name, `""` outside training.
        progress: called as the check goes on.
        started: when it began.
    """

    batch: Batch
    step: int | None
    checkpoint: str
    progress: Progress
    started: float = field(default_factory=time.perf_counter)

    @property
    def moment(self) -> str:
        """When in training it is made, in words."""
        return f"at {self.checkpoint} (step {self.step})" if self.checkpoint else ""


class Checker:
    """Checks one model or layer again and again: its step is traced once a batch signature.

    Args:
        step: what is differentiated.
        settings: the options, from `make_settings`.
        once: whether there will be one check only. Defaults to False.
        verdicts_only: whether it is of no interest where a fault is. Defaults to False.
        first_step: how many steps had been made when the training began; None where there is none.
            Defaults to None.
    """

    def __init__(
        self,
        step: Step,
        settings: Settings,
        *,
        once: bool = False,
        verdicts_only: bool = False,
        first_step: int | None = None,
    ) -> None:
        self.model = step.owner
        self.settings = self._measuring = settings
        self._once = once
        self._verdicts_only = verdicts_only
        self._first_step = first_step
        self._deadline = UNLIMITED
        self._step = replace(step, dropout=settings.dropout)
        self._prepared = Prepared(self._step, once=once)
        self._eager_losses = EagerLosses(self._step)
        self._cases = KnownCases(self._step, settings, check_alone)

    def objective(self, batch: Batch) -> Objective:
        """The step for batches of this kind: traced and promoted once, or else run eagerly.

        Args:
            batch: a batch of the kind.
        """
        return self._prepared.around(batch).objective

    def check(
        self,
        batch: Batch,
        *,
        step: int | None = None,
        checkpoint: str = "",
        progress: Progress = silent,
        deadline: Deadline | None = None,
    ) -> GradientReport:
        """Check the gradients where the model stands now.

        Args:
            batch: the debug batch.
            step: optimizer iterations so far, for the report. Defaults to None.
            checkpoint: the moment's name, for the report. Defaults to `""`.
            progress: called as the check goes on. Defaults to nothing.
            deadline: when it has to end. Defaults to the time limit of the options, from now on.
        """
        self._deadline = deadline or Deadline(self.settings.time_limit)
        self._prepared.begin(stepped=self._first_step is not None and step != self._first_step)
        # Looked up once: what is free later on is less by what the check itself has taken.
        self._measuring = replace(self.settings, memory_limit=bytes_of(self.settings.memory_limit))
        occasion = _Occasion(batch, step, checkpoint, progress)
        with ExitStack() as undo:
            try:
                examination = self._examination(batch, progress, undo)
            except NoTapeError as error:
                return self._without_tape(error, occasion)
            return self._check(examination, occasion)

    def _check(self, examination: Examination, occasion: _Occasion) -> GradientReport:
        """The steps of a check, one after the other, from the point where the model stands."""
        point, objective, batch = examination.point, examination.point.objective, occasion.batch
        unasked = [*untrained(objective), *untracked(objective)]
        others = [finding.path for finding in unasked]
        declared = declared_by(objective, self.settings.expected_mismatch, self.model, others)
        measured = examination.examine()
        comparisons = Comparisons(self._step, self._prepared, point, batch)
        after = AfterExamining(self._step, examination, batch, comparisons, occasion.progress)
        trained = after.trained_gradients(measured)
        culprits = Culprits()
        if not self._verdicts_only:
            culprits = after.culprits(measured, declared, self._wrong_alone)
        beside = after.beside_compiled_loss()
        objections = (after.misapplied(beside), beside.departures)
        findings = [*measured, *unasked]
        judgements = {finding.path: with_objections(finding, objections) for finding in findings}
        culprits = with_uses(culprits, findings, judgements, declared, self._step)
        notes, places = after.lines(judgements, culprits)
        chosen = after.choices(beside)
        compiled = after.under_xla(judgements)
        eager = after.eager_losses(self._eager_losses)
        evidence = after.evidence(culprits.paths, lambda paths: self._collected(paths, occasion))
        chain, curves = self._pictures(after, measured, culprits)
        said = (*chosen, *compiled.notes, *notes_on_eager(eager, point))
        return self._report(
            occasion,
            findings,
            Additions(trained, objections, notes, compiled, culprits.explained, curves),
            broken=after.stages.broken,
            culprits=culprits.paths,
            culprit_places=places,
            chain=chain,
            objective=summary_of(point, self.settings.phase, compiled.losses, eager),
            notes=self._notes(examination, measured, said, after.stages),
            evaluations=examination.evaluations,
            evidence=evidence,
        )

    def _pictures(
        self, after: AfterExamining, measured: Sequence[Finding], culprits: Culprits
    ) -> tuple[tuple[Link, ...], dict[str, Curves]]:
        """What pictures are drawn from; nothing where only verdicts count."""
        if self._verdicts_only:
            return (), {}
        counted = [finding for finding in measured if finding.path not in culprits.explained]
        chain = after.chain(counted, culprits)
        return chain, after.curves(counted, also_right=self._once)

    def _report(
        self,
        occasion: _Occasion,
        findings: Sequence[Finding],
        additions: Additions | None = None,
        **fields: Any,
    ) -> GradientReport:
        """The report of a check."""
        return assemble(
            findings,
            additions,
            frozen=frozen_paths(self.model),
            settings=replace(self.settings, batch_size=occasion.batch.size),
            step=occasion.step,
            checkpoint=occasion.checkpoint,
            seconds=time.perf_counter() - occasion.started,
            model=self.model.name,
            **fields,
        )

    def _without_tape(self, error: NoTapeError, occasion: _Occasion) -> GradientReport:
        """The report of a check of a step in which no tape gives gradients."""
        idle = ("train_step",) if error.idle else ()
        return self._report(
            occasion,
            never_trained(self.model) if error.idle else unchecked(self.model),
            notes=(str(error),),
            culprits=idle,
            culprit_places=tuple(str(where_step_is(self.model, path) or "") for path in idle),
            objective=ObjectiveSummary(self._step.source, self.settings.phase),
            evidence=self._collected(idle, occasion),
        )

    def _examination(self, batch: Batch, progress: Progress, undo: ExitStack) -> Examination:
        """The step where the model stands: in a graph, unless that computes another loss."""
        progress("tracing", 0, 0)
        examination = self._examined(*self._prepared.at(batch, undo), progress)
        parity = examination.point.parity
        if parity is None:
            return examination
        try:
            around = self._prepared.eagerly(batch, parity)
        except TfcheckError:
            return examination
        return self._examined(around, around.objective.at(batch), progress)

    def _examined(self, around: Around, base: Base, progress: Progress) -> Examination:
        around.objective.deadline = self._deadline
        return Examination(
            around, base, self._measuring, progress, verdicts_only=self._verdicts_only
        )

    def _notes(
        self,
        examination: Examination,
        measured: Sequence[Finding],
        said: Sequence[str],
        stages: Stages,
    ) -> tuple[str, ...]:
        """All notes of a check.

        Args:
            examination: the examination.
            measured: what it found.
            said: what there is to say of how the step trains.
            stages: the stages after it.
        """
        unreached = sum(finding.judgement == NOT_REACHED for finding in measured)
        began = ["the measurement"] if examination.cut_short else []
        began += ["the comparison with the whole loss"] if examination.uncomposed else []
        return (
            *examination.notes,
            *untouched_notes(self.model, examination.point.objective),
            *said,
            *stages.notes,
            *self._deadline.notes(unreached, len(measured), [*began, *stages.cut_short]),
        )

    def _collected(self, culprits: Sequence[str], occasion: _Occasion) -> tuple[Case, ...]:
        """What tests of culprits are made of; nothing where only verdicts count."""
        if self._verdicts_only:
            return ()
        return self._cases.of(culprits, occasion.batch, occasion.moment, self._deadline)

    def _wrong_alone(self, call: EagerCall) -> Set[str]:
        """Paths of the inputs and variables that are wrong when a layer is called by itself.

        Where it is given what is not finite, it is not to blame for more of that.
        """
        step, batch = repeated_call(call, eager=self._step.eager)
        settings = replace(self._measuring, expected_mismatch=())
        checker = Checker(step, settings, once=True, verdicts_only=True)
        self._deadline.require_time()
        try:
            report = checker.check(batch, deadline=self._deadline)
        except BatchError:
            if batch.not_finite:
                return set()
            raise
        self._deadline.require_time()
        wrong = (Verdict.FAIL, Verdict.SUSPECT)
        excused = (Reason.NON_FINITE,) if batch.not_finite else ()
        return {
            variable.path
            for variable in report.variables
            if variable.verdict in wrong and variable.reason not in excused
        }


def check_alone(step: Step, batch: Batch, settings: Settings) -> GradientReport:
    """Check a call of a layer by itself, once, and for its verdicts alone.

    Args:
        step: the call.
        batch: what it is given.
        settings: the options.
    """
    return Checker(step, settings, once=True, verdicts_only=True).check(batch)


class GradientChecker(Checker):
    """Checks one model again and again.

    Args:
        model: the live model.
        settings: the options, from `make_settings`.
        loss_fn: replaces the train step's loss. Defaults to None.
        once: whether there will be one check only. Defaults to False.
        first_step: how many steps had been made when the training began; None where there is none.
            Defaults to None.

    Raises:
        ModelError: if the model cannot be checked as it is.
    """

    def __init__(
        self,
        model: keras.Model,
        settings: Settings,
        loss_fn: LossFunction | None = None,
        *,
        once: bool = False,
        first_step: int | None = None,
    ) -> None:
        require_checkable(model, loss_fn)
        step = model_step(model, loss_fn=loss_fn, phase=settings.phase)
        super().__init__(step, settings, once=once, first_step=first_step)
