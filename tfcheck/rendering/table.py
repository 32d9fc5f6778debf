"""The variables of a report: a table where there is room for one, else one below the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

from rich.cells import cell_len
from rich.console import Group, JustifyMethod, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tfcheck.rendering import words
from tfcheck.rendering.page import STYLES, Page
from tfcheck.rendering.rows import attention, needs_attention
from tfcheck.report.outcome import Outcome
from tfcheck.report.rows import Coordinate, VariableReport

MOST_COORDINATES = 3

_LONG_HEADERS = ("shape", "score", "verdict", "‖analytic‖", "‖numerical‖", "error bar")
_SHORT_HEADERS = ("shape", "score", "verdict", "‖g‖", "‖ĝ‖", "± bar")

_COLUMNS = ((0, 1, 2, 3, 4, 5), (1, 2, 3, 4, 5), (1, 2, 3, 4), (1, 2))
"""Which of them, for as long as there is no room: the shape goes first, then the error bar."""

_LEAST_PATH = 16
_GAP = 2

Groups: TypeAlias = Sequence[Sequence[VariableReport]]


def variables_view(report: Outcome, groups: Groups, page: Page) -> RenderableType:
    """The rows of a report, layer by layer; layers that need attention are set apart."""
    view = _stacked(report, groups, page) if page.narrow else _table(report, groups, page)
    return Padding(view, (1, 0, 0, 2))


def coordinates_view(variable: VariableReport, show_all: bool, page: Page) -> RenderableType:
    """The worst coordinates of a variable, with both derivatives."""
    chosen = variable.worst[: None if show_all else MOST_COORDINATES]
    rows = [_coordinate(coordinate, page) for coordinate in chosen]
    for ratio in ("numerical / analytic", "ratio"):
        titles = [page.spelled(title) for title in (*_COORDINATE, ratio)]
        widths = [max(map(cell_len, column)) for column in zip(titles, *rows, strict=True)]
        if sum(widths) + _COORDINATE_GAP * len(widths) + _COORDINATE_INDENT <= page.width:
            return _coordinates(titles, rows)
    sentences = (f"at {at}: analytic {g}, numerical {n} {bar}" for at, g, n, bar, _ in rows)
    return Group(*map(Text, sentences))


_COORDINATE = ("worst at", "analytic", "numerical", "± error bar")
_COORDINATE_GAP = 3
_COORDINATE_INDENT = 4


def _coordinates(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table.grid(padding=(0, _COORDINATE_GAP, 0, 0))
    justified: tuple[JustifyMethod, ...] = ("left", "right", "right", "left", "right")
    for justify in justified:
        table.add_column(justify=justify, no_wrap=True)
    table.add_row(*(Text(title, "dim") for title in titles))
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _coordinate(coordinate: Coordinate, page: Page) -> list[str]:
    cells = (
        words.index(coordinate.index),
        words.number(coordinate.analytic, 6),
        words.number(coordinate.numerical, 6),
        f"± {words.scientific(coordinate.error_bar)}",
        words.ratio(coordinate.analytic, coordinate.numerical),
    )
    return [page.spelled(cell) for cell in cells]


def _cells(report: Outcome, variable: VariableReport, digits: int) -> tuple[str, ...]:
    return (
        words.shape(variable.shape),
        words.scientific(variable.score),
        words.verdict_words(variable, report.settings.thresholds),
        words.number(variable.analytic_norm, digits),
        words.number(variable.numerical_norm, digits),
        words.scientific(variable.error_bar, 0),
    )


def _stacked(report: Outcome, groups: Groups, page: Page) -> RenderableType:
    return Group(*_blocks(report, groups, page))


def _blocks(report: Outcome, groups: Groups, page: Page) -> Iterator[RenderableType]:
    for place, group in enumerate(groups):
        if place and _apart(groups[place - 1], group):
            yield Text()
        for variable in group:
            _, score, verdict, analytic, numerical, bar = _cells(report, variable, 3)
            path = page.folded(variable.path, page.width - 4)
            yield Text(path, "bold" if needs_attention(variable) else "")
            yield Padding(
                page.text(f"{verdict}, score {score}", STYLES[words.kind(variable)]), (0, 0, 0, 2)
            )
            yield Padding(
                page.text(f"‖g‖ {analytic}, ‖ĝ‖ {numerical}, ± {bar}", "dim"), (0, 0, 0, 2)
            )


def _table(report: Outcome, groups: Groups, page: Page) -> RenderableType:
    wide = page.width >= 100
    variables = [variable for group in groups for variable in group]
    cells = [
        [page.spelled(cell) for cell in _cells(report, variable, 3 if wide else 2)]
        for variable in variables
    ]
    longest = max(cell_len(page.spelled(variable.path)) for variable in variables)
    headers, widths, path_width = _columns(cells, longest, page)
    table = Table(box=page.rules, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("variable", width=path_width, overflow="fold", header_style="dim")
    for place, width in widths.items():
        justify: JustifyMethod = "left" if place in (0, 2) else "right"
        table.add_column(headers[place], justify=justify, width=width, header_style="dim")
    row = iter(cells)
    for place, group in enumerate(groups):
        if place and _apart(groups[place - 1], group):
            table.add_section()
        for variable in group:
            style = STYLES[words.kind(variable)]
            styles = ("dim", style, style, "", "", "")
            shown = next(row)
            if needs_attention(variable):
                path = Text(page.folded(variable.path, path_width), "bold")
            else:
                path = Text(page.shortened(variable.path, path_width))
            table.add_row(path, *(Text(shown[column], styles[column]) for column in widths))
    return table


def _columns(
    cells: Sequence[Sequence[str]], longest: int, page: Page
) -> tuple[list[str], dict[int, int], int]:
    """Headers, the columns there is room for with their widths, and the room that paths get."""
    choices = [(_LONG_HEADERS, _COLUMNS[0]), *((_SHORT_HEADERS, columns) for columns in _COLUMNS)]
    most_of_verdict = 20 if page.width >= 100 else 16
    for place, (names, columns) in enumerate(choices):
        headers = [page.spelled(name) for name in names]
        widths = {c: max(map(cell_len, [headers[c], *(row[c] for row in cells)])) for c in columns}
        widths[2] = min(widths[2], most_of_verdict)
        space = page.width - sum(widths.values()) - _GAP * len(widths) - 2
        # Whole paths are worth shorter headers; no column is given up for their last letters.
        if space >= (longest if place == 0 else min(longest, _LEAST_PATH)):
            break
    return headers, widths, max(len("variable"), min(longest, max(_LEAST_PATH, space)))


def _apart(before: Sequence[VariableReport], group: Sequence[VariableReport]) -> bool:
    return attention(before) or not group[0].counts
