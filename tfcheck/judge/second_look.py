"""A second look at what deviates: many more directions, and a point a little aside.

A loss on a kink has no derivative there, and the tape may give any value. A little aside it has
one, and there a right tape agrees; so a variable is judged again with what is found there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tfcheck.judge.judgement import Judgement, doubtful, judge_second_look, kink_share
from tfcheck.judge.verdict import Verdict
from tfcheck.measure.measurement import Measurement, measure_directions, measure_more
from tfcheck.measure.target import Target

Judged = Callable[[Measurement, Target], Judgement]
"""Judges a measurement of a target, before any second look."""


@dataclass(frozen=True)
class Look:
    """What a look at a target came to.

    Attributes:
        judgement: its judgement.
        measurement: what was measured.
        slopes: along the direction that deviates most, where a kink was found there: the slopes to
            the left, by the tape and to the right. Defaults to None.
    """

    judgement: Judgement
    measurement: Measurement
    slopes: tuple[float, float, float] | None = None


def look_again(
    first: Look,
    target: Target,
    aside: Callable[[], Target | None],
    judged: Judged,
    *,
    directions: int,
    seed: int,
    widely: bool = True,
    brief: bool = False,
) -> Look:
    """Judge again with a look a little aside; on a kink, what was measured there counts.

    Args:
        first: what the first look came to.
        target: what was looked at.
        aside: gives the same target at a point a little aside; None where it cannot be had.
        judged: judges what is measured there.
        directions: number of directions.
        seed: seeds them.
        widely: whether doubts about kinks are worth many more directions. Defaults to True.
        brief: whether one direction is enough where it is plainly off. Defaults to False.
    """
    here = first.measurement
    nearby = aside() if here.lines else None
    if nearby is None:
        return first
    there = measure_directions(nearby, directions, None, seed, brief=brief)
    share = _share(target, here, seed, widely=widely)
    seen = judged(there, nearby)
    judgement = judge_second_look(first.judgement, here, seen, share)
    passes = judgement.verdict is Verdict.PASS and seen.verdict is Verdict.PASS
    return Look(judgement, there if passes else here, _slopes(here))


def _slopes(measurement: Measurement) -> tuple[float, float, float] | None:
    """The slopes to the left, by the tape and to the right, where a kink is between them."""
    kinks = [line for line in measurement.lines if line.deviates and line.slope.has_kink]
    if not kinks:
        return None
    line = max(kinks, key=lambda line: line.gap)
    return line.slope.backward, line.analytic, line.slope.forward


def _share(target: Target, here: Measurement, seed: int, *, widely: bool) -> float | None:
    """The share of kinks along many more directions, where those measured leave a doubt."""
    deviating = [line for line in here.lines if line.deviates]
    kinks = deviating and all(line.slope.has_kink for line in deviating)
    if not kinks or not doubtful(deviating):
        return 0.0
    if not widely:
        return None
    return kink_share(measure_more(target, deviating[0].slope.step, seed))
