"""Judging: bands with bars, what is below resolution, and what a second look may conclude."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tfcheck import Thresholds, Verdict
from tfcheck.judge.judgement import (
    Judgement,
    judge_measurement,
    judge_missing,
    judge_score,
    judge_second_look,
)
from tfcheck.measure.differences import Slope
from tfcheck.measure.measurement import Measurement
from tfcheck.measure.target import Line

SCORES = st.floats(0, 1)
BARS = st.floats(0, 2)
PASS, SUSPECT, FAIL, OPEN = Verdict.PASS, Verdict.SUSPECT, Verdict.FAIL, Verdict.INCONCLUSIVE


# -- scores ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("score", "bar", "verdict"),
    [
        (0.0, 0.0, PASS),
        (1e-9, 1e-10, PASS),
        (1e-7, 0.0, PASS),
        (1e-5, 0.0, PASS),
        (1e-5, 9e-4, PASS),
        (1e-5, 1e-3, OPEN),
        (1.1e-5, 0.0, SUSPECT),
        (9.9e-4, 0.0, SUSPECT),
        (5e-4, 4e-4, SUSPECT),
        (5e-4, 4.95e-4, PASS),
        (6e-4, 6e-4, OPEN),
        (1e-3, 0.0, FAIL),
        (1.0, 0.9, FAIL),
        (1.0, 0.9995, SUSPECT),
        (1.0, 1.0, OPEN),
        (0.3, 0.5, OPEN),
        (0.0, math.inf, OPEN),
        (math.nan, 0.0, OPEN),
        (0.0, math.nan, OPEN),
        (math.inf, 0.0, FAIL),
    ],
)
def test_judge_score(score: float, bar: float, verdict: Verdict) -> None:
    """The bands hold for what is left of a score beyond its bar; a wide bar allows no pass."""
    assert judge_score(score, bar, Thresholds()) is verdict


@given(SCORES)
def test_without_a_bar_the_bands_decide(score: float) -> None:
    """A score that is known exactly gets the verdict of its band."""
    band = Thresholds().band(score)
    expected = {"great": PASS, "okay": PASS, "suspect": SUSPECT, "concerning": FAIL}[band]
    assert judge_score(score, 0.0, Thresholds()) is expected


@given(SCORES, SCORES, BARS)
def test_a_higher_score_is_no_excuse(one: float, other: float, bar: float) -> None:
    """At one and the same bar a higher score never gets a milder verdict."""
    low, high = sorted((one, other))
    better, worse = (judge_score(score, bar, Thresholds()) for score in (low, high))
    assert better.severity <= worse.severity


@given(SCORES, BARS, BARS)
def test_a_wider_bar_accuses_less(score: float, one: float, other: float) -> None:
    """A wider bar never turns a lesser accusation into a greater one, nor doubt into a pass."""
    narrow, wide = sorted((one, other))
    by_narrow, by_wide = (judge_score(score, bar, Thresholds()) for bar in (narrow, wide))
    if by_wide in (SUSPECT, FAIL):
        assert by_wide.severity <= by_narrow.severity
    if by_wide is PASS:
        assert by_narrow is not OPEN


@given(SCORES, BARS)
def test_a_failure_is_beyond_the_bar(score: float, bar: float) -> None:
    """Nothing fails that its bar could explain, and nothing passes that a bar could hide."""
    verdict = judge_score(score, bar, Thresholds())
    if verdict is FAIL:
        assert score - bar >= 1e-3
    if verdict is PASS:
        assert bar < 1e-3
        assert score < 1e-3


@given(SCORES, BARS, st.floats(1e-9, 1e-4), st.floats(1e-9, 1e-4))
def test_a_higher_threshold_is_milder(score: float, bar: float, one: float, other: float) -> None:
    """Raising `okay` never makes an accusation of what was none."""
    assume(one != other)
    strict, lenient = (Thresholds(great=1e-9, okay=okay) for okay in sorted((one, other)))
    if judge_score(score, bar, lenient) in (SUSPECT, FAIL):
        assert judge_score(score, bar, strict) in (SUSPECT, FAIL)


# -- measurements ----------------------------------------------------------------------------


def line(
    analytic: float = 1.0,
    value: float = 1.0,
    bar: float = 1e-9,
    *,
    sides: tuple[float, float] | None = None,
    roundoff: float = 0.0,
    first_gap: float = 0.0,
    first_smooth: bool = True,
) -> Line:
    """A line with the tape's slope and a measured one."""
    left, right = sides or (value, value)
    slope = Slope(value, bar, roundoff, 1e-16, 1e-5, right, left, 1e-8, smooth=True)
    return Line(analytic, slope, first_gap, first_smooth)


