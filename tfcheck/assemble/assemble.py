"""Putting findings together: variables into layers, layers into one report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from tfcheck.assemble.merging import Additions, Merged, merged
from tfcheck.examine.finding import Finding
from tfcheck.gradient_report import GradientReport
from tfcheck.judge.reasons import Reason
from tfcheck.judge.verdict import Verdict, worst
from tfcheck.measure.similarity import similarity
from tfcheck.report.rows import LayerReport

_UNSEEN = (Reason.BELOW_RESOLUTION, Reason.UNTRAINED, Reason.UNTRACKED)
"""Of variables whose gradients add nothing to the score of several."""


def assemble(
    findings: Sequence[Finding],
    additions: Additions | None = None,
    *,
    broken: bool = False,
    **fields: Any,
) -> GradientReport:
    """Put findings into layers, in model order, and take scores and verdicts over them.

    Args:
        findings: the findings for the variables.
        additions: what later stages say of the variables. Defaults to nothing.
        broken: whether something may have been found that was not, by a mistake in here: then
            nothing passes as a whole.
        fields: the other fields of the report.
    """
    thresholds, additions = fields["settings"].thresholds, additions or Additions()
    variables = [merged(finding, additions, thresholds) for finding in findings]
    by_layer: dict[str, list[Merged]] = {}
    for variable in variables:
        by_layer.setdefault(variable.row.layer, []).append(variable)
    counted = [variable for variable in variables if variable.row.counts]
    verdict = worst(variable.row.verdict for variable in counted)
    if verdict is Verdict.PASS and all(v.row.reason == Reason.UNUSED for v in counted):
        verdict = Verdict.INCONCLUSIVE
        nothing = "The loss uses none of the variables, so that nothing was compared."
        fields["notes"] = (*fields["notes"], nothing)
    if verdict is Verdict.PASS and broken:
        verdict = Verdict.INCONCLUSIVE
    return GradientReport(
        verdict=verdict,
        score=_joint_score(counted),
        layers=tuple(_layer(path, members) for path, members in by_layer.items()),
        **fields,
    )


def _layer(path: str, members: Sequence[Merged]) -> LayerReport:
    """A layer with its variables; with none that counts, its verdict is open."""
    verdict = worst(member.row.verdict for member in members if member.row.counts)
    return LayerReport(path, _joint_score(members), verdict, tuple(m.row for m in members))


def _joint_score(variables: Iterable[Merged]) -> float:
    """The similarity score of several variables as one vector; `nan` when one is unknown.

    Variables whose gradients are too small to be seen add nothing to either norm.
    """
    seen = [variable.numbers for variable in variables if variable.row.reason not in _UNSEEN]
    if not seen:
        return math.nan
    gap = math.sqrt(sum(numbers.gap_square for numbers in seen))
    norms = math.sqrt(sum(numbers.numerical_square for numbers in seen))
    norms += math.sqrt(sum(numbers.analytic_square for numbers in seen))
    return similarity(gap, norms)
