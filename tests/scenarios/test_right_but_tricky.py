"""Right models that naive gradient checkers take for wrong: every one of them must pass.

The models are in the files `right_*.py` beside this one, by theme.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import keras
import numpy as np
import pytest
from figures import count
from fingerprint import nothing_changes
from right import OUT_OF_REACH, TRICKY, Build, Case

from tfcheck import GradientReport, Verdict, check_gradients

for theme in sorted(Path(__file__).parent.glob("right_*.py")):
    importlib.import_module(theme.stem)


LINE = (
    "right but tricky models: {pass} of {models} pass, {alarms} false alarms, "
    "{inconclusive} inconclusive"
)


def examine(build: Build) -> tuple[Case, GradientReport]:
    """Build a right model and check it; the check must leave no trace."""
    keras.utils.set_random_seed(11)
    case = build(np.random.default_rng(5))
    with nothing_changes(case.model, case.raw, case.options):
        report = check_gradients(case.model, case.x, case.y, case.sample_weight, **case.options)
    return case, report


@pytest.mark.parametrize("name", TRICKY)
def test_right_but_tricky(name: str, request: pytest.FixtureRequest) -> None:
    """A right model passes, no culprit is named, and no variable is changed by the check."""
    case, report = examine(TRICKY[name])
    found = {
        "pass": report.verdict is Verdict.PASS,
        "alarms": report.verdict in (Verdict.FAIL, Verdict.SUSPECT),
        "inconclusive": report.verdict is Verdict.INCONCLUSIVE,
    }
    count(request, LINE, models=1, **found)
    assert report.verdict is Verdict.PASS, str(report)
    assert report.culprits == (), str(report)
    assert not case.reason or case.reason in {v.reason for v in report.variables}, str(report)


@pytest.mark.parametrize("name", OUT_OF_REACH)
def test_out_of_reach(name: str) -> None:
    """A right model that differences cannot follow may stay open, with a reason; it never fails."""
    _, report = examine(OUT_OF_REACH[name])
    assert report.verdict in (Verdict.PASS, Verdict.INCONCLUSIVE), str(report)
    assert report.culprits == (), str(report)
