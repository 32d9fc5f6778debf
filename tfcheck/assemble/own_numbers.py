"""A pass follows from the numbers of its own row, or it is none."""

from __future__ import annotations

import math
from dataclasses import replace

from tfcheck.examine.examination import Finding
from tfcheck.judge.judgement import judge_score
from tfcheck.judge.reasons import Reason
from tfcheck.judge.verdict import Thresholds, Verdict
from tfcheck.report.rows import VariableReport

_LEEWAY = 1e-9
"""Relative rounding of what is compared here a second time."""


def follows(finding: Finding, thresholds: Thresholds) -> bool:
    """Whether a finding's verdict follows from its numbers, where that is a pass.

    Args:
        finding: the finding for a variable.
        thresholds: the bands.
    """
    report = finding.report
    if report.verdict is not Verdict.PASS:
        return True
    if report.reason == Reason.UNUSED:
        return not report.analytic_norm > 0 and not report.numerical_norm > 0
    if report.reason == Reason.BELOW_RESOLUTION:
        return math.sqrt(finding.gap_square) <= report.detectable_error * (1 + _LEEWAY)
    if report.reason == Reason.KINK and _kink_explains(report):
        return True
    return judge_score(report.score, report.error_bar, thresholds) is Verdict.PASS


def _kink_explains(report: VariableReport) -> bool:
    """Whether the tape's slope lies between those to the sides of a kink."""
    if report.slopes is None:
        return False
    left, tape, right = report.slopes
    leeway = abs(right - left) / 4
    return min(left, right) - leeway <= tape <= max(left, right) + leeway


def withdrawn(finding: Finding) -> Finding:
    """A finding whose pass does not follow from its numbers, as one that is open."""
    return replace(
        finding, report=replace(finding.report, verdict=Verdict.INCONCLUSIVE, reason="", note=NOTE)
    )


NOTE = (
    "This passed against its own numbers, which is a mistake in tfcheck: please report it with "
    "the model. Nothing is said of the gradient."
)
