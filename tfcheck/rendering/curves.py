"""What there is to draw and to say of curves, for pages and figures alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tfcheck.errors import ArgumentError, rule, some
from tfcheck.rendering import words
from tfcheck.report.curves import Curves
from tfcheck.report.outcome import Outcome
from tfcheck.report.rows import VariableReport

CLASSICAL_STEP = 1e-7
"""The step of the classical recipe, which float32 does not resolve."""

LOWEST_SCORE = 1e-16
"""Where scores end on a logarithmic axis."""


@dataclass(frozen=True, slots=True)
class Tangent:
    """A straight line through the loss at the point.

    Attributes:
        name: whose slope it has.
        slope: the slope.
        values: the loss it gives at the first and the last place.
    """

    name: str
    slope: float
    values: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores that differences give a right gradient, by their step.

    Attributes:
        precision: what the loss was computed in.
        steps: the steps.
        scores: the score of each.
    """

    precision: str
    steps: tuple[float, ...]
    scores: tuple[float, ...]


def drawn_variables(report: Outcome) -> tuple[VariableReport, ...]:
    """The variables that there are pictures of, the worst first."""
    return tuple(v for v in report.worst_first if v.curves is not None)


def chosen_variables(report: Outcome, variable: str | None) -> tuple[VariableReport, ...]:
    """The variables to draw.

    Args:
        report: the outcome of a check.
        variable: the path of one, or the end of its path; None for all.

    Raises:
        ArgumentError: if there are no pictures in the report, or none of that variable, or where
            several paths end so.
    """
    drawn = drawn_variables(report)
    if not drawn:
        raise ArgumentError(
            "A picture is drawn of what a check measured along a direction. Received: a report "
            f"with verdict {str(report.verdict)!r} and no such measurement. A check has it of the "
            "first wrong variables, and tfcheck.check_gradients of a right one in a small model."
        )
    if variable is None:
        return drawn
    exact = [v for v in drawn if v.path == variable]
    found = exact or [v for v in drawn if f"/{v.path}".endswith(f"/{variable}")]
    if len(found) != 1:
        paths = some([repr(v.path) for v in drawn])
        remedy = f"There are pictures of {paths}"
        raise ArgumentError(
            rule("variable must be one that there is a picture of", "variable", variable, remedy)
        )
    return tuple(found)


def tangents(curves: Curves) -> tuple[Tangent, Tangent] | None:
    """The true tangent and that of the tape; None where there is no loss to draw them at."""
    places, losses = curves.places, curves.losses
    if len(places) != len(losses) or len(set(places)) < 2 or 0.0 not in places:
        return None
    at_zero = losses[places.index(0.0)]

    def through(name: str, slope: float) -> Tangent:
        flat = 0.0 if math.isnan(slope) else slope
        return Tangent(name, slope, (at_zero + flat * places[0], at_zero + flat * places[-1]))

    true, tape = through("true", curves.right), through("tape", curves.tape)
    numbers = (*places, *losses, *true.values, *tape.values)
    ascending = list(places) == sorted(places)
    known = ascending and not math.isnan(curves.right)
    return (true, tape) if known and all(map(_has_a_place, numbers)) else None


def scores(curves: Curves) -> tuple[Scores, ...]:
    """The scores to draw against the step, one series a precision; none where there are none."""
    found = []
    for one in curves.differences:
        known = [
            (step, min(max(score, LOWEST_SCORE), 1.0))
            for step, score in zip(one.steps, curves.scores(one), strict=False)
            if step > 0 and _has_a_place(step) and math.isfinite(score)
        ]
        if len(known) > 1:
            steps, its = zip(*sorted(known), strict=True)
            found.append(Scores(one.precision, steps, its))
    return tuple(found) if curves.right else ()


def _has_a_place(number: float) -> bool:
    """Whether a number can be drawn beside others: it is not so large or small that it drowns."""
    return number == 0 or 1 / _LARGEST < abs(number) < _LARGEST


_LARGEST = 1e150


def about_tangents(curves: Curves) -> str:
    """The sentences below the loss with its tangents."""
    precision = "" if curves.precision == "float64" else f", in {curves.precision}"
    if math.isnan(curves.tape):
        tape = "the tape gives none, as if the loss were flat"
    else:
        tape = f"that of the tape is {words.number(curves.tape, 4)}"
    return (
        f"The loss along the direction {curves.direction}{precision}. Its true slope is "
        f"{words.number(curves.right, 4)} (solid line); {tape} (dashed)."
    )


def about_scores(curves: Curves, series: Sequence[Scores]) -> str:
    """The sentences below the scores by step."""
    what = (
        "The score that a right gradient gets by one central difference, by its step ε, beside the "
        "variable's own size: too large a step bends, too small a one drowns in rounding."
    )
    classical = [
        f"{words.number(score, 2)} in {one.precision}"
        for one in series
        for step, score in zip(one.steps, one.scores, strict=True)
        if step == CLASSICAL_STEP
    ]
    told = [f"With ε = {words.limit(CLASSICAL_STEP)} it is {' and '.join(classical)}."]
    told = told if classical else []
    if math.isfinite(curves.step):
        told.append(f"The check chose {words.scientific(curves.step)}.")
    return " ".join([what, *told])
