"""The compiled path: whether XLA gives the losses and gradients that the step has without it.

With `jit_compile=True`, and with `"auto"` where Keras turns it on, `fit` trains on what XLA makes
of the step. That is the same graph by another compiler, and it may take another side of a tie, sum
in another order, or be wrong.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import tensorflow as tf

from tfcheck.errors import TfcheckError, TraceError, received, some
from tfcheck.examine.examination import Examination, Finding
from tfcheck.formats import FORMATS
from tfcheck.judge.judgement import Judgement, judge_score
from tfcheck.judge.reasons import Reason
from tfcheck.judge.verdict import Verdict
from tfcheck.measure.directions import scale_of
from tfcheck.measure.distance import distance
from tfcheck.objective.as_trained import Evaluated
from tfcheck.objective.graph_objective import GraphObjective
from tfcheck.objective.point import Base
from tfcheck.trace.batch import Batch

_MORE_ROUNDING = 8
"""XLA may be off by as many times as much as the step is without it."""

_FIT_COMPILES = ("train_step", "compute_loss")
"""What `fit` runs, and `evaluate` for the loss at inference; other sources are run by neither."""


@dataclass(frozen=True)
class CompiledPath:
    """What the compiled step gives beside the plain one.

    Attributes:
        losses: value of each loss, scaled where it is; empty where nothing was compiled.
        distances: how far each variable's gradient is from the plain one, by path.
        wrong: the judgement on each variable whose gradient is wrong under XLA, by path.
        notes: sentences a reader should know.
    """

    losses: tuple[float, ...] = ()
    distances: Mapping[str, float] = field(default_factory=dict)
    wrong: Mapping[str, Judgement] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def judged(self, finding: Finding) -> Finding:
        """A finding with what the compiled path says of its variable; no verdict gets better."""
        path = finding.report.path
        report = replace(finding.report, compiled_distance=self.distances.get(path))
        wrong = self.wrong.get(path)
        if wrong is not None and wrong.verdict.severity > report.verdict.severity:
            report = replace(
                report, verdict=wrong.verdict, reason=wrong.reason, note=wrong.note, worst=()
            )
        return replace(finding, report=report)


def compare_compiled(
    model: Any, examination: Examination, findings: Sequence[Finding], batch: Batch
) -> CompiledPath:
    """Where `fit` compiles the step with XLA, compare it so with the step as it is.

    Args:
        model: the model; its `jit_compile` is what Keras made of `"auto"`.
        examination: the examination of the point.
        findings: what it found.
        batch: the debug batch.

    Returns:
        What was found; nothing where `fit` does not compile the step, or no graph stands for it.
    """
    objective, base = examination.objective, examination.base
    compiles = objective.facts.source in _FIT_COMPILES and getattr(model, "jit_compile", False)
    if not (compiles and isinstance(objective, GraphObjective)):
        return CompiledPath()
    try:
        compiled = objective.compiled_at(batch, base)
    except TraceError as error:
        note = f"The step compiled with XLA, as fit trains it, was not compared: {received(error)}."
        return CompiledPath(notes=(note,))
    return _Comparison(objective, examination, findings, batch, compiled).outcome()


class _Comparison:
    """One comparison at one point, with a look a little aside where something differs."""

    def __init__(
        self,
        objective: GraphObjective,
        examination: Examination,
        findings: Sequence[Finding],
        batch: Batch,
        compiled: Evaluated,
    ) -> None:
        self._examination = examination
        self._objective, self._base = objective, examination.base
        self._batch = batch
        self._plain = Evaluated(self._base.losses_as_trained, self._base.gradients_as_trained)
        self._compiled = compiled
        self._unresolved = {
            finding.report.path
            for finding in findings
            if finding.report.reason == Reason.BELOW_RESOLUTION
        }
        self._aside: dict[int, tuple[Base, Evaluated, Evaluated] | None] = {}

    def outcome(self) -> CompiledPath:
        distances: dict[str, float] = {}
        wrong: dict[str, Judgement] = {}
        at_ties: list[str] = []
        for position, parameter in enumerate(self._objective.parameters):
            path = parameter.path
            if self._silent(position):
                continue
            apart = distance(self._compiled.gradients[position], self._plain.gradients[position])
            if not apart <= distances.get(path, -1.0):
                distances[path] = apart
            judgement = self._judge(position, self._base, self._plain, self._compiled)
            if judgement.verdict is Verdict.PASS:
                continue
            if self._agrees_aside(position):
                at_ties.append(path)
            elif path not in wrong or judgement.verdict.severity > wrong[path].verdict.severity:
                wrong[path] = judgement
        return CompiledPath(
            losses=self._compiled.losses,
            distances=distances,
            wrong=wrong,
            notes=(*self._notes_on_losses(), *_note_on_ties(at_ties)),
        )

    def _silent(self, position: int) -> bool:
        """Whether a gradient is zero but for rounding, without XLA and with it."""
        parameter = self._objective.parameters[position]
        if parameter.path not in self._unresolved:
            return False
        loudest = max(
            self._loudness(other)
            for other, beside in enumerate(self._objective.parameters)
            if beside.loss == parameter.loss
        )
        return self._loudness(position) <= FORMATS[self._objective.facts.lowest].rounding * loudest

    def _loudness(self, position: int) -> float:
        """How much a natural change of a parameter changes the loss, as XLA computes it."""
        gradient = self._compiled.gradients[position]
        if gradient is None:
            return 0.0
        value = self._objective.value(self._base, self._objective.parameters[position])
        return float(np.linalg.norm(gradient.astype(np.float64))) * scale_of(value)

    def _judge(self, position: int, base: Base, plain: Evaluated, compiled: Evaluated) -> Judgement:
        """Judge a compiled gradient: it may be as far off as rounding in this precision is."""
        found, without = compiled.gradients[position], plain.gradients[position]
        in_float64 = base.gradients[position]
        apart, off = distance(found, without), distance(found, in_float64)
        allowed = _MORE_ROUNDING * distance(without, in_float64)
        # XLA keeps some intermediate results in higher precision, and may be the better one.
        gap = min(apart, off)
        if math.isnan(gap) or math.isnan(allowed):
            return Judgement(Verdict.PASS)
        bar = max(FORMATS[self._objective.facts.lowest].rounding, allowed)
        verdict = judge_score(gap, bar, self._examination.settings.thresholds)
        if verdict not in (Verdict.FAIL, Verdict.SUSPECT):
            return Judgement(Verdict.PASS)
        return Judgement(
            verdict,
            Reason.COMPILED,
            f"Compiled with XLA, as fit trains it, the gradient is {apart:.1e} from the one "
            f"without XLA and {off:.1e} from the one in float64; rounding explains {bar:.1e}.",
        )

    def _agrees_aside(self, position: int) -> bool:
        """Whether the difference is gone a little aside: then it belongs to a tie or a kink."""
        loss = self._objective.parameters[position].loss
        if loss not in self._aside:
            self._aside[loss] = self._evaluated_aside(loss)
        aside = self._aside[loss]
        return aside is not None and self._judge(position, *aside).verdict is Verdict.PASS

    def _evaluated_aside(self, loss: int) -> tuple[Base, Evaluated, Evaluated] | None:
        try:
            nudged = self._objective.nudged(self._base, loss, self._examination.settings.seed)
            plain = self._objective.trained_at(self._batch, nudged)
            return nudged, plain, self._objective.compiled_at(self._batch, nudged)
        except (TfcheckError, tf.errors.OpError):
            return None

    def _notes_on_losses(self) -> list[str]:
        return [
            f"The loss is {there / scale:.6g} compiled with XLA, as fit trains it, and "
            f"{here / scale:.6g} without."
            for loss, (there, here, scale) in enumerate(
                zip(self._compiled.losses, self._plain.losses, self._base.scales, strict=False)
            )
            if math.isfinite(there) or math.isfinite(here)
            if not abs(there - here) <= self._examination.parity_limit(loss)
        ]


def _note_on_ties(paths: Sequence[str]) -> list[str]:
    if not paths:
        return []
    differs = f"Compiled with XLA the gradient of {some(paths)} differs at this very point"
    return [f"{differs}, and agrees a little aside: a tie or a kink, taken by XLA the other way."]
