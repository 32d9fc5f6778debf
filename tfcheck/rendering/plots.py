"""The heatmap of checkpoints as a picture, drawn without pyplot and without global state.

It has no ground of its own, so that it suits light and dark pages.

Every text and colour is set here and not by `rcParams`, so that a user's own style can neither
change nor break the picture, and it may be drawn from any thread.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import Rectangle

from tfcheck.judge.verdict import Thresholds, digits
from tfcheck.rendering import words
from tfcheck.rendering.grid import MOST_ROWS, Cell, Grid, build_grid, overall
from tfcheck.rendering.palette import COLOURS, GHOST, INK
from tfcheck.report.outcome import Outcome

ROW_HEIGHT, ABOVE, AXIS, LEGEND_LINE, MARGIN, GAP = 0.27, 0.72, 0.46, 0.44, 0.16, 0.02  # inches
# The columns a picture has room for. A run's picture keeps its size and its columns keep their
# places while checks arrive, up to the next of these; then all columns become narrower.
ROOM = (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)

_SANS = FontProperties(family="DejaVu Sans", size=8)
_STRONG = FontProperties(family="DejaVu Sans Mono", size=8, weight="bold")
_MONO = FontProperties(family="DejaVu Sans Mono", size=8)
_MONO_CHARACTER = 0.602 * 8 / 72  # inches
_LETTER = 0.66  # the width of a bold letter as a part of its size


@dataclass(frozen=True, slots=True)
class Format:
    """How much a picture shows.

    Attributes:
        grid_width: width of all cells, in inches.
        longest_label: characters of a row's label.
        most_rows: rows, beside those of culprits.
        legend_lines: lines that the legend is broken into.
        headline: size of the headline, in points.
    """

    grid_width: float
    longest_label: int
    most_rows: int
    legend_lines: int
    headline: float


WHOLE = Format(6.6, 44, MOST_ROWS, 1, 11)
CARD = Format(3.9, 24, 12, 2, 9)
"""Small enough that its text can be read in a card of MLflow's charts: the worst rows."""


def heatmap(reports: Sequence[Outcome], form: Format = WHOLE) -> Figure:
    """Draw the digits of agreement of every variable at every checkpoint.

    Rows are variables, or layers when there are more than 40 variables (the worst 60 of them).
    The rows above them are layers that are wrong by themselves. The size of the figure depends on
    the rows only, not on the number of checkpoints.

    Args:
        reports: the checks of one model, oldest first.
        form: how much to show. Defaults to all there is room for on a page.

    Returns:
        A figure without a ground that belongs to no pyplot state, with an Agg canvas.

    Raises:
        ArgumentError: if there is no report.
    """
    grid = build_grid(reports, form.most_rows)
    characters, labels = _labels(grid, form)
    left = max(1.0, characters * _MONO_CHARACTER + 0.12) + MARGIN
    lines = _top(grid) + max(1, len(grid.rows) - grid.culprits)
    height = lines * ROW_HEIGHT
    below = AXIS + form.legend_lines * LEGEND_LINE + 0.12
    width, total = left + form.grid_width + MARGIN, ABOVE + height + below
    figure = Figure(figsize=(width, total), dpi=100, facecolor="none")
    figure.set_layout_engine("none")
    FigureCanvasAgg(figure)
    axes = figure.add_axes(
        (left / width, below / total, form.grid_width / width, height / total), frameon=False
    )
    axes.set_axis_off()

    room = _room(len(grid.columns))
    axes.set_xlim(0, room)
    axes.set_ylim(lines, 0)
    _draw_cells(axes, grid, room, form)
    _draw_labels(axes, grid, labels, room, form)
    _draw_columns(axes, grid, room, form)
    _write_title(axes, figure, grid, reports, form)
    _draw_legend(axes, figure, reports[-1].settings.thresholds, left, form)
    return figure


def heatmap_png(reports: Sequence[Outcome], dpi: int = 144, form: Format = WHOLE) -> bytes:
    """The heatmap as PNG without a ground: the same bytes for the same reports.

    For one set of variables the picture has the same size in pixels however many checks there
    are, so that a slider over the checkpoints of a run does not jump.

    Args:
        reports: the checks of one model, oldest first.
        dpi: pixels an inch. Defaults to 144.
        form: how much to show. Defaults to all there is room for on a page.

    Raises:
        ArgumentError: if there is no report.
    """
    figure = heatmap(reports, form)
    figure.set_dpi(dpi)
    content = io.BytesIO()
    FigureCanvasAgg(figure).print_png(content, metadata={"Software": None})  # type: ignore[no-untyped-call]
    return content.getvalue()


