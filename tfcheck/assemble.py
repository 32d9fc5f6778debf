"""Putting findings together: variables into layers, layers into one report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any

import keras

from tfcheck.errors import some
from tfcheck.examine import Finding, parity
from tfcheck.internals import live_variable
from tfcheck.judge import Judgement
from tfcheck.objective import Objective
from tfcheck.point import Base
from tfcheck.report import GradientReport, LayerReport, ObjectiveSummary, VariableReport
from tfcheck.unchanged import held_variables
from tfcheck.verdict import Verdict, worst


def summarise_objective(objective: Objective, base: Base, phase: str) -> ObjectiveSummary:
    """What the report says of the objective."""
    parities = [parity(a, b) for a, b in zip(base.losses, base.losses_as_trained, strict=True)]
    return ObjectiveSummary(
        source=objective.source,
        phase=phase,
        losses=unscaled(base.losses, base),
        parity=max(parities),
        precision=objective.precision,
        islands=objective.islands,
        random_ops=objective.random_ops,
        trained_precision=objective.lowest,
        trained_losses=unscaled(base.losses_as_trained, base),
    )


def unscaled(losses: Sequence[float], base: Base) -> tuple[float, ...]:
    """Losses without the scale that the optimizer puts on them."""
    return tuple(loss / scale for loss, scale in zip(losses, base.scales, strict=False))


def assemble(
    findings: Sequence[Finding], declared: Set[str], *, broken: bool = False, **fields: Any
) -> GradientReport:
    """Put findings into layers, in model order, and take scores and verdicts over them.

    Args:
        findings: the findings for the variables.
        declared: paths of the variables whose gradient is meant to differ.
        broken: whether something may have been found that was not, by a mistake in here: then
            nothing passes as a whole.
        fields: the other fields of the report.
    """
    findings = [
        _declare(finding) if finding.report.path in declared else finding for finding in findings
    ]
    by_layer: dict[str, list[Finding]] = {}
    for finding in findings:
        by_layer.setdefault(finding.report.layer, []).append(finding)
    layers = tuple(
        LayerReport(
            path,
            _joint_score(members),
            worst(m.report.verdict for m in members if m.report.counts)
            if any(m.report.counts for m in members)
            else Verdict.INCONCLUSIVE,
            tuple(member.report for member in members),
        )
        for path, members in by_layer.items()
    )
    counted = [finding for finding in findings if finding.report.counts]
    verdict = worst(finding.report.verdict for finding in counted)
    if verdict is Verdict.PASS and all(f.report.reason == "unused" for f in counted):
        verdict = Verdict.INCONCLUSIVE
        nothing = "The loss uses none of the variables, so that nothing was compared."
        fields["notes"] = (*fields["notes"], nothing)
    if verdict is Verdict.PASS and broken:
        verdict = Verdict.INCONCLUSIVE
    return GradientReport(
        verdict=verdict,
        score=_joint_score(counted),
        layers=layers,
        **fields,
    )


def unchecked(model: keras.Layer) -> list[Finding]:
    """Findings for a model that cannot be checked at all: every variable stays open."""
    return _open(model.trainable_variables, "unchecked")


def never_trained(model: keras.Layer) -> list[Finding]:
    """Findings for a model whose training step trains nothing at all."""
    note = "The training step finds no gradient for any variable, and changes none."
    return [
        replace(finding, report=replace(finding.report, verdict=Verdict.FAIL, note=note))
        for finding in _open(model.trainable_variables, "untrained")
    ]


def _open(variables: Iterable[Any], reason: str) -> list[Finding]:
    """Findings for variables of which nothing was measured."""
    return [
        Finding(
            VariableReport(
                path=variable.path,
                layer=variable.path.rsplit("/", 1)[0],
                shape=tuple(variable.shape),
                score=math.nan,
                verdict=Verdict.INCONCLUSIVE,
                reason=reason,
                analytic_norm=math.nan,
                numerical_norm=math.nan,
                error_bar=math.nan,
            )
        )
        for variable in variables
    ]


def blame(finding: Finding, objections: Mapping[str, Judgement]) -> Finding:
    """Judge a variable again where something speaks against how its gradient is used.

    Args:
        finding: the finding for a variable.
        objections: what speaks against it, by the variable's path.
    """
    objection = objections.get(finding.report.path)
    if objection is None or objection.verdict.severity <= finding.report.verdict.severity:
        return finding
    return replace(
        finding,
        report=replace(
            finding.report,
            verdict=objection.verdict,
            reason=objection.reason,
            note=objection.note,
        ),
    )


def untrained(objective: Objective) -> list[Finding]:
    """Findings for variables in the middle of the step that no tape is asked for."""
    asked = {id(parameter.variable) for parameter in objective.parameters}
    left_out = [variable for variable in objective.left_out if id(variable) not in asked]
    note = (
        "A tape's loss depends on this variable, but no tape is asked for its gradient, so that it "
        "stays as it is. Where that is meant, set trainable = False."
    )
    return [
        replace(finding, report=replace(finding.report, verdict=Verdict.SUSPECT, note=note))
        for finding in _open(left_out, "untrained")
    ]


def _declare(finding: Finding) -> Finding:
    report = replace(
        finding.report,
        verdict=Verdict.INCONCLUSIVE,
        reason="declared",
        note="",
    )
    return replace(finding, report=report)


def _joint_score(findings: Iterable[Finding]) -> float:
    """The similarity score of several variables as one vector; `nan` when one is unknown.

    Variables whose gradients are too small to be seen add nothing to either norm.
    """
    unseen = ("below_resolution", "untrained")
    seen = [finding for finding in findings if finding.report.reason not in unseen]
    if not seen:
        return math.nan
    gap = sum(finding.gap_square for finding in seen)
    norms = math.sqrt(sum(finding.numerical_square for finding in seen))
    norms += math.sqrt(sum(finding.analytic_square for finding in seen))
    if math.isnan(gap):
        return math.nan
    return math.sqrt(gap) / norms if norms else 0.0


def frozen_paths(model: keras.Model) -> tuple[str, ...]:
    """The paths of a model's variables that are not trainable, counters and seeds aside."""
    return tuple(
        variable.path
        for variable in model.non_trainable_variables
        if keras.backend.is_float_dtype(variable.dtype)
    )


def untouched_notes(model: keras.Model, objective: Objective) -> tuple[str, ...]:
    """Say which trainable variables no tape differentiates."""
    seen = {id(parameter.variable) for parameter in objective.parameters}
    missed = [variable.path for variable in model.trainable_variables if id(variable) not in seen]
    known = {id(live_variable(variable)) for variable in model.variables}
    known |= {id(live_variable(parameter.variable)) for parameter in objective.parameters}
    held = {id(variable) for variable in held_variables(model)} - known
    raw = [variable.name for variable in objective.raw_variables if id(variable) in held]
    notes = []
    if missed:
        notes.append(f"No tape differentiates {len(missed)} trainable variable(s): {some(missed)}.")
    if raw:
        notes.append(
            f"The loss reads {len(raw)} tf.Variable(s) that are no weights, so that they are not "
            f"trained: {some(raw)}. Create weights with add_weight."
        )
    return tuple(notes)
