"""Putting findings together: variables into layers, layers into one report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any

import keras

from tfcheck.assemble.own_numbers import follows, withdrawn
from tfcheck.errors import some
from tfcheck.examine.examination import Finding, parity
from tfcheck.gradient_report import GradientReport
from tfcheck.judge.judgement import Judgement
from tfcheck.judge.reasons import Reason
from tfcheck.judge.verdict import Verdict, worst
from tfcheck.objective.objective import Objective
from tfcheck.objective.point import Base
from tfcheck.report.rows import LayerReport, ObjectiveSummary, VariableReport
from tfcheck.variables import is_overwritten, unique_paths


def summarise_objective(objective: Objective, base: Base, phase: str) -> ObjectiveSummary:
    """What the report says of the objective."""
    parities = [parity(a, b) for a, b in zip(base.losses, base.losses_as_trained, strict=True)]
    return ObjectiveSummary(
        source=objective.facts.source,
        phase=phase,
        losses=unscaled(base.losses, base),
        parity=max(parities),
        precision=objective.facts.precision,
        islands=objective.facts.islands,
        random_ops=objective.facts.random_ops,
        trained_precision=objective.facts.lowest,
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
    thresholds = fields["settings"].thresholds
    findings = [
        finding if follows(finding, thresholds) else withdrawn(finding) for finding in findings
    ]
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
    if verdict is Verdict.PASS and all(f.report.reason == Reason.UNUSED for f in counted):
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
    return _open(_differentiable(model), Reason.UNCHECKED)


def never_trained(model: keras.Layer) -> list[Finding]:
    """Findings for a model whose training step trains nothing at all."""
    note = "The training step finds no gradient for any variable, and changes none."
    return [
        replace(finding, report=replace(finding.report, verdict=Verdict.FAIL, note=note))
        for finding in _open(_differentiable(model), Reason.UNTRAINED)
    ]


def _differentiable(model: keras.Layer) -> list[Any]:
    """The variables of a model that are trained by their gradients."""
    return [variable for variable in model.trainable_variables if not is_overwritten(variable)]


def _open(variables: Iterable[Any], reason: str) -> list[Finding]:
    """Findings for variables of which nothing was measured."""
    return [_unmeasured(v.path, tuple(v.shape), reason) for v in variables]


def _unmeasured(path: str, shape: tuple[int, ...], reason: str) -> Finding:
    return Finding(
        VariableReport(
            path=path,
            layer=path.rsplit("/", 1)[0],
            shape=shape,
            score=math.nan,
            verdict=Verdict.INCONCLUSIVE,
            reason=reason,
            analytic_norm=math.nan,
            numerical_norm=math.nan,
            error_bar=math.nan,
        )
    )


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
    """Findings for variables that a loss depends on and that no tape is asked for."""
    note = (
        "A tape's loss depends on this variable, but no tape is asked for its gradient, so that it "
        "stays as it is. Where that is meant, set trainable = False."
    )
    paths = unique_paths([*_differentiated(objective), *objective.facts.left_out])
    return [
        _suspect(paths[id(variable)], tuple(variable.shape), Reason.UNTRAINED, note)
        for variable in objective.facts.left_out
    ]


def untracked(objective: Objective) -> list[Finding]:
    """Findings for variables that layers of the model use, and that are no weights of it."""
    return [
        _suspect(
            f"{found.layer}/{found.name}",
            found.shape,
            Reason.UNTRACKED,
            f"It is used{f' at {found.place}' if found.place else ''}, and Keras neither trains "
            "nor saves it.",
            found.layer,
        )
        for found in objective.facts.untracked
        if found.layer
    ]


def users_of_untracked(findings: Iterable[Finding]) -> list[str]:
    """The paths of the layers that use what is no weight of the model."""
    return [f.report.layer for f in findings if f.report.reason == Reason.UNTRACKED]


def _suspect(
    path: str, shape: tuple[int, ...], reason: str, note: str, layer: str | None = None
) -> Finding:
    """A finding for a variable that the step uses in a way that was hardly meant."""
    finding = _unmeasured(path, shape, reason)
    report = replace(finding.report, verdict=Verdict.SUSPECT, note=note)
    return replace(finding, report=replace(report, layer=layer or report.layer))


def _declare(finding: Finding) -> Finding:
    report = replace(
        finding.report,
        verdict=Verdict.INCONCLUSIVE,
        reason=Reason.DECLARED,
        note="",
    )
    return replace(finding, report=report)


def _joint_score(findings: Iterable[Finding]) -> float:
    """The similarity score of several variables as one vector; `nan` when one is unknown.

    Variables whose gradients are too small to be seen add nothing to either norm.
    """
    unseen = (Reason.BELOW_RESOLUTION, Reason.UNTRAINED, Reason.UNTRACKED)
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
    """Say which trainable variables no tape differentiates, and which are no weights at all."""
    seen = _differentiated(objective)
    paths = unique_paths([*seen, *model.trainable_variables])
    told = {id(variable) for variable in (*seen, *objective.facts.left_out)}
    unseen = [variable for variable in model.trainable_variables if id(variable) not in told]
    missed = [paths[id(variable)] for variable in unseen if not is_overwritten(variable)]
    overwritten = [paths[id(variable)] for variable in unseen if is_overwritten(variable)]
    foreign = [found.name for found in objective.facts.untracked if not found.layer]
    notes = []
    if missed:
        notes.append(f"No tape differentiates {len(missed)} trainable variable(s): {some(missed)}.")
    if overwritten:
        notes.append(
            f"Keras overwrites {len(overwritten)} variable(s) with what the tape gives for them, "
            f"which is no gradient: {some(overwritten)}."
        )
    if foreign:
        notes.append(
            f"The loss reads {len(foreign)} variable(s) that are no weights of the model, so that "
            f"they are not trained: {some(foreign)}. Where they should be, create them with "
            "add_weight, or keep their layer in an attribute."
        )
    return tuple(notes)


def _differentiated(objective: Objective) -> list[Any]:
    """The variables that tapes differentiate."""
    return [parameter.variable for parameter in objective.parameters if not parameter.within]
