"""The one place where the steps follow each other: trace, promote, measure, judge, report."""

from __future__ import annotations

import fnmatch
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from tfcheck._version import __version__
from tfcheck.batch import Batch, first_batch, require_choice
from tfcheck.errors import (
    ArgumentError,
    ArgumentTypeError,
    BackendError,
    ModelError,
    ParityError,
    rule,
)
from tfcheck.judge import (
    Judgement,
    judge_measurement,
    judge_missing,
    judge_second_look,
)
from tfcheck.measure import (
    Line,
    Measurement,
    Target,
    depends,
    measure_coordinate,
    measure_directions,
    measure_every_coordinate,
)
from tfcheck.objective import Base, Objective, Parameter
from tfcheck.report import (
    Coordinate,
    GradientReport,
    LayerReport,
    ObjectiveSummary,
    Settings,
    VariableReport,
)
from tfcheck.tracing import LossFunction, trace_step
from tfcheck.verdict import Thresholds, Verdict, worst

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done and how much there is."""

_PRECISION = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
_PARITY_ROUNDINGS = 4096
_PARITY_SENSITIVITY = 64
_WORST_SHOWN = 5
_QUIET = 1e-6
"""Where all gradients of a loss are smaller than this part of it, zero is judged against that part."""


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
) -> GradientReport:
    """Check a model's gradients on one batch against finite differences in float64.

    The model's own `train_step` is traced with dropout silenced, promoted to float64 and measured.
    Nothing is trained and nothing of the model changes.

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
        directions: number of random directions a variable. Defaults to 4.
        epsilon: step of the differences: `"auto"` (the default) chooses it for each variable; a
            number is an absolute step. `epsilon=1e-7, method="full"` is the classical recipe.
        thresholds: the bands of the similarity score. Defaults to `Thresholds()`.
        expected_mismatch: patterns (as in `fnmatch`) of variable or layer paths whose gradient is
            meant to differ, such as straight-through estimators. Defaults to none.
        seed: seeds the random directions. Defaults to 0.

    Returns:
        A frozen `GradientReport`.

    Raises:
        ArgumentError: for an option that tfcheck does not know.
        BackendError: if Keras runs on another backend.
        ModelError: if the model is not built, not compiled or has nothing to train.
        BatchError: if the batch does not fit the model or is not finite.
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
    )
    require_backend()
    return GradientChecker(model, settings, loss_fn).check(first_batch(x, y, sample_weight))


