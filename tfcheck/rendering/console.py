"""Reports, their history and runs beside each other on the console."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich.console import Console, RenderableType
from rich.padding import Padding

from tfcheck.rendering.console_view import failure_view, history_view, report_view
from tfcheck.rendering.facts import failure_sentence
from tfcheck.rendering.page import Page
from tfcheck.rendering.runs_view import timeline_view
from tfcheck.rendering.terminal import (
    WIDEST,
    encoding_of,
    output_encoding,
    output_width,
    terminal_console,
)
from tfcheck.report.outcome import Outcome
from tfcheck.runs.timeline import Timeline


def report_text(
    report: Outcome,
    width: int | None = None,
    show_all: bool = False,
    encoding: str | None = None,
) -> str:
    """A report as plain text, without colours or other terminal codes.

    Args:
        report: the outcome of a check.
        width: characters a line. Defaults to the terminal's width within 40 to 110, and to 100
            where there is no terminal.
        show_all: show every variable, not only 30 rows. Defaults to False.
        encoding: what it will be printed in; symbols that it lacks are spelled in ASCII. Defaults
            to the encoding of standard output, so that `print(report)` works everywhere.
    """
    page = _page(width, encoding)
    return _plain(report_view(report, page, show_all), page)


def failure_text(report: Outcome) -> str:
    """What of a report does not pass, as plain text for the message of an error: a sentence in one
    line, then the rows.

    Args:
        report: the outcome of a check.
    """
    page = _page(None, None)
    # The first line is what lists of failures show, so it is not broken.
    sentence = page.spelled(failure_sentence(report))
    return f"{sentence}\n{_plain(failure_view(report, page), page)}".rstrip()


def print_report(report: Outcome, console: Console | None = None, show_all: bool = False) -> None:
    """Print a report, with colour where the terminal has it.

    Args:
        report: the outcome of a check.
        console: the rich console to print to. Defaults to a new one on standard output.
        show_all: show every variable, not only 30 rows. Defaults to False.
    """
    console = console or terminal_console()
    console.print(report_view(report, _page_of(console), show_all), highlight=False)


def print_history(
    reports: Sequence[Outcome], console: Console | None = None, indent: int = 0
) -> None:
    """Print the checks of a run, one line a checkpoint, oldest first.

    Args:
        reports: the checks of one model, oldest first.
        console: the rich console to print to. Defaults to a new one on standard output.
        indent: how far to the right. Defaults to 0.
    """
    console = console or terminal_console()
    view = Padding(history_view(reports, _page_of(console)), (0, 0, 0, indent))
    console.print(view, highlight=False)


def timeline_text(
    timeline: Timeline,
    width: int | None = None,
    show_all: bool = False,
    encoding: str | None = None,
) -> str:
    """Runs beside each other as plain text.

    Args:
        timeline: the runs.
        width: as for `report_text`.
        show_all: show every layer, not only 30 rows. Defaults to False.
        encoding: as for `report_text`.
    """
    page = _page(width, encoding)
    return _plain(timeline_view(timeline, page, show_all), page)


def print_timeline(
    timeline: Timeline, console: Console | None = None, show_all: bool = False
) -> None:
    """Print runs beside each other, with colour where the terminal has it.

    Args:
        timeline: the runs.
        console: the rich console to print to. Defaults to a new one on standard output.
        show_all: show every layer, not only 30 rows. Defaults to False.
    """
    console = console or terminal_console()
    console.print(timeline_view(timeline, _page_of(console), show_all), highlight=False)


def _page(width: int | None, encoding: str | None) -> Page:
    return Page(
        output_width() if width is None else width,
        output_encoding() if encoding is None else encoding,
    )


def _page_of(console: Console) -> Page:
    return Page(min(console.width, WIDEST), encoding_of(console))


def _plain(view: RenderableType, page: Page) -> str:
    output = io.StringIO()
    console = Console(
        file=output,
        width=page.width,
        color_system=None,
        force_jupyter=False,  # else a notebook shows the text instead of returning it
        legacy_windows=False,
        highlight=False,
    )
    console.print(view)
    return "\n".join(line.rstrip() for line in output.getvalue().rstrip().split("\n"))