def measured(*lines: Line, norm: float | None = None) -> Measurement:
    """A measurement from lines."""
    gaps = sum(x.gap**2 for x in lines)
    numerical, analytic = (sum(v**2 for v in vs) for vs in zip(*((x.slope.value, x.analytic) for x in lines), strict=True))  # fmt: skip  # noqa: E501
    bars = sum(x.slope.error_bar**2 for x in lines)
    exact = math.sqrt(analytic) if norm is None else norm
    return Measurement(lines, gaps, numerical, analytic, bars, exact)


def judged(measurement: Measurement, loudest: float = 1.0) -> Judgement:
    """The judgement with the ordinary bands."""
    return judge_measurement(measurement, Thresholds(), loudest, 1.0)


def test_equal_gradients_pass() -> None:
    """Gradients that agree within the bar pass without a reason."""
    assert judged(measured(line(), line(2.0, 2.0))) == Judgement(PASS)


def test_different_gradients_fail() -> None:
    """Gradients that differ far beyond the bar fail."""
    assert judged(measured(line(1.0, 2.0), line(3.0, 3.1))).verdict is FAIL


def test_a_pass_over_a_crossed_kink_says_so() -> None:
    """Where the first step crossed a kink, a pass names it."""
    crossed = line(first_gap=0.5, first_smooth=False)
    assert judged(measured(line(), crossed)).reason == "kink"
    assert judged(measured(line(), line(first_gap=0.5, first_smooth=True))).reason == ""
    assert judged(measured(line(), line(first_gap=1e-9, first_smooth=False))).reason == ""


def test_zero_within_the_bar_is_below_resolution() -> None:
    """Two gradients of zero pass where the bar is negligible beside the loudest variable."""
    silent = measured(line(0.0, 1e-9, 1e-9))
    found = judged(silent)
    assert (found.verdict, found.reason) == (PASS, "below_resolution")
    assert found.note == "Both gradients are zero within the error bar."


def test_zero_within_a_wide_bar_is_open() -> None:
    """Where the bar could hide a gradient that matters, the answer stays open."""
    vague = measured(line(0.0, 1e-3, 1e-3))
    assert judged(vague, loudest=1.0).verdict is OPEN
    assert judged(vague, loudest=1.0).reason == "below_resolution"
    assert judged(vague, loudest=1e3).verdict is PASS


def test_a_real_gradient_is_not_below_resolution() -> None:
    """A tape's gradient far beyond the bar is no zero, whatever was measured."""
    assert judged(measured(line(1.0, 0.0, 1e-9))).reason == ""
    assert judged(measured(line(1.0, 0.0, 1e-9))).verdict is FAIL
    assert judged(measured(line(0.0, 1.0, 1e-9))).verdict is FAIL


def test_unknown_is_open() -> None:
    """What could not be measured is neither a pass nor a failure."""
    nan = math.nan
    assert judged(measured(line(1.0, nan, nan))).verdict is OPEN


# -- no gradient at all ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dependent", "verdict", "reason"), [(False, PASS, "unused"), (True, FAIL, "blocked")]
)
def test_judge_missing(dependent: bool, verdict: Verdict, reason: str) -> None:
    """None is right for a variable that the loss ignores, and wrong for every other."""
    found = judge_missing(dependent)
    assert (found.verdict, found.reason) == (verdict, reason)
    assert found.note


def test_what_the_tape_raises_is_told() -> None:
    """Where the tape raises, the note says what."""
    assert "LookupError: no gradient" in judge_missing(True, "LookupError: no gradient").note


# -- a second look ---------------------------------------------------------------------------

FAILED, DOUBTFUL = Judgement(FAIL), Judgement(OPEN)
KINK = measured(line(0.0, 0.5, 1e-9, sides=(0.0, 1.0)))
WRONG_HERE = measured(line(0.0, 1.0, 1e-9))
UNSETTLED = measured(line(0.0, 0.5, 1e-9, sides=(0.0, 2e-8)))
NEARBY = {"right": Judgement(PASS), "wrong": Judgement(FAIL), "unknown": None}


