"""What every way of showing a report promises."""

from __future__ import annotations

import dataclasses
import math
import re
import subprocess
import sys
from collections.abc import Callable

import pytest
from any_report import REPORTS
from hypothesis import given
from hypothesis import strategies as st
from outline import Outline
from reports import ERROR, FAILING, PASSING, report, variable
from repository import ROOT

from tfcheck.gradient_report import GradientReport
from tfcheck.judge.verdict import Thresholds, Verdict
from tfcheck.rendering.console import report_text
from tfcheck.rendering.html import report_fragment, report_page
from tfcheck.report.rows import Coordinate
from tfcheck.settings import Settings

RENDERERS: dict[str, Callable[[GradientReport], str]] = {
    "console": report_text,
    "fragment": report_fragment,
    "page": lambda found: report_page([found]),
}


@pytest.fixture(params=RENDERERS)
def render(request: pytest.FixtureRequest) -> Callable[[GradientReport], str]:
    """Every way to show one report."""
    return RENDERERS[request.param]


def test_failing_rows_first(render: Callable[[GradientReport], str]) -> None:
    """The layer with a failure precedes those that pass, though it comes last in the model."""
    table = re.sub(r"<[^>]*>", "", render(FAILING)).split("error bar", 1)[1]
    assert 0 <= table.index("dense/bias") < table.index("dense/kernel") < table.index("conv/kernel")


def test_no_hidden_thresholds(render: Callable[[GradientReport], str]) -> None:
    """The thresholds the check ran with are printed, not the defaults."""
    chosen = Settings(thresholds=Thresholds(2e-8, 3.5e-6, 4e-2))
    text = render(dataclasses.replace(PASSING, settings=chosen)).replace("&lt;", "<")
    assert "great ≤ 2e-8, okay ≤ 3.5e-6 (passes), concerning ≥ 4e-2 (fails)" in text
    assert "1e-7" not in text


def test_what_was_measured_and_how(render: Callable[[GradientReport], str]) -> None:
    """Model, moment, loss, phase, method, seed, step and batch are all told."""
    ran = Settings(directions=7, epsilon=1e-6, seed=42, batch_size=32)
    text = render(dataclasses.replace(PASSING, settings=ran))
    for told in (
        "mnist_cnn",
        "epoch 2 (step 938)",
        "2.3025",
        "train",
        "train_step",
        "7 random ones",
    ):
        assert told in text
    for told in ("epsilon 1e-6", "seed 42", "batch of 32", "212 evaluations", "float64", "4.0e-8"):
        assert told in text


@pytest.mark.parametrize(
    ("method", "told"),
    [("directions", "directions (4 random ones a variable)"), ("full", "full (every coordinate)")],
)
def test_method(render: Callable[[GradientReport], str], method: str, told: str) -> None:
    """The method is named as in the options, and explained."""
    assert told in render(dataclasses.replace(PASSING, settings=Settings(method=method)))


def test_worst_coordinates(render: Callable[[GradientReport], str]) -> None:
    """A failing variable shows where it is wrong: index, both derivatives, error bar, ratio."""
    text = render(FAILING)
    for told in ("[3]", "0.0123450", "0.0246900", "± 2.0e-12", "2.00", "[77]", "-1.00"):
        assert told in text
    assert "Wrong by a constant factor." in text


def test_culprits_notes_frozen(render: Callable[[GradientReport], str]) -> None:
    """The culprit, every note, the frozen variables and what is expected are shown."""
    text = render(
        dataclasses.replace(
            FAILING,
            culprits=("swish",),
            notes=("First note.", "Second note."),
            frozen=("bn/moving_mean", "bn/moving_variance"),
            settings=Settings(expected_mismatch=("quantizer/*",)),
        )
    )
    for told in (
        "culprit",
        "swish",
        "First note.",
        "Second note.",
        "bn/moving_mean",
        "quantizer/*",
    ):
        assert told in text
    assert "2 variables" in text


def test_many_frozen_variables_are_only_counted(render: Callable[[GradientReport], str]) -> None:
    """A frozen backbone does not fill the page with names."""
    text = render(dataclasses.replace(PASSING, frozen=tuple(f"base/{n}" for n in range(300))))
    assert "300 variables" in text
    assert "base/7" not in text


def test_errors_are_shown(render: Callable[[GradientReport], str]) -> None:
    """A check that could not be made says why, and claims neither pass nor failure."""
    text = render(ERROR)
    assert "The debug batch must fit the model." in text
    assert "could not be carried out" in text
    assert "variables pass" not in text


def test_a_declared_mismatch_is_neither_pass_nor_failure(
    render: Callable[[GradientReport], str],
) -> None:
    """A declared mismatch is called declared, whatever its verdict, and the report passes."""
    for verdict in (Verdict.FAIL, Verdict.PASS):
        codebook = variable("vq/codebook", 0.9, reason="declared", verdict=verdict)
        text = render(report(variable("dense/kernel"), codebook))
        assert "1 pass, 1 declared" in text
        rows = re.findall(r"<tr>.*?</tr>", text, re.DOTALL) or text.split("\n")
        row = next(each for each in rows if "codebook" in each)
        assert "declared" in row
        assert "fail" not in row
        assert "pass" not in row


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_numbers(render: Callable[[GradientReport], str], value: float) -> None:
    """NaN and infinity are written as such, in the table and among the coordinates."""
    broken = variable(
        "dense/kernel",
        math.nan,
        verdict=Verdict.FAIL,
        reason="non_finite",
        analytic_norm=value,
        worst=(Coordinate((0, 1), value, 1.0, math.nan),),
    )
    text = render(report(broken))
    assert len(re.findall(rf"(?<![\w-]){value}(?!\w)", text)) >= 2
    assert "NaN or infinity" in text


def test_every_failing_variable_is_shown(render: Callable[[GradientReport], str]) -> None:
    """Rows are only left out when they pass: 50 failures are 50 rows."""
    found = report(*(variable(f"bad_{n}/w", 0.5) for n in range(50)), variable("good/w"))
    text = render(found)
    assert all(f"bad_{n}/" in text for n in range(50))
    assert "1 more variable, all pass" in text


def test_names_are_taken_as_they_are(render: Callable[[GradientReport], str]) -> None:
    """Brackets in a name are no markup, and control characters do not reach the terminal."""
    text = render(report(variable("[red]x[/red]/w\x1b[31m\x07"), model="[bold]m"))
    text = text.replace("<wbr>", "")
    assert "[red]x[/red]/" in re.sub(r"</?(b|span)[^>]*>", "", text)
    assert "[bold]m" in text
    assert "\x1b" not in text
    assert "\x07" not in text


def test_what_rendering_imports() -> None:
    """Rendering needs neither TensorFlow nor MLflow, and leaves pyplot and its state alone."""
    program = (
        "import sys, tfcheck.rendering.console, tfcheck.rendering.html, tfcheck.rendering.plots\n"
        "print(sorted({'tensorflow', 'keras', 'mlflow', 'matplotlib.pyplot', 'matplotlib.figure'}"
        " & set(sys.modules)))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert ran.stdout.strip() == "['matplotlib.figure']"


@given(st.lists(REPORTS, min_size=1, max_size=4))
def test_any_report_can_be_shown(reports: list[GradientReport]) -> None:
    """Whatever a report holds, every text and page of it can be made and is well formed."""
    assert "\x1b" not in report_text(reports[0], width=80)
    Outline(report_fragment(reports[0]))
    Outline(report_page(reports))
