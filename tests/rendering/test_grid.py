"""The grid of variables and checks, and what a run comes to."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import pytest
from reports import ERROR, FAILING, PASSING, RUN, report, training, variable

from tfcheck.errors import ArgumentError
from tfcheck.gradient_report import GradientReport
from tfcheck.judge.verdict import Verdict
from tfcheck.rendering.grid import build_grid, overall
from tfcheck.rendering.html import report_page
from tfcheck.rendering.plots import heatmap, heatmap_png


def test_grid() -> None:
    """Rows are variables in model order, columns are checks, cells hold what was found."""
    grid = build_grid(RUN)
    assert grid.rows == ("conv/kernel", "dense/kernel", "dense/bias")
    assert (grid.columns, grid.axis) == (("0", "100", "200", "300", "400"), "step")
    kinds = [[cell.kind for cell in row] for row in grid.cells]
    assert kinds[0] == ["great", "error", "great", "great", "great"]
    assert kinds[2] == ["okay", "error", "okay", "fail", "fail"]
    assert grid.cells[2][3].digits == pytest.approx(-math.log10(0.33))


def test_grid_cells_follow_the_verdict_not_the_score() -> None:
    """A kink that passes is no failure, and a declared mismatch stays declared."""
    found = report(
        variable("a/w", 0.5, verdict=Verdict.PASS, reason="kink"),
        variable("b/w", 0.5, reason="declared"),
        variable("c/w", 1e-12, verdict=Verdict.FAIL, reason="blocked"),
        variable("d/w", 0.5, verdict=Verdict.INCONCLUSIVE, reason="below_resolution"),
        variable("e/w", math.nan, verdict=Verdict.FAIL, reason="non_finite"),
    )
    cells = [row[0] for row in build_grid([found]).cells]
    assert [c.kind for c in cells] == ["great", "declared", "fail", "inconclusive", "fail"]
    assert [cell.text for cell in cells] == ["✓", "~", "✗ blocked", "?", "✗ non-finite"]


def test_digits_never_contradict_the_verdict() -> None:
    """A bad verdict on gradients that agree is told by its reason, or by its symbol alone."""
    reasons = {
        "misapplied": "misapplied",
        "other_loss": "other loss",
        "untracked": "untracked",
        "untrained": "untrained",
        "compiled": "under XLA",
    }
    for reason, told in reasons.items():
        found = report(variable("a/w", 5e-11, verdict=Verdict.FAIL, reason=reason))
        assert build_grid([found]).cells[0][0].text == f"✗ {told}"
    mixed = report(
        variable("a/w", 5e-11, verdict=Verdict.FAIL, reason="misapplied"),
        variable("a/v", 5e-11, verdict=Verdict.FAIL, reason="blocked"),
        *(variable(f"layer_{n}/w") for n in range(40)),
    )
    grid = build_grid([mixed])
    assert (grid.rows[0], grid.cells[0][0].text) == ("a", "✗")


def test_culprits_have_rows_of_their_own() -> None:
    """A layer without variables that is wrong by itself stands above the others, from when on."""
    wrong = dataclasses.replace(FAILING, culprits=("swish",), culprit_places=("a.py:3 in swish",))
    grid = build_grid(training(PASSING, wrong))
    assert (grid.rows[0], grid.culprits) == ("swish", 1)
    assert [cell.text for cell in grid.cells[0]] == ["", "✗ culprit"]
    assert grid.cells[0][1].title == "swish (a.py:3 in swish), epoch 1 (step 100): wrong by itself"


def test_grid_with_variables_that_come_and_go() -> None:
    """A variable that a check did not see is absent there, neither passing nor failing."""
    runs = training(report(variable("a/w")), report(variable("a/w"), variable("b/w")))
    grid = build_grid(runs)
    assert [[cell.kind for cell in row] for row in grid.cells] == [
        ["great", "great"],
        ["absent", "great"],
    ]


def test_grid_of_a_large_model() -> None:
    """Above 40 variables rows are layers; above 60 layers the failing ones are kept."""
    few = report(*(variable(f"layer_{n}/{name}") for n in range(20) for name in "wb"))
    assert (build_grid([few]).unit, len(build_grid([few]).rows)) == ("variable", 40)
    scores = {77: 0.5}
    many = report(*(variable(f"layer_{n}/w", scores.get(n, 1e-9)) for n in range(100)))
    grid = build_grid([many])
    assert (grid.unit, len(grid.rows), grid.omitted) == ("layer", 60, 40)
    failing = [
        path for path, row in zip(grid.rows, grid.cells, strict=True) if row[0].kind == "fail"
    ]
    assert failing == ["layer_77"]


def test_grid_without_steps() -> None:
    """Outside training the columns are named or numbered."""
    plain = dataclasses.replace(PASSING, step=None, checkpoint="")
    grid = build_grid([plain, dataclasses.replace(plain, checkpoint="end")])
    assert (grid.columns, grid.axis) == (("#1", "end"), "checkpoint")


@pytest.mark.parametrize(
    ("checks", "verdict", "told"),
    [
        ([PASSING], "pass", "pass"),
        ([PASSING, PASSING], "pass", "pass in all 2 checks"),
        ([PASSING, FAILING], "fail", "fail since epoch 1 (step 100)"),
        ([FAILING, ERROR], "fail", "fail in 1 of 2 checks, first at epoch 0 (step 0)"),
        ([PASSING, ERROR], "error", "error since epoch 1 (step 100)"),
    ],
)
def test_overall(checks: Sequence[GradientReport], verdict: str, told: str) -> None:
    """A wrong gradient outweighs a check that could not be made, and both outweigh passes."""
    assert overall(training(*checks)) == (verdict, told)


@pytest.mark.parametrize("show", [build_grid, overall, report_page, heatmap, heatmap_png])
def test_nothing_to_show(show: Callable[[Sequence[GradientReport]], object]) -> None:
    """Without a report there is an error in one line that says what to give."""
    with pytest.raises(ArgumentError, match=r"^There must be a report to show\. Received: "):
        show([])
