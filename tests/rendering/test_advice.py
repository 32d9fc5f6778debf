"""Advice: where to look first."""

from __future__ import annotations

import dataclasses
import math

import pytest
from reports import FAILING, PASSING, report, variable

from tfcheck.checker import check_alone
from tfcheck.judge.verdict import Verdict
from tfcheck.rendering import words
from tfcheck.rendering.advice import advice
from tfcheck.report.rows import Coordinate
from tfcheck.reproduce.case import Case
from tfcheck.reproduce.evidence import Evidence
from tfcheck.settings import Settings


def test_advice_starts_at_the_culprit() -> None:
    """The first step names the layer whose own backward pass is wrong."""
    first = advice(dataclasses.replace(FAILING, culprits=("swish",)))[0]
    assert first.startswith("Start with `swish`")


def test_advice_without_a_culprit() -> None:
    """Without a culprit the first step is the failing layer nearest to the loss."""
    found = report(variable("a/w", 0.5), variable("b/w", 0.5), variable("c/w"))
    assert "here `b`" in advice(found)[0]


def test_advice_tells_dw_from_db() -> None:
    """When only the bias of a layer fails, the advice says so."""
    assert any("`dense` only `bias` is wrong while `kernel` is right" in s for s in advice(FAILING))
    both = report(variable("dense/kernel", 0.5), variable("dense/bias", 0.5))
    assert not any("is wrong while" in sentence for sentence in advice(both))


def test_advice_does_not_blame_a_layer_before_the_origin() -> None:
    """A layer that fails before another failing one is not said to have a wrong formula."""
    before = (variable("conv/kernel", 0.5), variable("conv/bias"))
    after = (variable("dense/kernel", 0.5), variable("dense/bias", 0.5))
    told = " ".join(advice(report(*before, *after)))
    assert "here `dense`" in told
    assert "is wrong while" not in told


def test_advice_takes_no_unused_variable_for_a_right_one() -> None:
    """A variable that passes because it hardly matters says nothing of the one that fails."""
    small = variable("dense/bias", math.nan, verdict=Verdict.PASS, reason="below_resolution")
    told = " ".join(advice(report(variable("dense/kernel", 0.5), small)))
    assert "is wrong while" not in told


@pytest.mark.parametrize(
    ("reason", "told"), [("blocked", "what blocks the gradient"), ("non_finite", "NaN or infinity")]
)
def test_advice_on_reasons(reason: str, told: str) -> None:
    """Blocked and non-finite gradients get advice of their own, and only they do."""
    broken = variable("dense/kernel", math.nan, verdict=Verdict.FAIL, reason=reason)
    assert told in " ".join(advice(report(broken)))
    assert told not in " ".join(advice(FAILING))


def test_advice_on_what_is_in_no_layer() -> None:
    """What is in no layer is not said to have been checked alone."""
    told = " ".join(advice(dataclasses.replace(FAILING, culprits=("train_step",))))
    assert told.startswith("Start with `train_step`: no layer is wrong by itself")
    assert "checked alone" not in told


def test_advice_on_other_layers_where_there_are_some() -> None:
    """Other failing layers are spoken of where there are any: a layer by itself has none."""
    one = report(variable("dense/kernel", 0.5))
    told = " ".join(advice(dataclasses.replace(one, culprits=("dense",))))
    assert "Start with `dense`" in told
    assert "ther failing layers" not in told
    two = report(variable("before/kernel", 0.5), variable("dense/kernel", 0.5))
    told = " ".join(advice(dataclasses.replace(two, culprits=("dense",))))
    assert "Other failing layers may only receive" in told


def test_advice_on_a_layer_by_itself_without_a_culprit() -> None:
    """A layer that was checked by itself has no loss and no train_step to look at."""
    alone = report(variable("dense/kernel", 0.5))
    alone = dataclasses.replace(
        alone, objective=dataclasses.replace(alone.objective, source="layer")
    )
    assert advice(alone)[0] == "The mistake is in this layer: nothing else was differentiated."


def test_more_directions_help_where_the_score_is_in_doubt() -> None:
    """More directions are advised for suspect scores, not for what the step does."""
    untrained = variable("dense/bias", math.nan, verdict=Verdict.SUSPECT, reason="untrained")
    doubtful = variable("dense/kernel", 1e-4, verdict=Verdict.SUSPECT)
    (told,) = advice(report(untrained))
    assert "more directions" not in told
    assert "the derivatives themselves are right" in told
    again, step = advice(report(untrained, doubtful))
    assert again.startswith("Look again at `dense/kernel`: check with more directions")
    assert step.startswith("Look at what the training step does")
    assert "are right" not in step
    latent = variable("dense/kernel", 0.0, verdict=Verdict.SUSPECT)
    told = " ".join(advice(dataclasses.replace(report(latent), culprits=("swish",))))
    assert "Start with `swish`" in told
    assert "more directions" not in told


def test_advice_on_failures_and_the_step() -> None:
    """Where a derivative is wrong and the step leaves something out, both are advised on."""
    untrained = variable("dense/bias", math.nan, verdict=Verdict.SUSPECT, reason="untrained")
    told = advice(report(untrained, variable("dense/kernel", 0.5)))
    assert told[0].startswith("Start with")
    assert told[-1].startswith("Look at what the training step does")


def test_a_pattern_is_not_to_be_looked_for_again() -> None:
    """Coordinates need not be compared where their pattern is told, or where there is no slope."""
    coordinate = Coordinate((0,), 1.0, 2.0, 1e-9)
    plain = variable("dense/kernel", 0.5, worst=(coordinate,))
    factor = dataclasses.replace(plain, pattern="The numerical gradient is 2 times the tape's.")
    assert any("Compare the worst" in step for step in advice(report(plain)))
    assert not any("Compare the worst" in step for step in advice(report(factor)))


def test_a_note_says_it_alone() -> None:
    """What a note says of a variable is not said again in the words for its reason."""
    broken = variable("dense/kernel", math.nan, verdict=Verdict.FAIL, reason="blocked")
    noted = dataclasses.replace(broken, note="Blocked by `ArgMax` at train.py:57 in `pick`.")
    assert words.variable_sentences(noted) == (noted.note,)
    assert "cuts the gradient off" in words.variable_sentences(broken)[0]


def test_advice_on_unit_tests() -> None:
    """Where a test of the culprit can be made it is named, but not beside a layer checked alone."""
    evidence = Case(Evidence("swish", "swish", Settings()), check_alone)
    found = dataclasses.replace(FAILING, culprits=("swish",), evidence=(evidence,))
    assert '`report.reproduce("tests")`' in advice(found)[1]
    refused = (
        Case(Evidence("swish", "swish", Settings(), refusal="It has no config."), check_alone),
    )
    alone = dataclasses.replace(found.objective, source="layer")
    for other in ({"evidence": refused}, {"objective": alone}, {"evidence": ()}):
        assert "reproduce" not in " ".join(advice(dataclasses.replace(found, **other)))


def test_no_advice_where_all_is_well() -> None:
    """A report that passes asks for nothing."""
    assert advice(PASSING) == ()
