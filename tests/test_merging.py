"""What is found of a variable and what is added to it become one row, by one rule."""

from __future__ import annotations

from typing import Any

import pytest

from tfcheck import Coordinate, Thresholds, Verdict
from tfcheck.assemble.merging import Additions, merged, with_objections
from tfcheck.examine.finding import Details, Finding, Numbers
from tfcheck.judge.judgement import Judgement
from tfcheck.report.rows import VariableReport
from tfcheck.training.precision import TrainedGradient
from tfcheck.training.xla import CompiledPath

PATH = "dense/kernel"
RIGHT = Numbers(1e-9, 1.0, 1.0, 1e-9, 1e-5, 1e-18, 1.0, 1.0)
WRONG = Numbers(1.0, 1.0, 1.0, 1e-9, 1e-5, 4.0, 1.0, 1.0)
WORST = (Coordinate((0,), 1.0, -1.0, 1e-9),)

PASS = Judgement(Verdict.PASS)
SUSPECT = Judgement(Verdict.SUSPECT, "misapplied", "first")
OTHER = Judgement(Verdict.SUSPECT, "other_loss", "second")
FAIL = Judgement(Verdict.FAIL, "misapplied", "worse")
XLA = Judgement(Verdict.FAIL, "compiled", "under XLA")


def row(judgement: Judgement, numbers: Numbers = WRONG, **additions: Any) -> VariableReport:
    """The row of one variable with this judgement, and with what is added."""
    finding = Finding(PATH, "dense", (4,), judgement, numbers, details=Details("twice", WORST))
    return merged(finding, Additions(**additions), Thresholds()).row


@pytest.mark.parametrize(
    ("found", "objections", "wins"),
    [
        (PASS, (), PASS),
        (PASS, (SUSPECT,), SUSPECT),
        (PASS, (SUSPECT, OTHER), SUSPECT),
        (PASS, (OTHER, FAIL), FAIL),
        (OTHER, (SUSPECT,), OTHER),
        (FAIL, (SUSPECT,), FAIL),
    ],
)
def test_the_worse_verdict_wins(
    found: Judgement, objections: tuple[Judgement, ...], wins: Judgement
) -> None:
    """The worse one, and the earlier one at a tie."""
    finding = Finding(PATH, "dense", (4,), found, RIGHT)
    stages = [{PATH: objection} for objection in objections]
    assert with_objections(finding, stages) is wins
    assert with_objections(finding, [{"dense/bias": FAIL}]) is found


def test_additions_take_their_places() -> None:
    """A note, the gradient that trains and the distance under XLA stand in the row."""
    found = row(
        FAIL,
        trained={PATH: TrainedGradient(0.1, 2.0)},
        notes={PATH: "at line 3"},
        compiled=CompiledPath(distances={PATH: 0.25}),
    )
    assert (found.verdict, found.reason, found.note) == ("fail", "misapplied", "at line 3")
    assert (found.precision_error, found.trained_norm) == (0.1, 2.0)
    assert (found.compiled_distance, found.worst, found.pattern) == (0.25, WORST, "twice")


def test_what_is_wrong_under_xla_alone_has_no_entries() -> None:
    """Its own note counts, and entries that were measured without XLA say nothing of it."""
    compiled = CompiledPath(wrong={PATH: XLA})
    found = row(SUSPECT, notes={PATH: "at line 3"}, compiled=compiled)
    assert (found.verdict, found.note, found.worst) == ("fail", "under XLA", ())
    found = row(FAIL, compiled=compiled)
    assert (found.note, found.worst) == ("worse", WORST)


def test_what_is_declared_does_not_count() -> None:
    """Whatever was found of it, even a pass against its own numbers."""
    for judgement in (PASS, FAIL):
        found = row(judgement, declared={PATH})
        assert (found.verdict, found.reason, found.note) == ("inconclusive", "declared", "")
