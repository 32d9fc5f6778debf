"""Reports and their history on the console."""

from __future__ import annotations

import io
import math
import shutil
from collections.abc import Iterable, Sequence

from rich.box import SIMPLE
from rich.cells import cell_len
from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tfcheck.rendering import words
from tfcheck.rendering.advice import advice
from tfcheck.rendering.facts import facts, summary, worst_variable
from tfcheck.rendering.rows import (
    MOST_ROWS,
    attention,
    chosen_rows,
    needs_attention,
    telling_variables,
)
from tfcheck.report import GradientReport, VariableReport

NARROWEST, WIDEST = 80, 110
MOST_EXPLAINED = 8
MOST_COORDINATES = 3

_LONG_HEADERS = ("shape", "score", "verdict", "‖analytic‖", "‖numerical‖", "error bar")
_SHORT_HEADERS = ("shape", "score", "verdict", "‖g‖", "‖ĝ‖", "± bar")

_STYLES = {
    "fail": "bold red",
    "error": "bold red",
    "suspect": "bold yellow",
    "inconclusive": "cyan",
    "declared": "magenta",
    "pass": "green",
}


def report_text(report: GradientReport, width: int | None = None, show_all: bool = False) -> str:
    """A report as plain text, without colours or other terminal codes.

    Args:
        report: the outcome of a check.
        width: characters a line. Defaults to the terminal's width within 80 to 110, and to 100
            where there is no terminal.
        show_all: show every variable, not only 30 rows. Defaults to False.
    """
    return _plain(report_view(report, _width(width), show_all), _width(width))


def print_report(
    report: GradientReport, console: Console | None = None, show_all: bool = False
) -> None:
    """Print a report, with colour where the terminal has it.

    Args:
        report: the outcome of a check.
        console: the rich console to print to. Defaults to a new one on standard output.
        show_all: show every variable, not only 30 rows. Defaults to False.
    """
    console = console or Console(highlight=False)
    console.print(report_view(report, min(console.width, WIDEST), show_all), highlight=False)


def history_text(reports: Sequence[GradientReport], width: int | None = None) -> str:
    """The checks of a run as plain text, one line a checkpoint.

    Args:
        reports: the checks of one model, oldest first.
        width: characters a line. Defaults as in `report_text`.
    """
    return _plain(history_view(reports), _width(width))


def print_history(reports: Sequence[GradientReport], console: Console | None = None) -> None:
    """Print the checks of a run, one line a checkpoint, oldest first.

    Args:
        reports: the checks of one model, oldest first.
        console: the rich console to print to. Defaults to a new one on standard output.
    """
    console = console or Console(highlight=False)
    console.print(history_view(reports), highlight=False)


def report_view(report: GradientReport, width: int, show_all: bool = False) -> RenderableType:
    """A report as something rich can print at this width."""
    rows = chosen_rows(report, None if show_all else MOST_ROWS)
    parts: list[RenderableType] = [_headline(report), _text(f"  {summary(report)}")]
    if report.error:
        parts.append(Padding(_text(report.error, "red"), (1, 2, 1, 2)))
    parts.append(_facts(report))
    if rows.groups:
        parts.append(_table(report, rows.groups, width))
    if rows.hidden:
        more = words.plural(rows.hidden, "more variable")
        parts.append(_text(f"  … and {more}, all pass", "dim"))
    parts.extend(_explanations(report, show_all))
    parts.append(_remarks(report))
    if rows.groups:
        parts.append(Padding(_text(words.HOW_TO_READ, "dim"), (1, 2, 0, 2)))
    return Group(*parts)


def history_view(reports: Sequence[GradientReport]) -> RenderableType:
    """The checks of a run as something rich can print."""
    table = Table(box=SIMPLE, show_edge=False, pad_edge=False, header_style="dim")
    table.add_column("step", justify="right", no_wrap=True)
    table.add_column("checkpoint")
    table.add_column("verdict", no_wrap=True)
    table.add_column("worst score", justify="right", no_wrap=True)
    table.add_column("failing layers", overflow="fold")
    table.add_column("seconds", justify="right", no_wrap=True)
    for report in reports:
        worst = worst_variable(report)
        verdict = str(report.verdict)
        layers = ", ".join(report.failing_layers[:3])
        if len(report.failing_layers) > 3:
            layers += f" and {len(report.failing_layers) - 3} more"
        table.add_row(
            _text("" if report.step is None else str(report.step)),
            _text(report.checkpoint),
            _text(f"{words.SYMBOLS[verdict]} {verdict}", _STYLES[verdict]),
            _text(words.scientific(worst.score) if worst else ""),
            _text(layers or report.error.split("\n")[0], "" if layers else "dim"),
            _text(words.number(report.seconds, 2) if math.isfinite(report.seconds) else "–"),
        )
    return table


def _headline(report: GradientReport) -> Text:
    verdict = str(report.verdict)
    subject = ", ".join(part for part in (report.model, words.moment(report)) if part)
    return Text.assemble(
        _text(f"{words.SYMBOLS[verdict]} {verdict.upper()}", _STYLES[verdict]),
        _text(f"  gradient check{' of ' if report.model else ', ' if subject else ''}{subject}"),
    )


def _facts(report: GradientReport) -> RenderableType:
    return _labelled(
        [
            (label, _text(line, "bold red" if label.startswith("culprit") else ""))
            for label, line in facts(report)
        ]
    )


