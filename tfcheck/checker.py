"""The one place where the steps follow each other: trace, promote, measure, judge, report."""

from __future__ import annotations

import time
from collections.abc import Sequence, Set
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import keras

from tfcheck.assemble.assemble import (
    assemble,
    blame,
    frozen_paths,
    never_trained,
    summarise_objective,
    unchecked,
    unscaled,
    untouched_notes,
    untracked,
    untrained,
    users_of_untracked,
)
from tfcheck.deadline import UNLIMITED, Deadline
from tfcheck.errors import BatchError, ModelError, NoTapeError, TfcheckError, TraceError
from tfcheck.evaluate.around import Around
from tfcheck.examine.examination import NOT_REACHED, Examination, Finding
from tfcheck.gradient_report import GradientReport
from tfcheck.judge.judgement import Judgement
from tfcheck.judge.reasons import OF_THE_STEP, Reason
from tfcheck.judge.verdict import Verdict
from tfcheck.locate.culprits import Culprits, culprits_among, find_culprits
from tfcheck.locate.declared import Declared, declared_by
from tfcheck.locate.placing import Placing, where_step_is
from tfcheck.locate.suspects import Suspects
from tfcheck.memory import bytes_of
from tfcheck.objective.eager_objective import EagerObjective
from tfcheck.objective.finite import require_finite
from tfcheck.objective.graph_objective import GraphObjective
from tfcheck.objective.objective import Objective
from tfcheck.objective.point import Base
from tfcheck.progress import Progress, silent
from tfcheck.report.rows import ObjectiveSummary
from tfcheck.reproduce.case import Case
from tfcheck.reproduce.collect import Collector
from tfcheck.settings import Settings
from tfcheck.stages import Stages
from tfcheck.trace.baked import Baked
from tfcheck.trace.batch import Batch
from tfcheck.trace.compiled_step import CompiledStep
from tfcheck.trace.listening import EagerCall
from tfcheck.trace.preconditions import (
    require_checkable,
)
from tfcheck.trace.steps import (
    LossFunction,
    Step,
    model_step,
    repeated_call,
)
from tfcheck.trace.tracing import trace
from tfcheck.training.applied import misapplied
from tfcheck.training.compiled_loss import Comparison, compare
from tfcheck.training.eager_losses import eager_losses, notes_on_eager
from tfcheck.training.precision import with_precision
from tfcheck.training.xla import CompiledPath, compare_compiled
from tfcheck.unchanged.unchanged import unchanged


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
        self._once = once
        self._verdicts_only = verdicts_only
        self.settings = settings
        self._measuring = settings
        self._deadline = UNLIMITED
        self._step = replace(step, dropout=settings.dropout)
        self._prepared: dict[Any, Around] = {}
        self._baked: dict[Any, Baked] = {}
        self._first_step, self._stepped = first_step, False
        self._compiled: dict[Any, tuple[Objective, list[str]]] = {}
        self._eager_is_known = False
        self._evidence: dict[str, list[Case]] = {}

    def _key(self, batch: Batch) -> Any:
        return (
            batch.signature(),
            id(getattr(self.model, "optimizer", None)),
            tuple(variable.trainable for variable in self.model.variables),
        )

    def objective(self, batch: Batch) -> Objective:
        """The step for batches of this kind.

        Args:
            batch: a batch of the kind.
        """
        return self.prepared(batch).objective

    def prepared(self, batch: Batch) -> Around:
        """The step for batches of this kind: traced and promoted once, or else run eagerly.

        Args:
            batch: a batch of the kind.
        """
        key = self._key(batch)
        baked = self._baked.get(key)
        if baked is not None and baked.is_stale(self.model, final=self._stepped):
            for made in (self._baked, self._prepared, self._compiled):
                made.pop(key, None)
        if self._step.eager and key not in self._prepared:
            return self._eagerly(batch, None)
        if key not in self._prepared:
            try:
                traced = trace(self._step, batch)
                self._prepared[key] = Around(GraphObjective(traced), once=self._once)
                scaling = traced.recording.scaling
                self._baked[key] = Baked(self.model, scaling, final=self._stepped)
            except ModelError:
                raise
            except NoTapeError as error:
                if error.idle:
                    raise
                return self._eagerly(batch, error)
            except Exception as error:  # noqa: BLE001 - the other way may do
                return self._eagerly(batch, error)
        return self._prepared[key]

    def _eagerly(self, batch: Batch, why: Exception | None) -> Around:
        """The step to be run eagerly; the error that was the reason if that is not possible.

        Args:
            batch: the debug batch.
            why: why no graph stands for it; None where it is meant to run so.
        """
        try:
            objective = EagerObjective(self._step, batch, why)
        except NoTapeError:
            raise
        except TfcheckError as error:
            raise (why if isinstance(why, TfcheckError) else error) from why
        around = self._prepared[self._key(batch)] = Around(objective)
        return around

    def _at(self, batch: Batch, undo: ExitStack) -> tuple[Around, Base]:
        """The step, evaluated where the model stands now."""
        around = self.prepared(batch)
        objective = around.objective
        if objective.facts.calls_python:
            undo.enter_context(unchanged(self.model, self._step.run))
        try:
            base = objective.at(batch)
        except TraceError as error:
            if isinstance(objective, EagerObjective):
                raise
            around = self._eagerly(batch, error)
            base = around.objective.at(batch)
        require_finite(around.objective, base, batch)
        return around, base

    def _examination(self, batch: Batch, progress: Progress, undo: ExitStack) -> Examination:
        examination = self._examined(*self._at(batch, undo), progress)
        if examination.parity is None:
            return examination
        try:
            around = self._eagerly(batch, examination.parity)
        except TfcheckError:
            return examination
        return self._examined(around, around.objective.at(batch), progress)

    def _examined(self, around: Around, base: Base, progress: Progress) -> Examination:
        around.objective.deadline = self._deadline
        return Examination(
            around, base, self._measuring, progress, verdicts_only=self._verdicts_only
        )

    def _culprits(
        self,
        examination: Examination,
        batch: Batch,
        findings: Sequence[Finding],
        declared: Declared,
        progress: Progress,
    ) -> Culprits:
        failed = {
            finding.report.path
            for finding in findings
            if finding.report.verdict in (Verdict.FAIL, Verdict.SUSPECT)
            and finding.report.path not in declared.variables
        }
        if self._verdicts_only or not failed:
            return Culprits()
        progress("looking for the culprit", 0, 0)
        objective = examination.objective
        if isinstance(objective, EagerObjective):
            return culprits_among(
                objective.calls_of_layers(batch),
                failed,
                self._wrong_alone,
                declared=declared.layers,
                step=self._step,
                progress=progress,
            )
        owner = self.model.path or self.model.name
        outside = "train_step" if self._step.own else "loss"
        return find_culprits(
            Suspects(examination, batch, failed),
            failed,
            declared=declared.layers,
            outside=owner if self._step.source == "layer" else outside,
        )

    def _objections(
        self, objective: Objective, base: Base, compared: Comparison, stages: Stages
    ) -> dict[str, Judgement]:
        """What speaks against how right gradients are used, by the variable's path."""
        seed = self.settings.seed
        wrongly: dict[str, Judgement] = stages.run(
            "the comparison with what the optimizers get",
            lambda: misapplied(
                objective,
                base,
                lambda: objective.aside(base, seed),
                scaled_back=compared.applied_as_compiled,
            ),
            {},
        )
        return {**compared.departures, **wrongly}

    def _comparison(self, objective: Objective, base: Base, batch: Batch) -> Comparison:
        """How a loss of the user's own compares with the compiled one, where there are both."""
        if not self._step.own_loss or self.model.loss is None:
            return Comparison()
        self._deadline.require_time()
        reference_step, parts = self._compiled_step(batch)
        reference_step.deadline = self._deadline
        reference = reference_step.at(batch)
        seed = self.settings.seed
        return compare(
            objective,
            reference_step,
            parts,
            (base, reference),
            lambda: (objective.aside(base, seed), reference_step.aside(reference, seed)),
        )

    def _choices(self, objective: Objective, compared: Comparison) -> tuple[str, ...]:
        """What there is to say of what the training step chooses to do."""
        if self._step.source != "train_step":
            return ()
        notes = objective.facts.choices.notes
        if compared.another and objective.facts.choices.ignores_compiled:
            notes += (objective.facts.choices.note_on_compiled(self.model),)
        return notes

    def _compiled_step(self, batch: Batch) -> tuple[Objective, list[str]]:
        """The compiled loss in parts, made once, and what each part is."""
        key = self._key(batch)
        if key not in self._compiled:
            compiled = CompiledStep(self.model)
            step = replace(compiled.step, dropout=self.settings.dropout)
            objective = (
                EagerObjective(step, batch, None)
                if self._step.eager
                else GraphObjective(trace(step, batch))
            )
            self._compiled[key] = objective, compiled.parts
        return self._compiled[key]

    def _eager_losses(self, examination: Examination, batch: Batch) -> tuple[float, ...]:
        """The losses of the step run eagerly, once for all checks; none where it only runs so."""
        if self._eager_is_known or isinstance(examination.objective, EagerObjective):
            return ()
        self._deadline.require_time()
        self._eager_is_known = True
        return eager_losses(self._step, examination, batch)

    def _collected(
        self, culprits: Sequence[str], batch: Batch, step: int | None, checkpoint: str
    ) -> tuple[Case, ...]:
        """What tests of culprits are made of: each as first found, where that does for one."""
        known = self._evidence
        unknown = [path for path in culprits if all(one.is_spent for one in known.get(path, ()))]
        if unknown and not self._verdicts_only:
            at = f"at {checkpoint} (step {step})" if checkpoint else ""
            found = Collector(self._step, batch, self.settings, at, self._deadline).on(unknown)
            cases = [Case(evidence, check_alone) for evidence in found]
            known |= {path: [one for one in cases if one.culprit == path] for path in unknown}
        return tuple(one for path in culprits for one in known.get(path, ()))

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
        # What a step makes when it first runs, training has made since.
        self._prepared = {key: a for key, a in self._prepared.items() if not a.objective.facts.made}
        self._compiled = {
            key: (o, of) for key, (o, of) in self._compiled.items() if not o.facts.made
        }
        self._stepped = self._first_step is not None and step != self._first_step
        with ExitStack() as undo:
            return self._check(batch, step, checkpoint, progress, undo)

    def _check(
        self, batch: Batch, step: int | None, checkpoint: str, progress: Progress, undo: ExitStack
    ) -> GradientReport:
        started = time.perf_counter()
        # Looked up once: what is free later on is less by what the check itself has taken.
        self._measuring = replace(self.settings, memory_limit=bytes_of(self.settings.memory_limit))

        def report(
            findings: Sequence[Finding], declared: Set[str], **fields: Any
        ) -> GradientReport:
            return assemble(
                findings,
                declared,
                frozen=frozen_paths(self.model),
                settings=replace(self.settings, batch_size=batch.size),
                step=step,
                checkpoint=checkpoint,
                seconds=time.perf_counter() - started,
                model=self.model.name,
                **fields,
            )

        progress("tracing", 0, 0)
        try:
            examination = self._examination(batch, progress, undo)
        except NoTapeError as error:
            summary = ObjectiveSummary(self._step.source, self.settings.phase)
            nothing = never_trained(self.model) if error.idle else unchecked(self.model)
            idle = ("train_step",) if error.idle else ()
            return report(
                nothing,
                set(),
                notes=(str(error),),
                culprits=idle,
                culprit_places=tuple(str(where_step_is(self.model, w) or "") for w in idle),
                objective=summary,
                evidence=self._collected(idle, batch, step, checkpoint),
            )
        objective, base = examination.objective, examination.base
        unasked = [*untrained(objective), *untracked(objective)]
        paths = [finding.report.path for finding in unasked]
        declared = declared_by(objective, self.settings.expected_mismatch, self.model, paths)
        stages = Stages()
        findings = examination.examine()
        unreached = sum(finding.report.note == NOT_REACHED.note for finding in findings)
        measured = len(findings)
        findings = stages.run(
            "the distance of the gradients in training from those in float64",
            lambda: with_precision(findings, objective, base),
            findings,
            accuses=False,
        )
        found = stages.run(
            "the search for the culprit",
            lambda: self._culprits(examination, batch, findings, declared, progress),
            Culprits(),
            accuses=False,
        )
        progress("following the gradients to the optimizer", 0, 0)
        compared = stages.run(
            "the comparison with the compiled loss",
            lambda: self._comparison(objective, base, batch),
            Comparison(),
        )
        objections = self._objections(objective, base, compared, stages)
        findings = [blame(f, objections) for f in (*findings, *unasked)]
        culprits, explained = found.paths, declared.variables | found.explained
        explained |= {f.report.path for f in unasked if f.report.layer in declared.layers}
        using = users_of_untracked(f for f in findings if f.report.path not in explained)
        culprits = tuple(dict.fromkeys([*culprits, *using]))
        of_the_step = {f.report.path for f in findings if f.report.reason in OF_THE_STEP}
        whose = "train_step" if self._step.own else "loss"
        if whose in declared.layers:
            explained |= of_the_step
        elif of_the_step - explained:
            culprits = tuple(dict.fromkeys([*culprits, whose]))
        placing = Placing(examination, self._step, culprits)
        findings = stages.run(
            "the lines of the user's code",
            lambda: [f if f.report.path in explained else placing.told(f) for f in findings],
            findings,
            accuses=False,
        )
        places: tuple[str, ...] = stages.run(
            "the lines of the culprits",
            lambda: tuple(map(placing.of_culprit, culprits)),
            (),
            accuses=False,
        )
        chosen: tuple[str, ...] = stages.run(
            "the look at what the training step chooses to do",
            lambda: self._choices(objective, compared),
            (),
            accuses=False,
        )
        progress("comparing with the step as fit runs it", 0, 0)
        compiled = stages.run(
            "the comparison with the step that XLA compiles",
            lambda: compare_compiled(self.model, examination, findings, batch),
            CompiledPath(),
        )
        findings = [compiled.judged(finding) for finding in findings]
        eager: tuple[float, ...] = stages.run(
            "the comparison with an eager run",
            lambda: self._eager_losses(examination, batch),
            (),
            accuses=False,
        )
        if culprits:
            progress("noting what the culprits are given", 0, 0)
        evidence: tuple[Case, ...] = stages.run(
            "the inputs for a unit test",
            lambda: self._collected(culprits, batch, step, checkpoint),
            (),
            accuses=False,
        )
        began = ["the measurement"] if examination.cut_short else []
        began += ["the comparison with the whole loss"] if examination.uncomposed else []
        return report(
            findings,
            explained,
            broken=stages.broken,
            culprits=culprits,
            culprit_places=places,
            objective=replace(
                summarise_objective(objective, base, self.settings.phase),
                compiled_losses=unscaled(compiled.losses, base),
                eager_losses=unscaled(eager, base),
            ),
            notes=(
                *examination.notes,
                *untouched_notes(self.model, objective),
                *chosen,
                *compiled.notes,
                *notes_on_eager(eager, examination),
                *stages.notes,
                *self._deadline.notes(unreached, measured, [*began, *stages.cut_short]),
            ),
            evaluations=examination.evaluations,
            evidence=evidence,
        )


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
