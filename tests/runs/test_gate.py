"""What the gate lets pass, and what it says where it does not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from past_runs import check, run

from tfcheck.judge.verdict import Verdict
from tfcheck.runs.age import Training
from tfcheck.runs.gate import Case, Demands, Gate, judged
from tfcheck.runs.record import Check

START, END = check(0, hidden="pass"), check(5, hidden="pass")


def gated(*checks: Check, last_step: int = 285, **demands: object) -> Gate:
    """The outcome for a run of these checks."""
    case = Case("digits", run("train", *checks), Training(last_step=last_step))
    return judged(case, Demands(**demands))  # type: ignore[arg-type]


def test_a_good_training_passes() -> None:
    """And the outcome is true, with what it is based on."""
    outcome = gated(START, END)
    assert outcome
    assert (outcome.reasons, outcome.verdict, outcome.coverage) == ((), Verdict.PASS, 1.0)
    assert str(outcome) == (
        "digits passes: pass at epoch 5 (step 285), which compared 100% of variables."
    )


def test_what_was_never_checked_does_not_pass() -> None:
    """Nor what no run is known of."""
    assert gated().reasons == ("The training of run train was never checked.",)
    assert "names no run" in judged(Case("models:/a/1", None), Demands()).reasons[0]


def test_a_gradient_that_was_wrong_has_trained_the_model() -> None:
    """It does not pass for being right at the end."""
    outcome = gated(check(1, hidden="fail"), END)
    assert outcome.reasons == (
        "A gradient is wrong in 1 of 2 checks, first at epoch 1 (step 57) (hidden).",
    )


def test_suspect_ones_pass_where_they_may() -> None:
    """Only if they are allowed, and a failure never is."""
    suspect = check(5, hidden="suspect")
    assert gated(START, suspect).reasons[0].startswith("A gradient is suspect in 1 of 2 checks")
    assert gated(START, suspect, allow_suspect=True)
    assert not gated(check(1, hidden="fail"), END, allow_suspect=True)


@pytest.mark.parametrize("verdict", [Verdict.INCONCLUSIVE, Verdict.ERROR])
def test_the_last_check_must_know(verdict: Verdict) -> None:
    """An earlier one that did not is made up for by it."""
    assert gated(replace(START, verdict=verdict), END)
    assert "could not" in gated(START, replace(END, verdict=verdict)).reasons[0]


def test_each_callback_must_have_passed_last() -> None:
    """One that ended with an error is not made up for by another."""
    other = replace(END, name="inference", verdict=Verdict.ERROR, coverage=None)
    assert gated(START, other, END).reasons == (
        "The last check of inference, at epoch 5 (step 285), could not be made.",
    )


def test_an_old_check_does_not_pass() -> None:
    """The training went on after it."""
    assert gated(START, last_step=285).reasons == (
        "The last check, at start (step 0), is older than the model: training went on to step 285.",
    )


def test_enough_must_be_compared() -> None:
    """By the last check; how much is up to the caller, and unknown is not enough."""
    few = replace(END, coverage=0.8)
    assert gated(few).reasons == ("The last check compared 0.8 of the variables, less than 0.9.",)
    assert gated(few, min_coverage=0.8)
    assert gated(replace(END, coverage=None)).reasons == (
        "How much the last check compared is unknown.",
    )


def test_epochs_may_be_required() -> None:
    """A check after each must have passed."""
    assert gated(START, check(1, hidden="pass"), END, require_epochs=(1, 5))
    assert gated(START, END, require_epochs=(1, 3, 5)).reasons == (
        "No check passed after epochs 1, 3.",
    )
