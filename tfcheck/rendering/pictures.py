"""Pictures in a page, as SVG: where everything goes, in pixels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tfcheck.rendering import words
from tfcheck.rendering.axis import Axis
from tfcheck.rendering.chain import chain_picture
from tfcheck.rendering.curves import (
    CLASSICAL_STEP,
    about_scores,
    about_tangents,
    drawn_variables,
    scores,
    tangents,
)
from tfcheck.rendering.rows import telling_variables
from tfcheck.report.curves import Curves
from tfcheck.report.outcome import Outcome

RIGHT, WRONG = "#1f86c8", "#d9482b"
"""The colours of what is right and what is wrong: each has a contrast of 3:1 on white and dark."""

WIDTH, HEIGHT = 320, 226
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 312, 16, 186
_LINE = 13
"""Texts are so far apart at least."""

_LABEL = 54
"""The name of a series takes so much room."""

_BELOW_AXIS = 16


@dataclass(frozen=True)
class Pictures:
    """The pictures of a report.

    Attributes:
        chain: the layers in a row; None where there is no culprit.
        of: for the paths of variables what to draw of them.
        others: the paths of those of which nothing else is told.
    """

    chain: dict[str, Any] | None = None
    of: Mapping[str, Sequence[dict[str, Any]]] = field(default_factory=dict)
    others: tuple[str, ...] = ()


NO_PICTURES = Pictures()


def pictures_of(report: Outcome) -> Pictures:
    """The pictures of a report.

    Args:
        report: the outcome of a check.
    """
    drawn = {v.path: v.curves for v in drawn_variables(report) if v.curves is not None}
    told = {variable.path for variable in telling_variables(report)}
    return Pictures(
        chain_picture(report),
        {path: _drawn(path, curves, report) for path, curves in drawn.items()},
        tuple(path for path in drawn if path not in told),
    )


def _drawn(path: str, curves: Curves, report: Outcome) -> list[dict[str, Any]]:
    pictures = [_loss(path, curves), _scores(path, curves, report.settings.thresholds.concerning)]
    return [picture for picture in pictures if picture is not None]


def _loss(path: str, curves: Curves) -> dict[str, Any] | None:
    """The loss with its two tangents."""
    lines = tangents(curves)
    if lines is None:
        return None
    x = Axis(curves.places[0], curves.places[-1], _LEFT, _RIGHT - 34)
    ends = [value for line in lines for value in line.values]
    y = Axis.around([*curves.losses, *ends], _BOTTOM, _TOP)
    heights = _apart([y.at(line.values[1]) for line in lines])
    return {
        **_frame(x, y),
        "title": f"The loss of {path} and its two tangents",
        "about": about_tangents(curves),
        "horizontal": "how far the variable moves, beside its own size",
        "vertical": "loss",
        "series": [
            {
                "name": "",
                "kind": "loss",
                "points": _points(x, y, curves.places, curves.losses),
            }
        ],
        "marks": [
            {
                "kind": line.name,
                "name": line.name,
                "from": (x.start, y.at(line.values[0])),
                "to": (x.end, y.at(line.values[1])),
                "text": (x.end + 5, height + 4),
                "anchor": "start",
            }
            for line, height in zip(lines, heights, strict=True)
        ],
    }


def _scores(path: str, curves: Curves, concerning: float) -> dict[str, Any] | None:
    """The score of a right gradient by step, on two logarithmic axes."""
    series = scores(curves)
    if not series:
        return None
    x = Axis.decades([step for one in series for step in one.steps], _LEFT, _RIGHT)
    y = Axis.decades([1.0, concerning, *(s for one in series for s in one.scores)], _BOTTOM, _TOP)
    return {
        **_frame(x, y),
        "title": f"The score of a right gradient of {path} by the step of the difference",
        "about": about_scores(curves, series),
        "horizontal": "step ε, beside the variable's own size",
        "vertical": "score",
        "series": [
            {
                "name": one.precision,
                "kind": "exact" if one.precision == "float64" else "coarse",
                "points": (points := _points(x, y, one.steps, one.scores)),
                "text": _beside(*points[0], x),
            }
            for one in series
        ],
        "marks": [_threshold(x, y, concerning), *_steps(x, curves.step)],
    }


def _beside(across: float, up: float, x: Axis) -> dict[str, Any]:
    """Where the name of a series stands: left of its first point, where there is room for it."""
    if across - x.start > _LABEL:
        return {"at": (across - 7, up + 4), "anchor": "end"}
    return {"at": (across + 7, up - 5), "anchor": "start"}


def _threshold(x: Axis, y: Axis, concerning: float) -> dict[str, Any]:
    """The line from which on a gradient fails."""
    height = y.at(concerning)
    return {
        "kind": "limit",
        "name": f"fails from {words.limit(concerning)}",
        "from": (x.start, height),
        "to": (x.end, height),
        "text": (x.start + 4, height - 4),
        "anchor": "start",
    }


def _steps(x: Axis, chosen: float) -> Iterator[dict[str, Any]]:
    """The step that the check chose, and that of the classical recipe."""
    named = (
        (CLASSICAL_STEP, "limit", ""),
        (chosen, "chosen", f"chosen {words.scientific(chosen)}"),
    )
    for step, kind, name in named:
        if x.holds(step):
            yield {
                "kind": kind,
                "name": name,
                "from": (x.at(step), _TOP),
                "to": (x.at(step), _BOTTOM),
                "text": (x.at(step), _TOP - 4),
                "anchor": "middle",
            }


def _frame(x: Axis, y: Axis) -> dict[str, Any]:
    """What all plots have: their size, their axes, and the numbers at these."""
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "left": _LEFT,
        "right": x.end,
        "top": _TOP,
        "bottom": _BOTTOM,
        "below": _BOTTOM + _BELOW_AXIS,
        "x": x.ticks(5),
        "y": y.ticks(6),
    }


def _points(
    x: Axis, y: Axis, across: Sequence[float], up: Sequence[float]
) -> list[tuple[float, float]]:
    return [(x.at(a), y.at(u)) for a, u in zip(across, up, strict=True)]


def _apart(heights: Sequence[float]) -> list[float]:
    """The heights of two texts, moved so far apart that both can be read."""
    first, second = heights
    close = _LINE - abs(first - second)
    if close <= 0:
        return [first, second]
    shift = close / 2 if first <= second else -close / 2
    return [round(first - shift, 1), round(second + shift, 1)]
