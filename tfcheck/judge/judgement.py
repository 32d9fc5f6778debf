"""What a measurement says of a gradient: right, wrong, or that nothing can be said.

A difference counts as a bug only when it exceeds what truncation, round-off and noise explain,
and does not belong to a kink. Where the bars do not allow an answer, the verdict says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tfcheck.judge.reasons import Reason
from tfcheck.judge.verdict import Thresholds, Verdict
from tfcheck.measure.measurement import Measurement
from tfcheck.measure.target import Line

_KINK_PART = 0.05
"""A kink explains a gap of at most twenty times its own size; sums of kinks need some leeway."""

_UNRESOLVED = 8
"""Gradients within this many error bars of zero are below resolution."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict with its reason and a sentence for a reader."""

    verdict: Verdict
    reason: str = ""
    note: str = ""

    @property
    def accuses(self) -> bool:
        """Whether it says that something is wrong, or may be."""
        return self.verdict in (Verdict.FAIL, Verdict.SUSPECT)


def worse(first: Judgement, *others: Judgement | None) -> Judgement:
    """The worst of several judgements, the earliest of those at a tie; None is no judgement."""
    judgements = (first, *(other for other in others if other is not None))
    return max(judgements, key=lambda judgement: judgement.verdict.severity)


def judge_score(score: float, bar: float, thresholds: Thresholds) -> Verdict:
    """The verdict for a score that is only known to within a bar.

    Args:
        score: the similarity score.
        bar: the score that a right gradient might show.
        thresholds: the bands.

    Returns:
        fail when even the score less its bar is concerning; suspect when it is still more than
        okay; pass when it is okay and a concerning score would not have been hidden by the bar;
        inconclusive otherwise.

    Example:
        >>> judge_score(2e-9, 1e-9, Thresholds()), judge_score(0.3, 0.5, Thresholds())
        (<Verdict.PASS: 'pass'>, <Verdict.INCONCLUSIVE: 'inconclusive'>)
    """
    if math.isnan(score) or math.isnan(bar):
        return Verdict.INCONCLUSIVE
    surely = score - bar
    if surely >= thresholds.concerning:
        return Verdict.FAIL
    if surely > thresholds.okay:
        return Verdict.SUSPECT
    # What is left of the score within the bar is no evidence, but must not hide a bug either.
    hidden = bar if score <= thresholds.okay else score + bar
    return Verdict.PASS if hidden < thresholds.concerning else Verdict.INCONCLUSIVE


def judge_measurement(
    measurement: Measurement,
    thresholds: Thresholds,
    loudest: float,
    scale: float,
    coarse: float = 0.0,
) -> Judgement:
    """Judge a variable at one point, before any second look.

    Args:
        measurement: what was measured.
        thresholds: the bands.
        loudest: the largest scaled gradient norm of the same loss.
        scale: size of a natural change of the variable.
        coarse: the part of the loudest gradient that the precision of the loss does not resolve.
            Defaults to 0.
    """
    verdict = judge_score(measurement.score, measurement.score_bar, thresholds)
    if verdict is Verdict.PASS:
        crossed = any(
            not line.first_smooth and line.first_gap > thresholds.okay * _size(line)
            for line in measurement.lines
        )
        return Judgement(verdict, Reason.KINK if crossed else "")
    bar = math.sqrt(measurement.bar_square)
    largest = max(math.sqrt(measurement.numerical_square), measurement.analytic_norm)
    within = measurement.gap_square <= measurement.bar_square
    unseen = bar if within else _UNRESOLVED * bar
    negligible = unseen * scale <= max(thresholds.okay, coarse) * loudest
    if largest <= _UNRESOLVED * bar:
        open_or_pass = Verdict.PASS if negligible else Verdict.INCONCLUSIVE
        return Judgement(open_or_pass, Reason.BELOW_RESOLUTION, _ZERO_WITHIN)
    if verdict is Verdict.INCONCLUSIVE and within and negligible:
        return Judgement(Verdict.PASS, Reason.BELOW_RESOLUTION, _SMALL_BESIDE)
    return Judgement(verdict)


