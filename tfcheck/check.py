"""The one place where the steps follow each other: trace, promote, measure, judge, report."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence, Set
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import keras

from tfcheck.applied import misapplied
from tfcheck.assemble import (
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
from tfcheck.baked import Baked
from tfcheck.batch import Batch, first_batch, layer_inputs, split_arguments
from tfcheck.collect import Collector
from tfcheck.compiled_loss import Comparison, compare
from tfcheck.compiled_step import CompiledStep
from tfcheck.culprits import Culprits, culprits_among, find_culprits
from tfcheck.deadline import UNLIMITED, Deadline
from tfcheck.declared import Declared, declared_by
from tfcheck.eager import EagerObjective
from tfcheck.eager_losses import eager_losses, notes_on_eager
from tfcheck.errors import BatchError, ModelError, NoTapeError, TfcheckError, TraceError
from tfcheck.evidence import Evidence
from tfcheck.examine import NOT_REACHED, Examination, Finding
from tfcheck.judge import Judgement
from tfcheck.listening import EagerCall
from tfcheck.memory import bytes_of
from tfcheck.objective import Objective
from tfcheck.options import make_settings, require_verbose
from tfcheck.placing import Placing, where_step_is
from tfcheck.point import Base
from tfcheck.preconditions import (
    require_backend,
    require_checkable,
    require_finite,
    require_layer,
)
from tfcheck.progress import Progress, progress_line, silent
from tfcheck.report import OF_THE_STEP, GradientReport, ObjectiveSummary, Settings
from tfcheck.stages import Stages
from tfcheck.steps import (
    LossFunction,
    Step,
    layer_step,
    model_step,
    plain_call,
    repeated_call,
)
from tfcheck.suspects import Suspects
from tfcheck.tracing import build_layer, trace
from tfcheck.training_precision import with_precision
from tfcheck.unchanged import unchanged
from tfcheck.verdict import PRECISION, Thresholds, Verdict
from tfcheck.xla import CompiledPath, compare_compiled


def check_gradients(
    model: keras.Model,
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    loss_fn: LossFunction | None = None,
    phase: str = "train",
    method: str = "directions",
    directions: int = 4,
    epsilon: float | str = "auto",
    thresholds: Thresholds = Thresholds(),  # noqa: B008 - frozen, and shown in help()
    expected_mismatch: Sequence[str] = (),
    seed: int = 0,
    precision: float = PRECISION,
    dropout: str = "off",
    memory_limit: int | str = "auto",
    time_limit: float | str | None = None,
    verbose: int = 1,
) -> GradientReport:
    """Check a model's gradients on one batch against finite differences in float64.

    The model's own `train_step` is traced with dropout off or frozen, promoted to float64 and
    measured. Nothing is trained and nothing of the model changes.

    Args:
        model: a built Keras model on the TensorFlow backend; compiled unless `loss_fn` is given.
        x: inputs of one batch, in any form `fit` takes; a dataset gives its first batch.
        y: targets. Defaults to None.
        sample_weight: weights of the samples. Defaults to None.
        loss_fn: `loss_fn(model, x, y, sample_weight)` gives the scalar loss to check instead of
            the train step's; regularisation losses are in it only if it adds `model.losses`.
            Defaults to None.
        phase: `"train"` (the default; batch statistics in BatchNorm) or `"inference"`.
        method: `"directions"` (the default) measures along a few random directions, which sees
            all entries of a variable at once; `"full"` perturbs every single entry.
        directions: number of random directions a variable, at most 1000. Defaults to 4.
        epsilon: step of the differences: `"auto"` (the default) chooses it for each variable; a
            number from 1e-15 to 1 is an absolute step. `epsilon=1e-7, method="full"` is the
            classical recipe.
        thresholds: the bands of the similarity score. Defaults to `Thresholds()`.
        expected_mismatch: patterns (as in `fnmatch`) of layer or variable paths, with or without
            the model's own name, whose gradient is meant to differ, such as a straight-through
            estimator's. A declared layer covers the variables before it, where no other layer is
            wrong. Defaults to none.
        seed: seeds the random directions. Defaults to 0.
        precision: a layer is named imprecise when the gradients that train, in float32 or less,
            are further than this from those in float64, as a similarity score. No verdict depends
            on it. Defaults to 0.2.
        dropout: `"off"` (the default) silences it; `"frozen"` leaves it on with its masks held
            fixed, so that what is wrong only with dropout is seen.
        memory_limit: memory for measuring: bytes, or a string such as `"500MB"`, `"2GB"` or
            `"1.5GiB"`, at least 1 MB. Defaults to `"auto"`, a quarter of what is free when the
            check begins.
        time_limit: when to end with what is known by then: seconds, or a string such as `"30s"`,
            `"500ms"`, `"2m"` or `"1h"`. What was not reached is inconclusive, and a note says so.
            An evaluation, or a graph being built, is not interrupted. Defaults to None, no limit.
        verbose: 1 (the default) shows the progress of a check that takes more than two seconds in
            a terminal or a notebook, and elsewhere writes a line to the standard error every 30
            seconds; 0 shows nothing.

    Returns:
        A frozen `GradientReport`.

    Raises (all from `tfcheck.errors`):
        ArgumentError: for an option that tfcheck does not know.
        BackendError: if Keras runs on another backend.
        ModelError: if the model is not built, not compiled or has nothing to train.
        BatchError: if the batch does not fit the model, or makes its loss NaN or infinite.
        TraceError: if the training step cannot be traced.

    Example:
        >>> report = check_gradients(model, x, y)  # doctest: +SKIP
        >>> report.verdict  # doctest: +SKIP
        <Verdict.PASS: 'pass'>
    """
    settings = make_settings(
        phase=phase,
        method=method,
        directions=directions,
        epsilon=epsilon,
        thresholds=thresholds,
        expected_mismatch=expected_mismatch,
        seed=seed,
        precision=precision,
        dropout=dropout,
        memory_limit=memory_limit,
        time_limit=time_limit,
    )
    require_verbose(verbose)
    require_backend()
    checker = GradientChecker(model, settings, loss_fn, once=True)
    batch = first_batch(x, y, sample_weight)
    with progress_line(verbose=verbose) as progress:
        return checker.check(batch, progress=progress)


def check_layer(
    layer: keras.Layer,
    *inputs: Any,
    arguments: Mapping[str, Any] | None = None,
    output_gradients: Any = None,
    phase: str = "train",
    method: str = "directions",
    directions: int = 4,
    epsilon: float | str = "auto",
    thresholds: Thresholds = Thresholds(),  # noqa: B008 - frozen, and shown in help()
    expected_mismatch: Sequence[str] = (),
    seed: int = 0,
    precision: float = PRECISION,
    dropout: str = "off",
    memory_limit: int | str = "auto",
    time_limit: float | str | None = None,
    verbose: int = 1,
) -> GradientReport:
    """Check a layer's gradients by themselves, as in a unit test.

    The layer is called on the inputs and its outputs are weighted at random. The gradients of that
    with respect to every float input and every trainable variable are checked, in float64 and with
    dropout off or frozen.

    Args:
        layer: a Keras layer on the TensorFlow backend. One that is not built yet is built by a
            call on the inputs; else nothing of it changes.
        inputs: the positional arguments of the call, each with its batch axis: arrays, tensors, or
            dicts and lists of them.
        arguments: named arguments of the call, such as `{"mask": mask}`. Arrays and tensors among
            them are inputs, too; all else is passed on as it is. Defaults to none.
        output_gradients: weights of the layer's float outputs instead of random ones, in their
            structure, such as the gradients that a loss has of them. Defaults to None.
        phase: `"train"` (the default) calls the layer with `training=True`, `"inference"` with
            `training=False`; layers within it are called so, too.
        method: as for `check_gradients`. Defaults to `"directions"`.
        directions: as for `check_gradients`. Defaults to 4.
        epsilon: as for `check_gradients`. Defaults to `"auto"`.
        thresholds: as for `check_gradients`. Defaults to `Thresholds()`.
        expected_mismatch: as for `check_gradients`. Defaults to none.
        seed: as for `check_gradients`. Defaults to 0.
        precision: as for `check_gradients`. Defaults to 0.2.
        dropout: as for `check_gradients`. Defaults to `"off"`.
        memory_limit: as for `check_gradients`. Defaults to `"auto"`.
        time_limit: as for `check_gradients`. Defaults to None.
        verbose: as for `check_gradients`. Defaults to 1.

    Returns:
        A frozen `GradientReport`. An input stands in it as a variable of the layer, named `input`,
        or `input_0`, `input_1` and so on where there are several.

    Raises (all from `tfcheck.errors`):
        ArgumentError: for an option that tfcheck does not know.
        ArgumentTypeError: if `layer` is no Keras layer.
        BackendError: if Keras runs on another backend.
        BatchError: if the inputs do not fit the layer, or make its outputs NaN or infinite.
        TraceError: if the layer cannot be traced or has nothing to differentiate.

    Example:
        >>> report = check_layer(MyLayer(), x)  # doctest: +SKIP
        >>> assert report.verdict == "pass", report  # doctest: +SKIP
    """
    settings = make_settings(
        phase=phase,
        method=method,
        directions=directions,
        epsilon=epsilon,
        thresholds=thresholds,
        expected_mismatch=expected_mismatch,
        seed=seed,
        precision=precision,
        dropout=dropout,
        memory_limit=memory_limit,
        time_limit=time_limit,
    )
    require_verbose(verbose)
    require_backend()
    require_layer(layer)
    step, batch = layer_call(layer, inputs, arguments, output_gradients, settings.phase)
    with progress_line(verbose=verbose) as progress:
        return Checker(step, settings, once=True).check(batch, progress=progress)


def layer_call(
    layer: keras.Layer,
    inputs: Sequence[Any],
    arguments: Mapping[str, Any] | None,
    output_gradients: Any,
    phase: str,
) -> tuple[Step, Batch]:
    """A call of a layer, which is built if it is not, and what it is given.

    Args:
        layer: the layer.
        inputs: the positional arguments.
        arguments: the named ones, None for none.
        output_gradients: weights of the outputs, None for random ones.
        phase: `"train"` or `"inference"`.
    """
    named, fixed = split_arguments(arguments)
    batch = layer_inputs((*inputs, named) if named else inputs)
    # Built as at inference: a call in training would move the averages of a batch normalization.
    build_layer(layer, batch, plain_call(layer, "inference", fixed, named=bool(named)))
    call = plain_call(layer, phase, fixed, named=bool(named))
    return layer_step(layer, call, output_gradients=output_gradients), batch


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
        self._objectives: dict[Any, Objective] = {}
        self._baked: dict[Any, Baked] = {}
        self._first_step, self._stepped = first_step, False
        self._compiled: dict[Any, tuple[Objective, list[str]]] = {}
        self._eager_is_known = False
        self._evidence: dict[str, list[Evidence]] = {}

    def _key(self, batch: Batch) -> Any:
        return (
            batch.signature(),
            id(getattr(self.model, "optimizer", None)),
            tuple(variable.trainable for variable in self.model.variables),
        )

    def objective(self, batch: Batch) -> Objective:
        """The step for batches of this kind: traced and promoted once, or else run eagerly.

        Args:
            batch: a batch of the kind.
        """
        key = self._key(batch)
        baked = self._baked.get(key)
        if baked is not None and baked.is_stale(self.model, final=self._stepped):
            for made in (self._baked, self._objectives, self._compiled):
                made.pop(key, None)
        if self._step.eager and key not in self._objectives:
            return self._eagerly(batch, None)
        if key not in self._objectives:
            try:
                traced = trace(self._step, batch)
                self._objectives[key] = Objective(traced, once=self._once)
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
        return self._objectives[key]

    def _eagerly(self, batch: Batch, why: Exception | None) -> Objective:
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
        self._objectives[self._key(batch)] = objective
        return objective

    def _at(self, batch: Batch, undo: ExitStack) -> tuple[Objective, Base]:
        """The step, evaluated where the model stands now."""
        objective = self.objective(batch)
        if objective.calls_python:
            undo.enter_context(unchanged(self.model, self._step.run))
        try:
            base = objective.at(batch)
        except TraceError as error:
            if isinstance(objective, EagerObjective):
                raise
            objective = self._eagerly(batch, error)
            base = objective.at(batch)
        require_finite(objective, base, batch)
        return objective, base

    def _examination(self, batch: Batch, progress: Progress, undo: ExitStack) -> Examination:
        examination = self._examined(*self._at(batch, undo), progress)
        if examination.parity is None:
            return examination
        try:
            objective = self._eagerly(batch, examination.parity)
        except TfcheckError:
            return examination
        return self._examined(objective, objective.at(batch), progress)

    def _examined(self, objective: Objective, base: Base, progress: Progress) -> Examination:
        objective.deadline = self._deadline
        return Examination(
            objective, base, self._measuring, progress, verdicts_only=self._verdicts_only
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
        notes = objective.choices.notes
        if compared.another and objective.choices.ignores_compiled:
            notes += (objective.choices.note_on_compiled(self.model),)
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
                else Objective(trace(step, batch), once=True)
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
    ) -> tuple[Evidence, ...]:
        """Evidence on culprits, of each as it was first found where that does for a test."""
        known = self._evidence
        unknown = [path for path in culprits if all(one.is_spent for one in known.get(path, ()))]
        if unknown and not self._verdicts_only:
            at = f"at {checkpoint} (step {step})" if checkpoint else ""
            found = Collector(self._step, batch, self.settings, at, self._deadline).on(unknown)
            known |= {path: [one for one in found if one.culprit == path] for path in unknown}
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
        excused = ("non_finite",) if batch.not_finite else ()
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
        self._objectives = {key: o for key, o in self._objectives.items() if not o.made}
        self._compiled = {key: (o, of) for key, (o, of) in self._compiled.items() if not o.made}
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
        evidence: tuple[Evidence, ...] = stages.run(
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
