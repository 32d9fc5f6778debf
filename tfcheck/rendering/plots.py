"""The heatmap of checkpoints as a picture, drawn without pyplot and without global state.

Every text and colour is set here and not by `rcParams`, so that a user's own style can neither
change nor break the picture, and it may be drawn from any thread.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import Rectangle

from tfcheck.judge.verdict import Thresholds, digits
from tfcheck.rendering import words
from tfcheck.rendering.grid import Grid, build_grid, overall
from tfcheck.rendering.palette import COLOURS, INK, MUTED
from tfcheck.report.outcome import Outcome

GRID_WIDTH, ROW_HEIGHT, ABOVE, BELOW, MARGIN = 6.6, 0.27, 0.80, 1.02, 0.16  # inches
LONGEST_LABEL = 44  # characters
# The columns a picture has room for. A run's picture keeps its size and its columns keep their
# places while checks arrive, up to the next of these; then all columns become narrower.
ROOM = (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)

_SANS = FontProperties(family="DejaVu Sans", size=8)
_BOLD = FontProperties(family="DejaVu Sans", size=11, weight="bold")
_MONO = FontProperties(family="DejaVu Sans Mono", size=8)
_MONO_CHARACTER = 0.602 * 8 / 72  # inches


def heatmap(reports: Sequence[Outcome]) -> Figure:
    """Draw the digits of agreement of every variable at every checkpoint.

    Rows are variables, or layers when there are more than 40 variables (the worst 60 of them).
    The size of the figure depends on the rows only, not on the number of checkpoints.

    Args:
        reports: the checks of one model, oldest first.

    Returns:
        A figure that belongs to no pyplot state, with an Agg canvas.

    Raises:
        ArgumentError: if there is no report.
    """
    grid = build_grid(reports)
    labels = [_drawable(words.shortened(path, LONGEST_LABEL), _MONO) for path in grid.rows]
    # When rows are left out, others may take their place later: then keep room for any label.
    characters = LONGEST_LABEL if grid.omitted else max(map(len, labels), default=0)
    left = max(1.0, characters * _MONO_CHARACTER + 0.12) + MARGIN
    height = max(1, len(labels)) * ROW_HEIGHT
    width, total = left + GRID_WIDTH + MARGIN, ABOVE + height + BELOW
    figure = Figure(figsize=(width, total), dpi=100, facecolor="white")
    figure.set_layout_engine("none")
    FigureCanvasAgg(figure)
    axes = figure.add_axes(
        (left / width, BELOW / total, GRID_WIDTH / width, height / total), frameon=False
    )
    axes.set_axis_off()

    room = _room(len(grid.columns))
    _draw_cells(axes, grid, room)
    for place, label in enumerate(labels):
        _write(axes, -0.08 * room / GRID_WIDTH, place + 0.5, label, _MONO, ha="right", va="center")
    _draw_columns(axes, grid, room)
    axes.set_xlim(0, room)
    axes.set_ylim(max(1, len(labels)), 0)
    _write_title(axes, figure, grid, reports)
    _draw_legend(axes, figure, reports[-1].settings.thresholds, left)
    return figure


def heatmap_png(reports: Sequence[Outcome], dpi: int = 144) -> bytes:
    """The heatmap as PNG: the same bytes for the same reports.

    For one set of variables the picture has the same size in pixels however many checks there
    are, so that a slider over the checkpoints of a run does not jump.

    Args:
        reports: the checks of one model, oldest first.
        dpi: pixels an inch. Defaults to 144.

    Raises:
        ArgumentError: if there is no report.
    """
    figure = heatmap(reports)
    figure.set_dpi(dpi)
    content = io.BytesIO()
    FigureCanvasAgg(figure).print_png(content, metadata={"Software": None})  # type: ignore[no-untyped-call]
    return content.getvalue()


def _write_title(axes: Axes, figure: Figure, grid: Grid, reports: Sequence[Outcome]) -> None:
    """Write what was found above the cells, and below it what they show."""
    width, total = map(float, figure.get_size_inches())
    model = next((report.model for report in reversed(reports) if report.model), "")
    verdict, finding = overall(reports)
    headline = f"{words.SYMBOLS[verdict]} {f'{model}: ' if model else ''}{finding}"
    fits = int((width - 2 * MARGIN) / (11 / 72 * 0.70))
    _write(
        axes,
        *_at(figure, MARGIN, total - 0.19),
        _drawable(words.clipped(headline, fits), _BOLD),
        _BOLD,
        va="top",
        transform=figure.transFigure,
    )
    rows = f"worst {len(grid.rows)} of {len(grid.rows) + grid.omitted}" if grid.omitted else "by"
    _write(
        axes,
        *_at(figure, MARGIN, total - 0.46),
        f"digits on which both gradients agree, {rows} {grid.unit}{'s' if grid.omitted else ''}",
        _SANS,
        va="top",
        color=MUTED,
        transform=figure.transFigure,
    )


def _draw_cells(axes: Axes, grid: Grid, room: int) -> None:
    if not grid.rows:
        _write(axes, 0, 0.5, "no variable was checked", _SANS, va="center", color=MUTED)
        return
    absent = to_rgb(COLOURS["absent"][0])
    colours = [
        [to_rgb(COLOURS[cell.kind][0]) for cell in row] + [absent] * (room - len(row))
        for row in grid.cells
    ]
    axes.imshow(
        colours,
        extent=(0, room, len(grid.rows), 0),
        aspect="auto",
        interpolation="nearest",
        origin="upper",
    )
    gaps = [[(-1, y), (room + 1, y)] for y in range(len(grid.rows) + 1)]
    gaps += [[(x, -1), (x, len(grid.rows) + 1)] for x in range(room + 1)]
    axes.add_collection(LineCollection(gaps, colors="white", linewidths=1.4 if room <= 32 else 0.5))

    cell_width = GRID_WIDTH / room
    size = min(7.5, max(3.0, cell_width * 72))
    for y, row in enumerate(grid.cells):
        for x, cell in enumerate(row):
            text = cell.text if cell_width >= 0.4 else cell.symbol
            if text:
                ink = COLOURS[cell.kind][1]
                weight = "bold" if cell.kind in ("fail", "suspect") else "normal"
                font = FontProperties(family="DejaVu Sans", size=size, weight=weight)
                _write(axes, x + 0.5, y + 0.5, text, font, ha="center", va="center", color=ink)


def _draw_columns(axes: Axes, grid: Grid, room: int) -> None:
    """Write the column labels below the cells, as many as fit."""
    longest = max(len(label) for label in grid.columns)
    width = min(longest, 14) * 0.085 + 0.12
    every = max(1, -(-int(width * 100) // int(GRID_WIDTH / room * 100)))
    bottom = max(1, len(grid.rows))
    offset = 0.10 / ROW_HEIGHT
    last = len(grid.columns) - 1
    for place, label in enumerate(grid.columns):
        # Counted from the newest check, whose label must never be the one left out.
        if (last - place) % every == 0:
            short = words.clipped(label, 14)
            _write(
                axes,
                place + 0.5,
                bottom + offset,
                _drawable(short, _SANS),
                _SANS,
                ha="center",
                va="top",
            )
    _write(
        axes,
        -0.08 * room / GRID_WIDTH,
        bottom + offset,
        grid.axis,
        _SANS,
        ha="right",
        va="top",
        color=MUTED,
    )


def _draw_legend(axes: Axes, figure: Figure, thresholds: Thresholds, left: float) -> None:
    great, okay, concerning = (
        f"{digits(value):.3g}"
        for value in (thresholds.great, thresholds.okay, thresholds.concerning)
    )
    entries = (
        ("great", "great", f"{great} or more"),
        ("okay", "okay", f"{okay} to {great}"),
        ("suspect", "! suspect", f"{concerning} to {okay}"),
        ("fail", "✗ fail", f"{concerning} or fewer"),
        ("inconclusive", "? inconclusive", "not measurable"),
        ("declared", "~ declared", "does not count"),
    )
    step = GRID_WIDTH / len(entries)
    for place, (kind, name, meaning) in enumerate(entries):
        x = left + place * step
        corner = _at(figure, x, 0.40)
        size = _at(figure, step - 0.06, 0.20)
        fill, ink = COLOURS[kind]
        axes.add_artist(
            Rectangle(
                corner,
                *size,
                facecolor=fill,
                linewidth=0,
                transform=figure.transFigure,
                clip_on=False,
            )
        )
        centre = x + (step - 0.06) / 2
        small = FontProperties(family="DejaVu Sans", size=7.5)
        common: dict[str, Any] = {"ha": "center", "transform": figure.transFigure}
        _write(
            axes, *_at(figure, centre, 0.50), name, small, va="center_baseline", color=ink, **common
        )
        _write(axes, *_at(figure, centre, 0.34), meaning, small, va="top", color=MUTED, **common)


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
