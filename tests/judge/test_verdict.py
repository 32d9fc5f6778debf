from __future__ import annotations

import itertools
import math
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfcheck.errors import ArgumentError
from tfcheck.judge.verdict import MOST_DIGITS, Thresholds, Verdict, digits, worst

VERDICTS = st.sampled_from(Verdict)
LIMITS = st.floats(min_value=0, max_value=1, exclude_min=True)
# Strictly rising, so that every band between them is more than a point.
RISING = st.lists(LIMITS, min_size=3, max_size=3, unique=True).map(sorted)
SCORES = st.floats(min_value=0, max_value=1)
BANDS = ("great", "okay", "suspect", "concerning")


def test_severity_order() -> None:
    """Pass, inconclusive, suspect, error, fail: each weighs more than the one before."""
    assert sorted(Verdict, key=lambda verdict: verdict.severity) == [
        Verdict.PASS,
        Verdict.INCONCLUSIVE,
        Verdict.SUSPECT,
        Verdict.ERROR,
        Verdict.FAIL,
    ]
    assert len({verdict.severity for verdict in Verdict}) == len(Verdict)


def test_a_verdict_is_its_word() -> None:
    """A verdict compares, prints and parses as the plain word that reports store."""
    assert Verdict("fail") is Verdict.FAIL
    assert f"{Verdict.FAIL}" == str(Verdict.FAIL) == "fail"
    assert {"fail": "found"}[Verdict.FAIL] == "found"


@given(st.lists(VERDICTS, min_size=1))
def test_worst_is_the_most_severe(verdicts: list[Verdict]) -> None:
    """The worst verdict is one of those given, and none given is more severe."""
    assert worst(verdicts) in verdicts
    assert all(verdict.severity <= worst(verdicts).severity for verdict in verdicts)


@given(st.lists(VERDICTS, min_size=1), st.randoms())
def test_worst_ignores_order(verdicts: list[Verdict], random: object) -> None:
    """The worst verdict does not depend on the order of the layers."""
    assert worst(verdicts) is worst(reversed(verdicts)) is worst(sorted(verdicts))


@given(st.lists(VERDICTS, min_size=1), st.lists(VERDICTS, min_size=1))
def test_worst_of_parts_is_worst_of_all(some: list[Verdict], others: list[Verdict]) -> None:
    """Judging layers first and the model from its layers gives the verdict of all variables."""
    assert worst([worst(some), worst(others)]) is worst(some + others)


@given(st.lists(VERDICTS))
def test_worst_takes_any_iterable(verdicts: list[Verdict]) -> None:
    """A generator of verdicts, which can be read only once, is judged like a list."""
    assert worst(verdict for verdict in verdicts) is worst(verdicts)


def test_nothing_checked_is_not_a_pass() -> None:
    """Of no verdicts the worst is inconclusive, never pass."""
    assert worst([]) is Verdict.INCONCLUSIVE


def test_default_thresholds() -> None:
    """The default bands are those of classical gradient checking."""
    assert Thresholds() == Thresholds(great=1e-7, okay=1e-5, concerning=1e-3)


@given(RISING)
def test_rising_thresholds_are_accepted(limits: list[float]) -> None:
    """Any limits in rising order within (0, 1] make bands."""
    great, okay, concerning = limits
    thresholds = Thresholds(great, okay, concerning)
    assert (thresholds.great, thresholds.okay, thresholds.concerning) == (great, okay, concerning)


@given(LIMITS.filter(lambda limit: limit < 1))
def test_the_okay_band_may_be_empty(limit: float) -> None:
    """`great` may equal `okay`: then no score is merely okay."""
    assert Thresholds(limit, limit, 1.0).band(limit) == "great"


@given(RISING)
def test_unordered_thresholds_are_refused(limits: list[float]) -> None:
    """Limits in any order but the rising one are refused, and the message shows them."""
    for order in itertools.permutations(limits):
        if list(order) != limits:
            with pytest.raises(ArgumentError) as caught:
                Thresholds(*order)
            assert repr(order) in str(caught.value)


