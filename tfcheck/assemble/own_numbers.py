"""A pass follows from the numbers of its own row, or it is none."""

from __future__ import annotations

import math

from tfcheck.judge.judgement import Judgement, judge_score, lies_between
from tfcheck.judge.reasons import Reason
from tfcheck.judge.verdict import Thresholds, Verdict
from tfcheck.report.rows import VariableReport

_LEEWAY = 1e-9
"""Relative rounding of what is compared here a second time."""

WITHDRAWN = Judgement(
    Verdict.INCONCLUSIVE,
    "",
    "This passed against its own numbers, which is a mistake in tfcheck: please report it with "
    "the model. Nothing is said of the gradient.",
)
"""Of a variable whose pass does not follow from its numbers."""


def follows(row: VariableReport, gap_square: float, thresholds: Thresholds) -> bool:
    """Whether a variable's verdict follows from its numbers, where that is a pass.

    Args:
        row: its row.
        gap_square: ‖ĝ − g‖².
        thresholds: the bands.
    """
    if row.verdict is not Verdict.PASS:
        return True
    if row.reason == Reason.UNUSED:
        return not row.analytic_norm > 0 and not row.numerical_norm > 0
    if row.reason == Reason.BELOW_RESOLUTION:
        return math.sqrt(gap_square) <= row.detectable_error * (1 + _LEEWAY)
    if row.reason == Reason.KINK and _kink_explains(row):
        return True
    return judge_score(row.score, row.error_bar, thresholds) is Verdict.PASS


def _kink_explains(row: VariableReport) -> bool:
    """Whether the tape's slope lies between those to the sides of a kink."""
    if row.slopes is None:
        return False
    left, tape, right = row.slopes
    return lies_between(tape, left, right, leeway=abs(right - left) / 4)