def _labels(grid: Grid, form: Format) -> tuple[int, list[str]]:
    """The room for labels, in characters, and the label of each row."""
    guilty, others = grid.rows[: grid.culprits], grid.rows[grid.culprits :]
    plain = [_drawable(words.shortened(path, form.longest_label), _MONO) for path in others]
    # When rows are left out, others may take their place later: then keep room for any label.
    longest = form.longest_label if grid.omitted else max(map(len, plain), default=0)
    # A culprit may be found later, and must not make the picture wider.
    short = max(longest, 12) - len(words.CULPRIT)
    marked = [f"{words.CULPRIT}{_drawable(words.shortened(p, short), _STRONG)}" for p in guilty]
    return longest, [*marked, *plain]


def _top(grid: Grid) -> int:
    """The line of the first row that is no culprit's: one line is kept free where there is none."""
    return max(1, grid.culprits)


def _line(grid: Grid, place: int) -> int:
    """The line that a row stands in."""
    return place if place < grid.culprits else place - grid.culprits + _top(grid)


def _draw_labels(axes: Axes, grid: Grid, labels: Sequence[str], room: int, form: Format) -> None:
    """Write what each row is, beside its cells."""
    x = -0.08 * room / form.grid_width
    if not grid.culprits:
        _write(axes, x, 0.5, "culprit", _SANS, ha="right", va="center")
        _write(axes, 0, 0.5, " none found", _SANS, va="center")
    for place, label in enumerate(labels):
        font = _STRONG if place < grid.culprits else _MONO
        _write(axes, x, _line(grid, place) + 0.5, label, font, ha="right", va="center")


def _write_title(
    axes: Axes, figure: Figure, grid: Grid, reports: Sequence[Outcome], form: Format
) -> None:
    """Write what was found above the cells, and below it what they show."""
    width, total = map(float, figure.get_size_inches())
    model = next((report.model for report in reversed(reports) if report.model), "")
    verdict, finding = overall(reports)
    headline = f"{words.SYMBOLS[verdict]} {f'{model}: ' if model else ''}{finding}"
    bold = FontProperties(family="DejaVu Sans", size=form.headline, weight="bold")
    fits = int((width - 2 * MARGIN) / (form.headline / 72 * 0.70))
    top: dict[str, Any] = {"va": "top", "transform": figure.transFigure}
    text = _drawable(words.clipped(headline, fits), bold)
    _write(axes, *_at(figure, MARGIN, total - 0.16), text, bold, **top)
    shown = len(grid.rows) - grid.culprits
    rows = f"worst {shown} of {shown + grid.omitted}" if grid.omitted else "by"
    told = f"digits on which both gradients agree, {rows} {grid.unit}{'s' if grid.omitted else ''}"
    _write(axes, *_at(figure, MARGIN, total - 0.42), told, _SANS, **top)


def _draw_cells(axes: Axes, grid: Grid, room: int, form: Format) -> None:
    if len(grid.rows) == grid.culprits:
        _write(axes, 0, _top(grid) + 0.5, "no variable was checked", _SANS, va="center")
    cell_width = form.grid_width / room
    gap, space = min(GAP, cell_width / 8) / cell_width, GAP / ROW_HEIGHT
    boxes, colours = [], []
    for place, row in enumerate(grid.cells):
        y = _line(grid, place)
        kinds = [cell.kind for cell in row] + ["absent"] * (room - len(row))
        for x, kind in enumerate(kinds):
            boxes.append(Rectangle((x + gap / 2, y + space / 2), 1 - gap, 1 - space))
            colours.append(GHOST if kind == "absent" else to_rgba(COLOURS[kind][0]))
        for x, cell in enumerate(row):
            _write_cell(axes, x, y, cell, cell_width)
    axes.add_collection(PatchCollection(boxes, facecolors=colours, linewidths=0))


