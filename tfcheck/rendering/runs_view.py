"""What runs beside each other look like on the console."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tfcheck.rendering import runs_words, words
from tfcheck.rendering.page import STYLES, Page
from tfcheck.runs.record import RunRecord
from tfcheck.runs.timeline import Timeline, when

_LEAST_PATH = 16
_CELL = 4
"""A number, or a symbol with the mark of a culprit, and a gap."""

_OF_CHANGE = {"regressed": STYLES["fail"], "fixed": STYLES["pass"], "declared": STYLES["declared"]}


def timeline_view(timeline: Timeline, page: Page, show_all: bool = False) -> RenderableType:
    """Runs beside each other, as something rich can print on this page."""
    parts: list[RenderableType] = [
        page.text(runs_words.headline(timeline), "bold"),
        Padding(page.text(runs_words.standing(timeline)), (0, 0, 1, 2)),
        _runs(timeline, page),
        *_matrix(timeline, page, show_all),
        *_changes(timeline, page),
        *_differences(timeline, page),
    ]
    return Group(*parts)


def _runs(timeline: Timeline, page: Page) -> RenderableType:
    if page.narrow:
        lines = (_stacked(place, run, page) for place, run in enumerate(timeline.runs, 1))
        return Group(*lines)
    table = Table(box=page.rules, show_edge=False, pad_edge=False, header_style="dim")
    table.add_column("", justify="right", no_wrap=True)
    for title in ("run", "began (UTC)", "verdict", "since", "culprits"):
        table.add_column(title, overflow="fold")
    for place, run in enumerate(timeline.runs, 1):
        verdict = str(run.verdict)
        table.add_row(
            page.text(_number(place, run, timeline)),
            page.text(run.label),
            page.text(when(run.started_at)),
            page.symbol(verdict, verdict),
            page.text(runs_words.since(run)),
            page.text(runs_words.culprits(run)),
        )
    return table


def _number(place: int, run: RunRecord, timeline: Timeline) -> str:
    return f"base {place}" if run is timeline.base else str(place)


def _stacked(place: int, run: RunRecord, page: Page) -> RenderableType:
    verdict, since = str(run.verdict), runs_words.since(run)
    head = Text.assemble(page.text(f"{place}. {run.label}: "), page.symbol(verdict, verdict))
    more = ", ".join(filter(None, (since and f"since {since}", runs_words.culprits(run))))
    return Group(head, *([Padding(page.text(more, "dim"), (0, 0, 0, 3))] if more else []))


def _matrix(timeline: Timeline, page: Page, show_all: bool) -> Iterable[RenderableType]:
    """Layers × runs: the newest runs that there is room for."""
    layers, hidden = runs_words.rows(timeline, None if show_all else runs_words.MOST_LAYERS)
    if not layers:
        return
    room = max(1, (page.width - _LEAST_PATH - 4) // _CELL)
    first = max(0, len(timeline.runs) - room)
    shown = timeline.runs[first:]
    longest = max(len(page.spelled(layer)) for layer in layers)
    path_width = min(longest, max(_LEAST_PATH, page.width - _CELL * len(shown) - 4))
    table = Table(box=page.rules, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("layer", header_style="dim", width=max(path_width, len("layer")))
    for place in range(first, len(timeline.runs)):
        table.add_column(str(place + 1), header_style="dim", justify="right", no_wrap=True)
    for layer in layers:
        cells = [runs_words.cell(run, layer) for run in shown]
        marks = [
            page.text(f"{'*' if one.culprit else ''}{one.symbol}", STYLES.get(one.kind, ""))
            for one in cells
        ]
        table.add_row(Text(page.shortened(layer, path_width)), *marks)
    yield Padding(table, (1, 0, 0, 0))
    if hidden:
        yield page.text(f"  … and {words.plural(hidden, 'more layer')}, pass in every run", "dim")
    yield Padding(page.text(_key(first), "dim"), (0, 0, 0, 2))


def _key(first: int) -> str:
    named = ", ".join(f"{words.SYMBOLS[kind]} {kind}" for kind in runs_words.LEGEND)
    left_out = f"; runs 1 to {first} are further left" if first else ""
    return f"{named}, * wrong by itself{left_out}"


def _changes(timeline: Timeline, page: Page) -> Iterable[RenderableType]:
    found = runs_words.changed_together(timeline)
    if not found:
        told = "Nothing regressed, and nothing was fixed."
        yield Padding(page.text(told), (1, 0, 0, 2))
        return
    lines = [(one.what, page.text(one.told, _OF_CHANGE[one.what])) for one in found]
    yield Padding(page.labelled(lines), (1, 0, 0, 0))


def _differences(timeline: Timeline, page: Page) -> Iterable[RenderableType]:
    for pair in timeline.differences:
        yield Padding(page.text(f"{pair.base.label} → {pair.run.label}", "bold"), (1, 0, 0, 2))
        asked = runs_words.answers(pair, brief=timeline.base is None)
        answers = [(label, page.text(told)) for label, told in asked]
        yield Padding(page.labelled(answers), (0, 0, 0, 2))
        if pair.command:
            # To be copied: in one piece, however wide the page is.
            command = Text(f"    {pair.command}", "bold", no_wrap=True, overflow="ignore")
            yield command
