"""What a report and a history look like: their parts, one below the other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tfcheck.errors import some
from tfcheck.rendering import words
from tfcheck.rendering.advice import advice
from tfcheck.rendering.facts import facts, summary, worst_variable
from tfcheck.rendering.page import Page
from tfcheck.rendering.rows import MOST_ROWS, chosen_rows, needs_attention, telling_variables
from tfcheck.rendering.table import coordinates_view, variables_view
from tfcheck.report.outcome import Outcome

MOST_EXPLAINED = 8
MOST_EXPLAINED_OF_A_FAILURE = 3


def report_view(report: Outcome, page: Page, show_all: bool = False) -> RenderableType:
    """A report as something rich can print on this page."""
    rows = chosen_rows(report, None if show_all else MOST_ROWS)
    counted = Padding(page.text(summary(report)), (0, 0, 0, 2))
    parts: list[RenderableType] = [_headline(report, page), counted]
    if report.error:
        parts.append(Padding(page.text(report.error, "red"), (1, 2, 1, 2)))
    parts.append(_facts(report, page))
    if rows.groups:
        parts.append(variables_view(report, rows.groups, page))
    if rows.hidden:
        more = words.plural(rows.hidden, "more variable")
        parts.append(page.text(f"  … and {more}, all pass", "dim"))
    parts.extend(_explanations(report, show_all, page))
    parts.append(_remarks(report, page))
    if rows.groups:
        parts.append(Padding(page.text(words.HOW_TO_READ, "dim"), (1, 2, 0, 2)))
    return Group(*parts)


def failure_view(report: Outcome, page: Page) -> RenderableType:
    """What of a report does not pass: the rows, and what is to say of them."""
    parts: list[RenderableType] = []
    if report.error:
        parts.append(Padding(page.text(report.error), (1, 2, 0, 2)))
    wrong = [variable for variable in report.worst_first if needs_attention(variable)]
    shown = {id(variable) for variable in wrong[:MOST_ROWS]}
    rows = [tuple(v for v in layer.variables if id(v) in shown) for layer in report.layers]
    if shown:
        parts.append(variables_view(report, [group for group in rows if group], page))
    if more := len(wrong) - len(shown):
        parts.append(page.text(f"  … and {words.plural(more, 'more variable')} that do not pass"))
    parts.extend(_explanations(report, False, page, MOST_EXPLAINED_OF_A_FAILURE))
    return Group(*parts)


def history_view(reports: Sequence[Outcome], page: Page) -> RenderableType:
    """The checks of a run as something rich can print on this page."""
    if page.narrow:
        return Group(*(_moment(report, page) for report in reports))
    table = Table(box=page.rules, show_edge=False, pad_edge=False, header_style="dim")
    table.add_column("step", justify="right", overflow="fold")
    table.add_column("checkpoint", overflow="fold")
    table.add_column("verdict", no_wrap=True)
    table.add_column("worst score", justify="right", overflow="fold")
    table.add_column("failing layers", overflow="fold")
    table.add_column("seconds", justify="right", overflow="fold")
    for report in reports:
        table.add_row(*_history_cells(report, page))
    return table


def _history_cells(report: Outcome, page: Page) -> tuple[Text, ...]:
    worst = worst_variable(report)
    verdict = str(report.verdict)
    layers = some(report.failing_layers, 3)
    seconds = words.number(report.seconds, 2) if math.isfinite(report.seconds) else "–"
    return (
        page.text("" if report.step is None else str(report.step)),
        page.text(report.checkpoint),
        page.symbol(verdict, verdict),
        page.text(words.scientific(worst.score) if worst else ""),
        page.text(layers or report.error.split("\n")[0], "" if layers else "dim"),
        page.text(seconds),
    )


def _moment(report: Outcome, page: Page) -> RenderableType:
    """One check of a history, where there is no room for a table."""
    _, _, verdict, score, layers, _ = _history_cells(report, page)
    line = Text.assemble(page.text(f"{words.moment(report)}: "), verdict, ", worst score ", score)
    return Group(line, *([Padding(layers, (0, 0, 0, 2))] if layers else []))


def _headline(report: Outcome, page: Page) -> Text:
    verdict = str(report.verdict)
    subject = ", ".join(part for part in (report.model, words.moment(report)) if part)
    return Text.assemble(
        page.symbol(verdict, verdict.upper()),
        page.text(
            f"  gradient check{' of ' if report.model else ', ' if subject else ''}{subject}"
        ),
    )


def _facts(report: Outcome, page: Page) -> RenderableType:
    return page.labelled(
        [
            (label, page.text(line, "bold red" if label.startswith("culprit") else ""))
            for label, line in facts(report)
        ]
    )


def _explanations(
    report: Outcome, show_all: bool, page: Page, most: int = MOST_EXPLAINED
) -> Iterable[RenderableType]:
    """For each variable that needs it: what is to say, and its worst coordinates."""
    telling = telling_variables(report)
    shown = telling if show_all else telling[:most]
    for variable in shown:
        head = page.symbol(words.kind(variable), page.folded(variable.path, page.width - 4))
        yield Padding(head, (1, 0, 0, 2))
        if sentences := words.variable_sentences(variable):
            yield Padding(page.text(" ".join(sentences)), (0, 2, 0, 4))
        if variable.worst and needs_attention(variable):
            yield Padding(coordinates_view(variable, show_all, page), (0, 0, 0, 4))
    if len(telling) > len(shown):
        more = words.plural(len(telling) - len(shown), "more variable")
        yield Padding(page.text(f"… and {more} to explain", "dim"), (1, 0, 0, 2))


def _remarks(report: Outcome, page: Page) -> RenderableType:
    remarks: list[tuple[str, RenderableType]] = [
        (name, page.text(sentence)) for name, sentence in words.glossary(report)
    ]
    if report.frozen:
        few = len(report.frozen) <= 4
        names = ", ".join(report.frozen) if few else "not trainable, so not checked"
        counted = words.plural(len(report.frozen), "variable")
        remarks.append(("frozen", page.text(f"{counted}: {names}")))
    if report.notes:
        remarks.append(("notes", page.listed(report.notes)))
    if steps := advice(report):
        remarks.append(("next", page.listed(steps)))
    return Padding(page.labelled(remarks), (1, 0, 0, 0)) if remarks else Group()