@pytest.mark.parametrize("position", range(3))
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1e-7, 0.0, 1.5])
def test_thresholds_outside_the_unit_interval_are_refused(position: int, value: float) -> None:
    """No limit can be nan, infinite, zero, negative, or above the largest possible score."""
    limits = [1e-7, 1e-5, 1e-3]
    limits[position] = value
    with pytest.raises(ArgumentError):
        Thresholds(*limits)


def test_empty_suspect_band_is_refused() -> None:
    """`okay` must be below `concerning`: a score cannot both pass and be most likely a bug."""
    with pytest.raises(ArgumentError):
        Thresholds(okay=1e-3, concerning=1e-3)


def test_thresholds_message() -> None:
    """The message says the rule, the values received and what to do."""
    with pytest.raises(ArgumentError) as caught:
        Thresholds(okay=0.1)
    assert str(caught.value) == (
        "Thresholds must satisfy 0 < great <= okay < concerning <= 1. "
        "Received: (great, okay, concerning)=(1e-07, 0.1, 0.001). "
        "Give them in that order, for example Thresholds(1e-7, 1e-5, 1e-3)."
    )


def test_thresholds_are_frozen() -> None:
    """The bands of a report cannot change after the judgement."""
    with pytest.raises(FrozenInstanceError):
        Thresholds().okay = 1.0  # type: ignore[misc]


@given(RISING)
def test_band_limits(limits: list[float]) -> None:
    """A score on a limit is in the better band up to `okay`, in the worse one at `concerning`."""
    great, okay, concerning = limits
    thresholds = Thresholds(great, okay, concerning)
    assert thresholds.band(0.0) == "great"
    assert thresholds.band(great) == "great"
    assert thresholds.band(math.nextafter(great, 1)) == "okay"
    assert thresholds.band(okay) == "okay"
    assert thresholds.band(math.nextafter(concerning, 0)) in ("okay", "suspect")
    assert thresholds.band(concerning) == "concerning"
    assert thresholds.band(1.0) == "concerning"


@given(RISING, SCORES, SCORES)
def test_a_higher_score_is_never_in_a_better_band(
    limits: list[float], score: float, other: float
) -> None:
    """Bands follow the score: great, okay, suspect, concerning."""
    low, high = sorted((score, other))
    thresholds = Thresholds(*limits)
    assert BANDS.index(thresholds.band(low)) <= BANDS.index(thresholds.band(high))


def test_an_unknown_score_has_no_band() -> None:
    """A score of nan is unknown, not great and not concerning."""
    assert Thresholds().band(math.nan) == "unknown"


@given(st.floats(min_value=1e-15, max_value=1))
def test_digits_count_the_zeros_of_the_score(score: float) -> None:
    """A score of 10⁻ᵈ means that d digits agree."""
    assert 10 ** -digits(score) == pytest.approx(score, rel=1e-9)


@given(SCORES, SCORES)
def test_a_higher_score_never_has_more_digits(score: float, other: float) -> None:
    """Digits fall as the score rises, and stay between 0 and 16."""
    low, high = sorted((score, other))
    assert 0 <= digits(high) <= digits(low) <= MOST_DIGITS == 16


def test_unknown_digits_count_as_none() -> None:
    """A score that is not a finite number never looks like agreement; a perfect one has 16."""
    assert digits(math.nan) == digits(math.inf) == digits(-math.inf) == 0
    assert digits(0.0) == MOST_DIGITS


@pytest.mark.parametrize(
    ("score", "expected"),
    [(1e-3, 3), (1e-7, 7), (1.0, 0), (5.0, 0), (0.0, 16), (1e-20, 16), (5e-324, 16)],
)
def test_digits(score: float, expected: float) -> None:
    """Digits are −log10 of the score, between 0 and 16."""
    assert digits(score) == pytest.approx(expected)