def make_settings(
    *,
    phase: str,
    method: str,
    directions: int,
    epsilon: float | str,
    thresholds: Thresholds,
    expected_mismatch: Sequence[str],
    seed: int,
) -> Settings:
    """Check the options of a gradient check, before any work, and freeze them.

    Raises:
        ArgumentError: for a value that is out of range.
        ArgumentTypeError: for a value of a wrong type.
    """
    require_choice("phase", phase, ("train", "inference"))
    require_choice("method", method, ("directions", "full"))
    for name, value, least in (("directions", directions, 1), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise ArgumentError(
                rule(f"{name} must be a whole number of at least {least}", name, value, "Give such a number")
            )
    if epsilon != "auto":
        number = isinstance(epsilon, int | float | np.number) and not isinstance(epsilon, bool)
        if not number or not 0 < float(epsilon) < math.inf:
            raise ArgumentError(
                rule('epsilon must be "auto" or a positive number', "epsilon", epsilon, "Try 1e-7")
            )
        epsilon = float(epsilon)
    if not isinstance(thresholds, Thresholds):
        raise ArgumentTypeError(
            rule("thresholds must be a tfcheck.Thresholds", "thresholds", thresholds, "Write Thresholds(okay=…)")
        )
    if isinstance(expected_mismatch, str):
        expected_mismatch = (expected_mismatch,)
    if not all(isinstance(pattern, str) for pattern in expected_mismatch):
        raise ArgumentTypeError(
            rule("expected_mismatch must hold strings", "expected_mismatch", expected_mismatch, "Give path patterns")
        )
    return Settings(
        phase=phase,
        method=method,
        directions=int(directions),
        epsilon=epsilon,
        thresholds=thresholds,
        expected_mismatch=tuple(expected_mismatch),
        seed=int(seed),
        version=__version__,
    )


def require_backend() -> None:
    """Raise a `BackendError` unless Keras runs on TensorFlow."""
    if keras.backend.backend() != "tensorflow":
        raise BackendError(
            "tfcheck checks Keras models on the TensorFlow backend. Received: "
            f"backend={keras.backend.backend()!r}. Set the environment variable "
            "KERAS_BACKEND=tensorflow before the first import of keras."
        )


def require_checkable(model: Any, loss_fn: LossFunction | None) -> None:
    """Raise unless the model is a built Keras model with a loss and something to train."""
    if not isinstance(model, keras.Model):
        raise ArgumentTypeError(
            f"model must be a keras.Model. Received: {type(model).__name__}. Give the model itself."
        )
    name = model.name
    if not model.built or not model.weights:
        raise ModelError(
            f"A model must be built before it is checked. Received: unbuilt model {name!r}. "
            "Call it on a batch, or give it an Input."
        )
    if loss_fn is None and not model.compiled:
        raise ModelError(
            f"A model must be compiled before it is checked. Received: uncompiled model {name!r}. "
            "Call model.compile(...), or give loss_fn."
        )
    if loss_fn is not None and not callable(loss_fn):
        raise ArgumentTypeError(
            f"loss_fn must be callable as loss_fn(model, x, y, sample_weight). Received: "
            f"{type(loss_fn).__name__}. Give a function."
        )


class GradientChecker:
    """Checks one model again and again: the step is traced once a batch signature.

    Args:
        model: the live model.
        settings: the options, from `make_settings`.
        loss_fn: replaces the train step's loss. Defaults to None.
    """

    def __init__(
        self, model: keras.Model, settings: Settings, loss_fn: LossFunction | None = None
    ) -> None:
        require_checkable(model, loss_fn)
        self.model = model
        self.settings = settings
        self.loss_fn = loss_fn
        self._objectives: dict[Any, Objective] = {}

    def objective(self, batch: Batch) -> Objective:
        """The traced and promoted step for batches of this kind."""
        key = (
            batch.signature(),
            id(getattr(self.model, "optimizer", None)),
            tuple(variable.trainable for variable in self.model.variables),
        )
        if key not in self._objectives:
            traced = trace_step(self.model, batch, loss_fn=self.loss_fn, phase=self.settings.phase)
            self._objectives[key] = Objective(traced)
        return self._objectives[key]

    def check(
        self,
        batch: Batch,
        *,
        step: int | None = None,
        checkpoint: str = "",
        progress: Progress = lambda what, done, total: None,
    ) -> GradientReport:
        """Check the gradients where the model stands now.

        Args:
            batch: the debug batch.
            step: optimizer iterations so far, for the report. Defaults to None.
            checkpoint: the moment's name, for the report. Defaults to `""`.
            progress: called as the check goes on. Defaults to nothing.
        """
        started = time.perf_counter()
        progress("tracing", 0, 1)
        objective = self.objective(batch)
        declared = _declared(objective, self.settings.expected_mismatch)
        evaluated = objective.evaluations
        base = objective.at(batch)
        examination = _Examination(objective, base, self.settings, progress)
        findings = examination.examine()
        settings = replace(self.settings, batch_size=batch.size)
        return _assemble(
            findings,
            declared,
            objective=_summary(objective, base, self.settings.phase),
            notes=tuple(examination.notes) + _untouched(self.model, objective),
            frozen=_frozen(self.model),
            settings=settings,
            step=step,
            checkpoint=checkpoint,
            seconds=time.perf_counter() - started,
            evaluations=objective.evaluations - evaluated,
            model=self.model.name,
        )


@dataclass(frozen=True)
class _Finding:
    """One parameter's report, with the squares that layer and model scores are made of."""

    report: VariableReport
    gap_square: float = math.nan
    numerical_square: float = math.nan
    analytic_square: float = math.nan


class _Examination:
    """One check at one point: measuring and judging parameter by parameter."""

    def __init__(
        self, objective: Objective, base: Base, settings: Settings, progress: Progress
    ) -> None:
        self.objective = objective
        self.base = base
        self.settings = settings
        self.progress = progress
        self.notes: list[str] = []
        self._nudged: Base | None = None
        self._loudest = [self._loudest_of(loss) for loss in range(len(base.losses))]

    def examine(self) -> list[_Finding]:
        """The findings for all trainable parameters, one a variable."""
        parameters = [
            (parameter, gradient)
            for parameter, gradient in zip(
                self.objective.parameters, self.base.gradients, strict=True
            )
            if parameter.variable.trainable
        ]
        obstacles = [self._obstacle(loss) for loss in range(len(self.base.losses))]
        self.notes.extend(dict.fromkeys(o.note for o in obstacles if o is not None and o.note))
        if self.objective.islands:
            self.notes.append(
                f"{len(self.objective.islands)} operation(s) have no float64 form and were measured "
                f"in their own precision: {_some(self.objective.islands)}."
            )
        total = sum(gradient_size(parameter) for parameter, _ in parameters)
        full = self.settings.method == "full"
        done = 0
        found: dict[str, _Finding] = {}
        for position, (parameter, gradient) in enumerate(parameters):
            if not full:
                self.progress(parameter.path, position, len(parameters))
            base_done = done

            def advance(count: int, path: str = parameter.path) -> None:
                nonlocal done
                done += count
                if done % 64 == 0:
                    self.progress(path, done, total)

            finding = self._examine(parameter, gradient, obstacles[parameter.loss], advance)
            done = base_done + gradient_size(parameter)
            before = found.get(parameter.path)
            if before is None or _outranks(finding, before):
                found[parameter.path] = finding
        self.progress("done", 1, 1)
        return list(found.values())

    def _loudest_of(self, loss: int) -> float:
        norms = [
            self._target(parameter, gradient, self.base, 0.0).norm * self._scale(parameter)
            for parameter, gradient in zip(self.objective.parameters, self.base.gradients, strict=True)
            if parameter.loss == loss and gradient is not None and parameter.inputs
        ]
        floor = _QUIET * abs(self.base.losses[loss])
        return max((norm for norm in (*norms, floor) if math.isfinite(norm)), default=0.0)

    def _scale(self, parameter: Parameter) -> float:
        return self._target(parameter, None, self.base, 0.0).scale

    def _obstacle(self, loss: int) -> Judgement | None:
        """What makes every gradient of this loss impossible to judge, if anything does."""
        value, trained = self.base.losses[loss], self.base.losses_as_trained[loss]
        if not math.isfinite(value):
            return Judgement(Verdict.FAIL, "non_finite", f"The loss is {value}.")
        if self.objective.loss(loss, self.base.inputs) != self.objective.loss(loss, self.base.inputs):
            what = _some(self.objective.random_ops) or "an operation outside TensorFlow's seeds"
            return Judgement(
                Verdict.INCONCLUSIVE,
                "stochastic",
                f"The loss differs between two evaluations at one point: {what} draws new numbers "
                "each time. Draw them from a keras.random.SeedGenerator.",
            )
        if not parity(value, trained) <= self._parity_limit(loss):
            error = ParityError(
                "The float64 graph must compute the loss that is trained. Received: "
                f"{value:.9g} in float64, {trained:.9g} as trained. Nothing was judged."
            )
            return Judgement(Verdict.INCONCLUSIVE, "", str(error))
        return None

    def _parity_limit(self, loss: int) -> float:
        """How far training precision may move the loss: more where it hangs on its variables more."""
        unit = _PRECISION[self.objective.lowest]
        sensitivity = self._loudest[loss] / max(abs(self.base.losses[loss]), 1e-300)
        return unit * (_PARITY_ROUNDINGS + _PARITY_SENSITIVITY * sensitivity)

    def _target(
        self, parameter: Parameter, gradient: Any, base: Base, loudest: float
    ) -> Target:
        value = (
            np.asarray(base.inputs[parameter.inputs[0]], np.float64)
            if parameter.inputs
            else np.asarray(parameter.variable, np.float64)
        )
        return Target(
            path=parameter.path,
            displaced=self.objective.along(base, parameter),
            value=value,
            gradient=gradient,
            at_zero=base.losses[parameter.loss],
            resolution=self.settings.thresholds.okay / 30,
            loudest=loudest,
        )

    def _examine(
        self,
        parameter: Parameter,
        gradient: Any,
        obstacle: Judgement | None,
        advance: Callable[[int], None],
    ) -> _Finding:
        thresholds = self.settings.thresholds
        scale = self.base.scales[parameter.loss]
        loudest = self._loudest[parameter.loss]
        target = self._target(parameter, gradient, self.base, loudest)
        if gradient is not None and not np.all(np.isfinite(gradient)):
            count = int(np.size(gradient) - np.count_nonzero(np.isfinite(gradient)))
            note = f"{count} of {np.size(gradient)} entries of the tape's gradient are not finite."
            return self._finding(target, parameter, None, Judgement(Verdict.FAIL, "non_finite", note), scale)
        if obstacle is not None:
            return self._finding(target, parameter, None, replace(obstacle, note=""), scale)
        if not parameter.inputs or target.value.size == 0:
            judgement = Judgement(Verdict.PASS, "unused", "The loss does not use this variable.")
            return self._finding(target, parameter, None, judgement, scale)

        measurement = self._measure(target, advance)
        if gradient is None:
            judgement = judge_missing(
                measurement, thresholds, depends(target, self.settings.seed)
            )
        else:
            judgement = judge_measurement(measurement, thresholds, loudest, target.scale)
            if judgement.verdict is not Verdict.PASS:
                judgement, measurement = self._second_look(parameter, judgement, measurement)
        return self._finding(target, parameter, measurement, judgement, scale)

    def _measure(self, target: Target, advance: Callable[[int], None]) -> Measurement:
        epsilon = None if self.settings.epsilon == "auto" else float(self.settings.epsilon)
        if self.settings.method == "full":
            return measure_every_coordinate(target, epsilon, self.settings.seed, advance)
        return measure_directions(target, self.settings.directions, epsilon, self.settings.seed)

    def _second_look(
        self, parameter: Parameter, first: Judgement, here: Measurement
    ) -> tuple[Judgement, Measurement]:
        """Judge again with a look a little aside; on a kink, what was measured there counts."""
        if self._nudged is None:
            self._nudged = self.objective.nudged(self.base, self.settings.seed)
        gradient = self._nudged.gradients[self.objective.parameters.index(parameter)]
        if gradient is None or not np.all(np.isfinite(gradient)):
            return first, here
        loudest = self._loudest[parameter.loss]
        target = self._target(parameter, gradient, self._nudged, loudest)
        aside = measure_directions(target, self.settings.directions, None, self.settings.seed)
        nearby = judge_measurement(aside, self.settings.thresholds, loudest, target.scale)
        judgement = judge_second_look(first, here, nearby)
        on_kink = judgement.verdict is Verdict.PASS and judgement.reason == "kink"
        return judgement, aside if on_kink else here

    def _finding(
        self,
        target: Target,
        parameter: Parameter,
        measurement: Measurement | None,
        judgement: Judgement,
        scale: float,
    ) -> _Finding:
        path = parameter.path
        layer = path.rsplit("/", 1)[0] if "/" in path else path
        wrong = judgement.verdict in (Verdict.FAIL, Verdict.SUSPECT)
        unused = judgement.reason == "unused"
        report = VariableReport(
            path=path,
            layer=layer,
            shape=target.value.shape,
            score=math.nan,
            verdict=judgement.verdict,
            reason=judgement.reason,
            analytic_norm=target.norm / abs(scale) if target.gradient is not None else math.nan,
            numerical_norm=math.nan,
            error_bar=math.nan,
            note=judgement.note,
        )
        if measurement is None:
            if unused:
                return _Finding(replace(report, score=0.0, numerical_norm=0.0), 0.0, 0.0, 0.0)
            return _Finding(report)
        report = replace(
            report,
            score=_score_shown(measurement, judgement.reason),
            numerical_norm=measurement.numerical_norm / abs(scale),
            error_bar=measurement.score_bar,
            worst=_worst_coordinates(target, scale) if wrong else (),
            detectable_error=math.sqrt(measurement.bar_square) / abs(scale),
        )
        squared = scale**2
        return _Finding(
            report,
            measurement.gap_square / squared,
            measurement.numerical_square / squared,
            measurement.analytic_square / squared,
        )


def _score_shown(measurement: Measurement, reason: str) -> float:
    """The score for the report: two gradients that are both zero within the bar have none."""
    if reason == "below_resolution":
        return math.nan
    return 0.0 if reason == "unused" else measurement.score


def gradient_size(parameter: Parameter) -> int:
    """Number of entries of a parameter."""
    return int(np.prod(parameter.variable.shape))


def parity(value: float, trained: float) -> float:
    """Relative difference between the loss in float64 and as trained."""
    if value == trained:
        return 0.0
    return abs(value - trained) / max(abs(value), abs(trained))


def _worst_coordinates(target: Target, scale: float) -> tuple[Coordinate, ...]:
    """The most deviating entries among those that a bisection and the largest gradients point to."""
    from tfcheck.localise import suspicious_entries

    coordinates = []
    for index in suspicious_entries(target, _WORST_SHOWN):
        line: Line = measure_coordinate(target, index)
        unit = target.scale * scale
        analytic = math.nan if target.gradient is None else line.analytic / unit
        coordinates.append(
            Coordinate(index, analytic, line.slope.value / unit, line.slope.error_bar / abs(unit))
        )

    def deviation(coordinate: Coordinate) -> float:
        gap = abs(np.nan_to_num(coordinate.analytic) - coordinate.numerical)
        return math.inf if math.isnan(gap) else gap

    return tuple(sorted(coordinates, key=deviation, reverse=True))


def _outranks(new: _Finding, old: _Finding) -> bool:
    key = lambda finding: (finding.report.verdict.severity, np.nan_to_num(finding.report.score))  # noqa: E731
    return bool(key(new) > key(old))


def _declared(objective: Objective, patterns: Sequence[str]) -> frozenset[str]:
    """The paths that the patterns declare; every pattern must match one."""
    paths = {parameter.path for parameter in objective.parameters}
    declared: set[str] = set()
    for pattern in patterns:
        matched = {
            path
            for path in paths
            if fnmatch.fnmatchcase(path, pattern)
            or fnmatch.fnmatchcase(path.rsplit("/", 1)[0], pattern)
        }
        if not matched:
            raise ArgumentError(
                rule(
                    "Every pattern of expected_mismatch must match a variable or layer path",
                    "pattern",
                    pattern,
                    f"Choose among {', '.join(sorted(paths))}",
                )
            )
        declared |= matched
    return frozenset(declared)


def _summary(objective: Objective, base: Base, phase: str) -> ObjectiveSummary:
    losses = tuple(loss / scale for loss, scale in zip(base.losses, base.scales, strict=True))
    parities = [parity(a, b) for a, b in zip(base.losses, base.losses_as_trained, strict=True)]
    return ObjectiveSummary(
        source=objective.source,
        phase=phase,
        losses=losses,
        parity=max(parities),
        islands=objective.islands,
        random_ops=objective.random_ops,
    )


def _assemble(findings: Sequence[_Finding], declared: frozenset[str], **fields: Any) -> GradientReport:
    """Put findings into layers, in model order, and take scores and verdicts over them."""
    findings = [_declare(finding) if finding.report.path in declared else finding for finding in findings]
    by_layer: dict[str, list[_Finding]] = {}
    for finding in findings:
        by_layer.setdefault(finding.report.layer, []).append(finding)
    layers = tuple(
        LayerReport(
            path,
            _joint_score(members),
            worst(m.report.verdict for m in members if m.report.counts) if any(
                m.report.counts for m in members
            ) else Verdict.INCONCLUSIVE,
            tuple(member.report for member in members),
        )
        for path, members in by_layer.items()
    )
    counted = [finding for finding in findings if finding.report.counts]
    return GradientReport(
        verdict=worst(finding.report.verdict for finding in counted),
        score=_joint_score(counted),
        layers=layers,
        culprits=(),
        **fields,
    )


def _declare(finding: _Finding) -> _Finding:
    report = replace(
        finding.report,
        verdict=Verdict.INCONCLUSIVE,
        reason="declared",
        note="Declared in expected_mismatch; not judged.",
    )
    return replace(finding, report=report)


def _joint_score(findings: Iterable[_Finding]) -> float:
    """The similarity score of several variables as one vector; `nan` when one is unknown."""
    gap = numerical = analytic = 0.0
    for finding in findings:
        gap += finding.gap_square
        numerical += finding.numerical_square
        analytic += finding.analytic_square
    if math.isnan(gap):
        return math.nan
    norms = math.sqrt(numerical) + math.sqrt(analytic)
    return math.sqrt(gap) / norms if norms else 0.0


def _frozen(model: keras.Model) -> tuple[str, ...]:
    return tuple(
        variable.path
        for variable in model.non_trainable_variables
        if keras.backend.is_float_dtype(variable.dtype)
    )


def _untouched(model: keras.Model, objective: Objective) -> tuple[str, ...]:
    """Say which trainable variables no tape differentiates."""
    seen = {id(parameter.variable) for parameter in objective.parameters}
    missed = [variable.path for variable in model.trainable_variables if id(variable) not in seen]
    if not missed:
        return ()
    return (f"No tape differentiates {len(missed)} trainable variable(s): {_some(missed)}.",)


def _some(names: Sequence[str], shown: int = 4) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