@pytest.mark.parametrize("nearby", ["wrong", "unknown"])
@pytest.mark.parametrize("first", [FAILED, DOUBTFUL, Judgement(SUSPECT)])
def test_only_agreement_nearby_excuses(first: Judgement, nearby: str) -> None:
    """Where it is wrong a little aside as well, or unknown, the first judgement stands."""
    for here in (KINK, WRONG_HERE, UNSETTLED):
        if (here, nearby) != (KINK, "unknown"):
            assert judge_second_look(first, here, NEARBY[nearby]) == first


@pytest.mark.parametrize("first", [FAILED, Judgement(SUSPECT)])
def test_slopes_of_a_kink_excuse_what_lies_between_them(first: Judgement) -> None:
    """Where nothing is known aside, a tape on one side of a kink or between passes, beyond not."""
    for tape in (0.0, 0.3, 1.0):
        here = measured(line(tape, 0.5, 1e-9, sides=(0.0, 1.0)))
        found = judge_second_look(first, here, None)
        assert (found.verdict, found.reason) == (PASS, "kink")
    beyond = measured(line(1.1, 0.5, 1e-9, sides=(0.0, 1.0)))
    assert judge_second_look(first, beyond, None) == first


def test_kinks_closer_together_than_any_step_stay_open() -> None:
    """Slopes to the sides that differ and do not settle accuse nobody."""
    slope = Slope(0.5, 1e-9, 0.0, 1e-16, 1e-11, 1.0, 0.0, 0.4, smooth=True)
    crowded = measured(Line(0.0, slope, 0.5, first_smooth=False))
    found = judge_second_look(FAILED, crowded, NEARBY["wrong"])
    assert (found.verdict, found.reason) == (OPEN, "kink")


def test_a_kink_passes() -> None:
    """Slopes that differ to both sides, and agreement nearby: a kink, and no bug."""
    found = judge_second_look(FAILED, KINK, NEARBY["right"])
    assert (found.verdict, found.reason) == (PASS, "kink")


def test_wrong_here_and_right_nearby_fails() -> None:
    """Slopes that agree with each other and not with the tape: wrong at this very point."""
    found = judge_second_look(FAILED, WRONG_HERE, NEARBY["right"])
    assert (found.verdict, found.reason) == (FAIL, "")
    assert found.note.startswith("Wrong at this point, right nearby")


def test_one_smooth_wrong_line_outweighs_kinks() -> None:
    """A kink along some lines excuses no wrong slope along another."""
    mixed = measured(*KINK.lines, *WRONG_HERE.lines)
    assert judge_second_look(FAILED, mixed, NEARBY["right"]).verdict is FAIL


def test_unsettled_sides_stay_open() -> None:
    """Where the sides neither differ nor agree on another slope than the tape, it stays open."""
    found = judge_second_look(FAILED, UNSETTLED, NEARBY["right"])
    assert found.verdict is OPEN


def test_doubt_passes_where_a_look_aside_settles_it() -> None:
    """An open answer becomes a pass where the shape of the loss caused it, or nothing deviated."""
    shape = measured(line(1.0, 1.0, 1.0))
    noise = measured(line(1.0, 1.0, 0.0, roundoff=1.0))
    assert judge_second_look(DOUBTFUL, shape, NEARBY["right"]).reason == "kink"
    assert judge_second_look(DOUBTFUL, noise, NEARBY["right"]).verdict is PASS


def test_doubt_from_noise_stays_where_something_deviates() -> None:
    """Noise that hides a difference larger than its error bar is no ground for a pass."""
    noise = measured(line(1.0, 5.0, 0.0, roundoff=1.0))
    assert judge_second_look(DOUBTFUL, noise, NEARBY["right"]) == DOUBTFUL


@pytest.mark.parametrize(
    ("first", "here", "nearby"),
    itertools.product([FAILED, DOUBTFUL], [KINK, WRONG_HERE, UNSETTLED], NEARBY),
)
def test_a_second_look_never_accuses(first: Judgement, here: Measurement, nearby: str) -> None:
    """A second look may excuse; it never makes a verdict worse."""
    found = judge_second_look(first, here, NEARBY[nearby])
    assert found.verdict.severity <= first.verdict.severity
