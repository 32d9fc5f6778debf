"""Curves as a figure of matplotlib, for notebooks and papers; drawn without pyplot."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tfcheck.rendering import words
from tfcheck.rendering.curves import (
    CLASSICAL_STEP,
    Scores,
    Tangent,
    chosen_variables,
    scores,
    tangents,
)
from tfcheck.rendering.palette import MUTED_ON_WHITE, ON_WHITE
from tfcheck.rendering.pictures import RIGHT, WRONG
from tfcheck.report.curves import Curves
from tfcheck.report.outcome import Outcome

_PANEL_WIDTH, _PANEL_HEIGHT = 5.2, 3.4  # inches


class NotebookFigure(Figure):
    """A figure that a notebook shows whether or not it has loaded pyplot."""

    def _repr_png_(self) -> bytes:
        content = io.BytesIO()
        FigureCanvasAgg(self).print_png(content)  # type: ignore[no-untyped-call]
        return content.getvalue()


def figure_of(report: Outcome, variable: str | None = None) -> Figure:
    """Draw what was measured of variables along a direction, a row a variable.

    Args:
        report: the outcome of a check.
        variable: the path of a variable, or the end of its path. Defaults to None, for all that
            there are pictures of.

    Returns:
        A figure that belongs to no pyplot state.

    Raises:
        ArgumentError: if there is no picture of that.
    """
    drawn = [(v.path, v.curves) for v in chosen_variables(report, variable) if v.curves is not None]
    panels = [(tangents(curves), scores(curves)) for _, curves in drawn]
    columns = max(1, *((lines is not None) + bool(series) for lines, series in panels))
    size = (_PANEL_WIDTH * columns, _PANEL_HEIGHT * len(drawn))
    figure = NotebookFigure(figsize=size, dpi=100, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    concerning = report.settings.thresholds.concerning
    for row, ((path, curves), (lines, series)) in enumerate(zip(drawn, panels, strict=True)):
        place = row * columns + 1
        if lines is not None:
            _draw_loss(figure.add_subplot(len(drawn), columns, place), path, curves, lines)
            place += 1
        if series:
            axes = figure.add_subplot(len(drawn), columns, place)
            _draw_scores(axes, path, curves, series, concerning)
    return figure


def _draw_loss(axes: Axes, path: str, curves: Curves, lines: Sequence[Tangent]) -> None:
    """The loss with its two tangents."""
    axes.plot(curves.places, curves.losses, color=ON_WHITE, marker=".", linewidth=1.2, label="loss")
    ends = curves.places[0], curves.places[-1]
    for line, colour, style in zip(lines, (RIGHT, WRONG), ("-", "--"), strict=True):
        slope = "none" if math.isnan(line.slope) else words.number(line.slope, 4)
        label = f"{line.name} slope: {slope}"
        axes.plot(ends, line.values, color=colour, linestyle=style, linewidth=2, label=label)
    _write_title(axes, f"{path}\nloss along the direction {curves.direction}")
    axes.set_xlabel("how far the variable moves, beside its own size", color=MUTED_ON_WHITE)
    axes.set_ylabel(f"loss ({curves.precision})", color=MUTED_ON_WHITE)
    axes.legend(fontsize=8)


def _draw_scores(
    axes: Axes, path: str, curves: Curves, series: Sequence[Scores], concerning: float
) -> None:
    """The score of a right gradient by the step of the difference."""
    for one in series:
        exact = one.precision == "float64"
        colour = RIGHT if exact else WRONG
        axes.loglog(
            one.steps,
            one.scores,
            color=colour,
            linestyle="-" if exact else "--",
            marker="o" if exact else "s",
            markersize=4,
            label=one.precision,
        )
        beside = {"xytext": (9, 3)} if exact else {"xytext": (-9, -3), "ha": "right"}
        first = (one.steps[0], one.scores[0])
        axes.annotate(
            one.precision, first, textcoords="offset points", color=colour, fontsize=9, **beside
        )
    across, up = axes.get_yaxis_transform(), axes.get_xaxis_transform()
    small: dict[str, Any] = {"fontsize": 8, "color": MUTED_ON_WHITE}
    axes.axhline(concerning, color=MUTED_ON_WHITE, linestyle=":")
    fails = f"fails from {words.limit(concerning)}"
    place: dict[str, Any] = {"xytext": (0, 4), "xycoords": across, "textcoords": "offset points"}
    axes.annotate(fails, (0.01, concerning), **place, **small)
    axes.axvline(CLASSICAL_STEP, color=MUTED_ON_WHITE, linestyle=":", linewidth=1)
    if math.isfinite(curves.step):
        chosen = f"chosen {words.scientific(curves.step)}"
        axes.axvline(curves.step, color=ON_WHITE, linestyle="-.", linewidth=1)
        axes.text(curves.step, 1.02, chosen, transform=up, ha="center", **small)
    _write_title(axes, f"{path}\nscore of a right gradient, by the step")
    axes.set_xlabel("step, beside the variable's own size", color=MUTED_ON_WHITE)
    axes.set_ylabel("score", color=MUTED_ON_WHITE)


def _write_title(axes: Axes, title: str) -> None:
    """Write a title, whatever the name of a layer or the user's `rcParams` hold ($, usetex)."""
    axes.set_title(words.printable(title), fontsize=9, pad=16, parse_math=False, usetex=False)