def _write_cell(axes: Axes, x: int, y: int, cell: Cell, width: float) -> None:
    """Write into a cell, of so many inches, as much as it has room for."""
    size = min(7.5, max(3.0, width * 72))
    fits = len(cell.text) * size / 72 * _LETTER <= width
    text = cell.text if fits else cell.symbol
    if text:
        ink = COLOURS[cell.kind][1]
        weight = "bold" if cell.kind in ("fail", "suspect") else "normal"
        font = FontProperties(family="DejaVu Sans", size=size, weight=weight)
        told = _drawable(text, font)
        _write(axes, x + 0.5, y + 0.5, told, font, ha="center", va="center", color=ink)


def _draw_columns(axes: Axes, grid: Grid, room: int, form: Format) -> None:
    """Write step and epoch of the checks below the cells, as many as fit."""
    longest = max(len(label) for label in grid.columns)
    width = min(longest, 14) * 0.085 + 0.12
    every = max(1, -(-int(width * 100) // int(form.grid_width / room * 100)))
    bottom = axes.get_ylim()[0]
    step, epoch = bottom + 0.08 / ROW_HEIGHT, bottom + 0.23 / ROW_HEIGHT
    last = len(grid.columns) - 1
    for place, (label, passed) in enumerate(zip(grid.columns, grid.epochs, strict=True)):
        # Counted from the newest check, whose label must never be the one left out.
        if (last - place) % every == 0:
            short = _drawable(words.clipped(label, 14), _SANS)
            _write(axes, place + 0.5, step, short, _SANS, ha="center", va="top")
            if passed:
                _write(axes, place + 0.5, epoch, passed, _SANS, ha="center", va="top")
    x = -0.08 * room / form.grid_width
    _write(axes, x, step, grid.axis, _SANS, ha="right", va="top")
    if any(grid.epochs):
        _write(axes, x, epoch, "epoch", _SANS, ha="right", va="top")


def _draw_legend(
    axes: Axes, figure: Figure, thresholds: Thresholds, left: float, form: Format
) -> None:
    great, okay, concerning = (
        f"{digits(value):.3g}"
        for value in (thresholds.great, thresholds.okay, thresholds.concerning)
    )
    entries = (
        ("great", "great", f"{great} or more"),
        ("okay", "okay", f"{okay} to {great}"),
        ("suspect", "! suspect", f"{concerning} to {okay}"),
        ("fail", "✗ fail", f"≤ {concerning}, or as said"),
        ("inconclusive", "? inconclusive", "not measurable"),
        ("declared", "~ declared", "does not count"),
    )
    a_line = len(entries) // form.legend_lines
    step = form.grid_width / a_line
    small = FontProperties(family="DejaVu Sans", size=7.5)
    common: dict[str, Any] = {"ha": "center", "transform": figure.transFigure}
    for place, (kind, name, meaning) in enumerate(entries):
        x = left + place % a_line * step
        y = (form.legend_lines - 1 - place // a_line) * LEGEND_LINE
        fill, ink = COLOURS[kind]
        corner, size = _at(figure, x, y + 0.36), _at(figure, step - 0.06, 0.20)
        box = Rectangle(corner, *size, facecolor=fill, linewidth=0, clip_on=False)
        box.set_transform(figure.transFigure)
        axes.add_artist(box)
        centre = x + (step - 0.06) / 2
        named, told = _at(figure, centre, y + 0.46), _at(figure, centre, y + 0.31)
        _write(axes, *named, name, small, va="center_baseline", color=ink, **common)
        _write(axes, *told, meaning, small, va="top", **common)


def _write(axes: Axes, x: float, y: float, text: str, font: FontProperties, **options: Any) -> None:
    """Write text, whatever the name of a layer or the user's `rcParams` hold ($, usetex)."""
    options = {"color": INK, "ha": "left", **options}
    axes.text(x, y, text, fontproperties=font, parse_math=False, usetex=False, **options)


def _at(figure: Figure, x: float, y: float) -> tuple[float, float]:
    """Inches from the lower left corner, as fractions of the figure."""
    width, height = figure.get_size_inches()
    return x / float(width), y / float(height)


def _room(columns: int) -> int:
    return next((room for room in ROOM if room >= columns), columns)


@cache
def _has_glyph(character: str, path: str) -> bool:
    return bool(get_font(path).get_char_index(ord(character)))


def _drawable(text: str, font: FontProperties) -> str:
    """Text with `?` for what the font cannot draw, which matplotlib would warn about."""
    path = findfont(font)
    return "".join(character if _has_glyph(character, path) else "?" for character in text)