def detectable_error(measurement: Measurement, reason: str, thresholds: Thresholds) -> float:
    """The smallest ‖ĝ − g‖ that would have been told.

    Args:
        measurement: what was measured.
        reason: why it was judged as it was: two gradients count as zero within several bars.
        thresholds: the bands.
    """
    bar = math.sqrt(measurement.bar_square)
    norms = math.sqrt(measurement.numerical_square) + math.sqrt(measurement.analytic_square)
    told = bar + thresholds.okay * norms
    beyond = measurement.gap_square > told * told
    return 2 * _UNRESOLVED * bar if reason == Reason.BELOW_RESOLUTION and beyond else told


_ZERO_WITHIN = "Both gradients are zero within the error bar."
_SMALL_BESIDE = "Small beside the others: within the error bar both are equal."


UNUSED = Judgement(Verdict.PASS, Reason.UNUSED, "The loss does not use this variable.")
"""Of a variable that a loss does not depend on."""


def judge_missing(dependent: bool, raised: str = "") -> Judgement:
    """Judge a variable for which the tape gave None.

    Args:
        dependent: whether the loss changes when the variable moves.
        raised: what the tape raised instead of giving gradients. Defaults to `""`.
    """
    if not dependent:
        return UNUSED
    if raised:
        return Judgement(Verdict.FAIL, Reason.BLOCKED, f"The tape raises {raised}")
    return Judgement(
        Verdict.FAIL,
        Reason.BLOCKED,
        f"The tape gives None, yet the loss depends on this variable: blocked by {BLOCKING}.",
    )


BLOCKING = "something on the way (an argmax, a cast to integers, a stop_gradient, a NumPy call)"
"""What blocks a gradient, where no more is known."""

JUMPING = "something on the way (a sign, a comparison, a rounding)"
"""What has no slope, where no more is known."""

JUMPS_ALONE = Judgement(
    Verdict.FAIL,
    Reason.BLOCKED,
    "The tape's gradient is zero throughout, and the loss depends on this variable in jumps alone: "
    f"there is no slope to train by in {JUMPING}.",
)
"""Of a variable whose gradients are zero because nothing has a slope."""


def judge_second_look(
    first: Judgement, here: Measurement, nearby: Judgement | None, share: float | None = None
) -> Judgement:
    """Judge again a variable that deviates, knowing how it fares at a point nearby.

    On a kink the slopes to the left and right differ and the tape may give any value between or
    beside them; a little aside everything agrees. Where both slopes agree with each other and not
    with the tape, the gradient is wrong at this very point, however right it is nearby.

    Args:
        first: the judgement at the point.
        here: what was measured there.
        nearby: the judgement a little aside, None where it could not be made.
        share: the `kink_share` along many more directions. Defaults to None, to go by those here.
    """
    right_nearby = nearby is not None and nearby.verdict is Verdict.PASS
    deviating = [line for line in here.lines if line.deviates]
    on_kink = bool(deviating) and all(line.slope.has_kink for line in deviating)
    if first.verdict is Verdict.INCONCLUSIVE:
        if right_nearby and not _noisy(here):
            return _aside(nearby, Reason.KINK, _KINK)
        if right_nearby and here.gap_square <= here.bar_square:
            return _aside(nearby, "", _WIDE)
        return first
    if not right_nearby:
        accused = nearby is not None and nearby.verdict is not Verdict.INCONCLUSIVE
        if on_kink and not accused and all(map(between, deviating)):
            return Judgement(Verdict.PASS, Reason.KINK, _BETWEEN)
        if deviating and all(map(unsettled, deviating)):
            return Judgement(Verdict.INCONCLUSIVE, Reason.KINK, _UNSETTLED)
        return first
    # Kinks of several terms may all but cancel along one direction; along several they do not.
    if on_kink and (doubtful(deviating) if share is None else share > _SURE_SHARE):
        return Judgement(first.verdict, "", _MORE_THAN_KINKS)
    if on_kink:
        return _aside(nearby, Reason.KINK, _KINK)
    if any(settled(line) for line in deviating):
        return Judgement(
            first.verdict,
            "",
            "Wrong at this point, right nearby: the slopes to both sides agree with each other and "
            "not with the tape. Exact zeros and ties are where this happens.",
        )
    return Judgement(Verdict.INCONCLUSIVE, Reason.KINK, _UNSETTLED)


