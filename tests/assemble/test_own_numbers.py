"""A pass follows from the numbers of its own row."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from tfcheck import Thresholds, Verdict
from tfcheck.assemble.assemble import assemble
from tfcheck.assemble.own_numbers import follows
from tfcheck.examine.finding import Finding, Numbers
from tfcheck.judge.judgement import Judgement
from tfcheck.report.rows import ObjectiveSummary, VariableReport
from tfcheck.settings import Settings

ROW = VariableReport(
    path="dense/kernel",
    layer="dense",
    shape=(4,),
    score=1e-9,
    verdict=Verdict.PASS,
    reason="",
    analytic_norm=1.0,
    numerical_norm=1.0,
    error_bar=1e-9,
    detectable_error=1e-5,
)
ZERO = replace(ROW, score=math.nan, reason="below_resolution", analytic_norm=0.0)
KINK = replace(ROW, score=0.3, reason="kink", slopes=(1.0, 1.0, 2.0))

PASSES = {
    "equal": (ROW, 1e-9),
    "zero within the bar": (ZERO, 1e-6),
    "a kink with its slopes": (KINK, 0.3),
    "a kink a little aside": (replace(ROW, reason="kink"), 1e-9),
    "unused": (replace(ROW, score=0.0, reason="unused", analytic_norm=0.0, numerical_norm=0.0), 0),
    "one that fails": (replace(ROW, score=1.0, verdict=Verdict.FAIL), 1.0),
}
CONTRADICTIONS = {
    "a score of one": (replace(ROW, score=1.0), 1.0),
    "no score": (replace(ROW, score=math.nan), 1.0),
    "a bar that hides a bug": (replace(ROW, error_bar=0.1), 1e-9),
    "zero beside 3.78": (replace(ZERO, numerical_norm=3.78, detectable_error=2e-8), 3.78),
    "zero with nothing known": (replace(ZERO, detectable_error=math.nan), 0.0),
    "a tape beyond both sides": (replace(KINK, slopes=(1.0, 5.0, 2.0)), 0.3),
    "a kink without slopes": (replace(KINK, slopes=None), 0.3),
    "unused with a gradient": (replace(ROW, score=0.0, reason="unused"), 0.0),
}


def found(row: VariableReport, gap: float) -> Finding:
    """A finding with this distance between its gradients."""
    return Finding(
        path=row.path,
        layer=row.layer,
        shape=row.shape,
        judgement=Judgement(row.verdict, row.reason, row.note),
        numbers=Numbers(
            row.score,
            row.analytic_norm,
            row.numerical_norm,
            row.error_bar,
            row.detectable_error,
            gap**2,
            row.numerical_norm**2,
            row.analytic_norm**2,
        ),
        slopes=row.slopes,
    )


@pytest.mark.parametrize("name", PASSES)
def test_what_follows_stands(name: str) -> None:
    """A verdict that its row bears out is left as it is."""
    row, gap = PASSES[name]
    assert follows(row, gap**2, Thresholds())


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_pass_against_its_numbers_is_withdrawn(name: str) -> None:
    """A row that passes against its own numbers is inconclusive in the report, and says so."""
    contradiction, gap = CONTRADICTIONS[name]
    assert not follows(contradiction, gap**2, Thresholds())
    objective = ObjectiveSummary("train_step", "train")
    finding = found(contradiction, gap)
    report = assemble([finding], settings=Settings(), notes=(), culprits=(), objective=objective)
    (row,) = report.variables
    assert report.verdict is row.verdict is Verdict.INCONCLUSIVE
    assert "mistake in tfcheck" in row.note