def _table(
    report: GradientReport, groups: Sequence[Sequence[VariableReport]], width: int
) -> RenderableType:
    """One row a variable; the layers that need attention are set apart by blank lines."""
    variables = [variable for group in groups for variable in group]
    thresholds, digits = report.settings.thresholds, 3 if width >= 100 else 2
    cells = [
        (
            words.shape(variable.shape),
            words.scientific(variable.score),
            words.verdict_words(variable, thresholds),
            words.number(variable.analytic_norm, digits),
            words.number(variable.numerical_norm, digits),
            words.scientific(variable.error_bar, 0),
        )
        for variable in variables
    ]
    longest = max(cell_len(variable.path) for variable in variables)
    for headers in (_LONG_HEADERS, _SHORT_HEADERS):
        widths = [max(map(cell_len, column)) for column in zip(headers, *cells, strict=True)]
        widths[2] = min(widths[2], 20 if width >= 100 else 16)
        space = width - sum(widths) - 2 * len(widths) - 2
        if longest <= space:
            break
    path_width = max(len("variable"), min(longest, max(16, space)))

    table = Table(box=SIMPLE, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("variable", width=path_width, overflow="fold", header_style="dim")
    for place, (header, column_width) in enumerate(zip(headers, widths, strict=True)):
        justify: JustifyMethod = "left" if place in (0, 2) else "right"
        table.add_column(header, justify=justify, width=column_width, header_style="dim")
    row = iter(cells)
    for place, group in enumerate(groups):
        if place and (attention(groups[place - 1]) or not group[0].counts):
            table.add_section()
        for variable in group:
            style = _STYLES[words.kind(variable)]
            shape, score, verdict, *numbers = next(row)
            if needs_attention(variable):
                path = _text("\n".join(words.folded(variable.path, path_width)), "bold")
            else:
                path = _text(words.shortened(variable.path, path_width))
            table.add_row(
                path,
                _text(shape, "dim"),
                _text(score, style),
                _text(verdict, style),
                *map(_text, numbers),
            )
    return Padding(table, (1, 0, 0, 2))


def _explanations(report: GradientReport, show_all: bool) -> Iterable[RenderableType]:
    """For each variable that needs it: what is to say, and its worst coordinates."""
    telling = telling_variables(report)
    shown = telling if show_all else telling[:MOST_EXPLAINED]
    for variable in shown:
        shown_as = words.kind(variable)
        head = _text(f"{words.SYMBOLS[shown_as]} {variable.path}", _STYLES[shown_as])
        yield Padding(head, (1, 0, 0, 2))
        if sentences := words.variable_sentences(variable):
            yield Padding(_text(" ".join(sentences)), (0, 2, 0, 4))
        if variable.worst and needs_attention(variable):
            yield Padding(_coordinates(variable, show_all), (0, 0, 0, 4))
    if len(telling) > len(shown):
        more = words.plural(len(telling) - len(shown), "more variable")
        yield Padding(_text(f"… and {more} to explain", "dim"), (1, 0, 0, 2))


def _coordinates(variable: VariableReport, show_all: bool) -> Table:
    table = Table.grid(padding=(0, 3, 0, 0))
    justified: tuple[JustifyMethod, ...] = ("left", "right", "right", "left", "right")
    for justify in justified:
        table.add_column(justify=justify, no_wrap=True)
    titles = ("worst at", "analytic", "numerical", "± error bar", "numerical / analytic")
    table.add_row(*(Text(title, "dim") for title in titles))
    for coordinate in variable.worst[: None if show_all else MOST_COORDINATES]:
        table.add_row(
            words.index(coordinate.index),
            words.number(coordinate.analytic, 6),
            words.number(coordinate.numerical, 6),
            f"± {words.scientific(coordinate.error_bar)}",
            words.ratio(coordinate.analytic, coordinate.numerical),
        )
    return table


def _remarks(report: GradientReport) -> RenderableType:
    remarks: list[tuple[str, RenderableType]] = [
        (name, _text(sentence)) for name, sentence in words.glossary(report)
    ]
    if report.frozen:
        few = len(report.frozen) <= 4
        names = ", ".join(report.frozen) if few else "not trainable, so not checked"
        remarks.append(
            ("frozen", _text(f"{words.plural(len(report.frozen), 'variable')}: {names}"))
        )
    if report.notes:
        remarks.append(("notes", _listed(report.notes)))
    if steps := advice(report):
        remarks.append(("next", _listed(steps)))
    return Padding(_labelled(remarks), (1, 0, 0, 0)) if remarks else Group()


def _listed(sentences: Sequence[str]) -> RenderableType:
    """One sentence as it is, several as a numbered list."""
    if len(sentences) == 1:
        return _text(sentences[0])
    return _labelled(
        [(f"{place}.", _text(text)) for place, text in enumerate(sentences, 1)], indent=0, gap=1
    )


def _labelled(
    lines: Sequence[tuple[str, RenderableType]], indent: int = 2, gap: int = 2
) -> RenderableType:
    table = Table.grid(padding=(0, gap, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, content in lines:
        table.add_row(label, content)
    return Padding(table, (0, 0, 0, indent))


def _text(content: str, style: str = "") -> Text:
    """Text that is taken as it is: brackets are no markup, control characters are shown."""
    return Text(words.printable(content), style)


def _width(width: int | None) -> int:
    if width is not None:
        return width
    return min(WIDEST, max(NARROWEST, shutil.get_terminal_size((100, 24)).columns))


def _plain(view: RenderableType, width: int) -> str:
    output = io.StringIO()
    console = Console(
        file=output,
        width=width,
        color_system=None,
        force_jupyter=False,  # else a notebook shows the text instead of returning it
        legacy_windows=False,
        highlight=False,
    )
    console.print(view)
    return "\n".join(line.rstrip() for line in output.getvalue().rstrip().split("\n"))