def _aside(nearby: Judgement | None, reason: str, note: str) -> Judgement:
    """A pass for what was found a little aside, whose numbers are shown then."""
    small = nearby is not None and nearby.reason == Reason.BELOW_RESOLUTION
    return Judgement(Verdict.PASS, Reason.BELOW_RESOLUTION if small else reason, note)


_WIDE = (
    "At this point the error bar is too wide to tell; a little aside, where these numbers are "
    "from, both gradients agree."
)
_KINK = (
    "The loss has a kink at this point; a little aside, where these numbers are from, both "
    "gradients agree."
)
_BETWEEN = "The loss has a kink at this point; the tape's slopes lie between those to its sides."
_UNSETTLED = (
    "The slopes to the left and to the right have not settled at the smallest step: kinks lie "
    "closer together than that."
)


def between(line: Line) -> bool:
    """Whether the tape's slope is one that a kink allows: between those to its sides."""
    slope = line.slope
    leeway = slope.one_sided_bar + slope.roundoff
    return lies_between(line.analytic, slope.forward, slope.backward, leeway)


def lies_between(number: float, one: float, other: float, leeway: float) -> bool:
    """Whether a number lies between two others, or beside them by no more than a leeway."""
    return min(one, other) - leeway <= number <= max(one, other) + leeway


def unsettled(line: Line) -> bool:
    """Whether slopes to the sides differ by as much as the gap, and change from step to step."""
    slope = line.slope
    return abs(slope.forward - slope.backward) > line.gap / 2 and slope.one_sided_bar > line.gap / 4


def kink_share(lines: Sequence[Line]) -> float:
    """How large the gaps are, beside the kinks found along the same lines.

    The tape's slope lies between those to the left and right of each single kink. Summed over kinks
    of either sign it need not, but over random directions the gaps stay below the kinks.
    """
    gaps = math.hypot(*(line.gap for line in lines))
    kinks = math.hypot(*(line.slope.forward - line.slope.backward for line in lines))
    return gaps / kinks if kinks else math.inf


def doubtful(lines: Sequence[Line]) -> bool:
    """Whether gaps along a few directions are larger than kinks are likely to explain."""
    return kink_share(lines) > _LIKELY_SHARE


_LIKELY_SHARE = 1.0
_SURE_SHARE = 1.4
_MORE_THAN_KINKS = (
    "Wrong at this point, right nearby: the loss has kinks here, but they explain only a part of "
    "the difference. Exact zeros and ties are where this happens."
)


def settled(line: Line) -> bool:
    """Whether both one-sided slopes agree, beside the gap, and the tape disagrees with them."""
    slope = line.slope
    apart = abs(slope.forward - slope.backward)
    middle = (slope.forward + slope.backward) / 2
    together = apart <= max(4 * slope.one_sided_bar, _KINK_PART * line.gap)
    return together and abs(middle - line.analytic) > 4 * slope.one_sided_bar


def _noisy(measurement: Measurement) -> bool:
    """Whether round-off rather than the shape of the loss limits the measurement."""
    return all(line.slope.roundoff >= line.slope.truncation for line in measurement.lines)


def _size(line: Line) -> float:
    return abs(line.slope.value) + abs(line.analytic)
