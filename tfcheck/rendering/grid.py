"""Checkpoints side by side: one row a variable (or layer), one column a check.

Layers that are wrong by themselves have a row of their own above the others: they may have no
variables. Both heatmaps, the picture and the one in the page, are drawn from this grid.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tfcheck.errors import ArgumentError, rule
from tfcheck.judge.reasons import shown as shown_as
from tfcheck.judge.verdict import Verdict, digits, worst
from tfcheck.rendering import words
from tfcheck.report.outcome import Outcome
from tfcheck.report.rows import LayerReport, VariableReport

MOST_VARIABLES = 40
MOST_ROWS = 60

_BADNESS = ("absent", "declared", "great", "okay", "inconclusive", "suspect", "fail", "error")


@dataclass(frozen=True, slots=True)
class Cell:
    """What one check found of one variable or layer.

    Attributes:
        kind: `"great"`, `"okay"` (both pass), `"suspect"`, `"fail"`, `"inconclusive"`,
            `"declared"`, `"error"` (no check) or `"absent"`.
        digits: digits of agreement, 0 to 16.
        text: what to write into a cell that is wide enough.
        symbol: what to write into a narrow cell; `""` for a pass.
        title: the finding in words.
    """

    kind: str
    digits: float
    text: str
    symbol: str
    title: str


@dataclass(frozen=True, slots=True)
class Grid:
    """Findings by row and column.

    Attributes:
        rows: paths of the culprits, then of the variables or layers in model order.
        columns: a short label of each check, oldest first.
        moments: a full label of each check.
        cells: one tuple a row, of one cell a column.
        unit: what a row is: `"variable"` or `"layer"`.
        axis: what a column label is: `"step"` or `"checkpoint"`.
        omitted: how many rows were left out, the best ones.
        culprits: so many of the rows, from the first on, are layers that are wrong by themselves.
        epochs: finished epochs at each check; `""` where that is unknown.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    moments: tuple[str, ...]
    cells: tuple[tuple[Cell, ...], ...]
    unit: str
    axis: str
    omitted: int
    culprits: int
    epochs: tuple[str, ...]


def build_grid(reports: Sequence[Outcome], most_rows: int = MOST_ROWS) -> Grid:
    """Arrange reports as a grid.

    Rows are variables, or layers when there are more than 40 variables. Of more rows than
    `most_rows` the worst are kept.

    Args:
        reports: the checks of one model, oldest first.
        most_rows: so many rows at most, beside those of culprits. Defaults to 60.

    Raises:
        ArgumentError: if there is no report.
    """
    require_reports(reports)
    by_variable = _union([variable.path for variable in report.variables] for report in reports)
    by_layer = len(by_variable) > MOST_VARIABLES
    paths = (
        _union([layer.path for layer in report.layers] for report in reports)
        if by_layer
        else by_variable
    )
    found = [_findings(report, by_layer) for report in reports]
    rows = {
        path: tuple(
            _cell(path, column.get(path, []), report)
            for column, report in zip(found, reports, strict=True)
        )
        for path in paths
    }
    kept = sorted(paths, key=lambda path: max(map(_badness, rows[path])), reverse=True)[:most_rows]
    shown = [path for path in paths if path in set(kept)]
    culprits = _union(list(report.culprits) for report in reports)
    stepped = all(report.step is not None for report in reports)
    return Grid(
        rows=(*culprits, *shown),
        columns=tuple(_column(place, report) for place, report in enumerate(reports)),
        moments=tuple(
            words.moment(report) or f"check {place + 1}" for place, report in enumerate(reports)
        ),
        cells=(
            *(tuple(_culprit_cell(path, report) for report in reports) for path in culprits),
            *(rows[path] for path in shown),
        ),
        unit="layer" if by_layer else "variable",
        axis="step" if stepped else "checkpoint",
        omitted=len(paths) - len(shown),
        culprits=len(culprits),
        epochs=tuple("" if report.epoch is None else str(report.epoch) for report in reports),
    )


def require_reports(reports: Sequence[Outcome]) -> None:
    """Refuse an empty sequence of reports.

    Raises:
        ArgumentError: if there is no report.
    """
    if not reports:
        raise ArgumentError(
            rule("There must be a report to show", "reports", reports, "Give one report or more")
        )


def overall(reports: Sequence[Outcome]) -> tuple[Verdict, str]:
    """The verdict over all checks, and in words: `"fail since step 600"`.

    Raises:
        ArgumentError: if there is no report.
    """
    require_reports(reports)
    verdicts = [report.verdict for report in reports]
    verdict = worst(verdicts)
    such = [place for place, found in enumerate(verdicts) if found is verdict]
    first = words.moment(reports[such[0]]) or f"check {such[0] + 1}"
    if len(reports) == 1:
        return verdict, str(verdict)
    if len(such) == len(reports):
        return verdict, f"{verdict} in all {len(reports)} checks"
    if such == list(range(such[0], len(reports))):
        return verdict, f"{verdict} since {first}"
    return verdict, f"{verdict} in {len(such)} of {len(reports)} checks, first at {first}"


def _union(lists: Iterable[list[str]]) -> list[str]:
    return list(dict.fromkeys(path for paths in lists for path in paths))


Reported = VariableReport | LayerReport


def _findings(report: Outcome, by_layer: bool) -> dict[str, list[Reported]]:
    """The findings of each row; Keras allows two variables, or two layers, of one path."""
    found: dict[str, list[Reported]] = {}
    for layer in report.layers:
        for finding in (layer,) if by_layer else layer.variables:
            found.setdefault(finding.path, []).append(finding)
    return found


def _cell(path: str, findings: list[Reported], report: Outcome) -> Cell:
    cells = [_cell_of(finding, report) for finding in findings]
    if cells:
        return max(cells, key=_badness)
    when = words.moment(report)
    if report.verdict is Verdict.ERROR:
        return Cell("error", 0.0, words.SYMBOLS["error"], words.SYMBOLS["error"], f"{when}: error")
    return Cell("absent", 0.0, "", "", f"{path}, {when}: not checked")


def _culprit_cell(path: str, report: Outcome) -> Cell:
    """The cell of a culprit's own row: whether this check found it wrong by itself."""
    if path not in report.culprits:
        return _cell(path, [], report)
    symbol = words.SYMBOLS["fail"]
    where = dict(zip(report.culprits, words.placed_culprits(report), strict=True))[path]
    when = words.moment(report)
    title = f"{where}{', ' if when else ''}{when}: wrong by itself"
    return Cell("fail", 0.0, f"{symbol} culprit", symbol, title)


def _cell_of(finding: Reported, report: Outcome) -> Cell:
    kind, reason = _kind(finding)
    agreement = digits(finding.score)
    shade = kind
    text = symbol = words.SYMBOLS[kind]
    if kind == "pass":
        band = report.settings.thresholds.band(finding.score)
        shade = "great" if band == "great" or reason else "okay"
        symbol = ""
        # A pass that has a reason of its own (a kink, no influence) is not told by its score.
        text = text if reason or math.isnan(finding.score) else f"{agreement:.1f}"
    elif kind in ("fail", "suspect"):
        text = f"{text} {_ground(finding, reason, report)}".rstrip()
    score = words.scientific(finding.score)
    why = f", {shown_as(reason)}" if reason and kind != "declared" else ""
    when = words.moment(report)
    title = f"{finding.path}{', ' if when else ''}{when}: {kind}{why}, score {score}"
    return Cell(shade, agreement, text, symbol, title)


def _ground(finding: Reported, reason: str, report: Outcome) -> str:
    """What a bad verdict rests on: its reason, or the digits where they say the same as it.

    A gradient that agrees in many digits may still be misapplied or blocked.
    """
    if reason:
        return shown_as(reason)
    if math.isnan(finding.score):
        return "nan"
    band = report.settings.thresholds.band(finding.score)
    told = {"concerning": Verdict.FAIL, "suspect": Verdict.SUSPECT}.get(band)
    return f"{digits(finding.score):.1f}" if told is finding.verdict else ""


def _kind(finding: Reported) -> tuple[str, str]:
    if isinstance(finding, VariableReport):
        return words.kind(finding), finding.reason
    if finding.variables and not any(variable.counts for variable in finding.variables):
        return "declared", "declared"
    reasons = {v.reason for v in finding.variables if v.counts and v.verdict is finding.verdict}
    return str(finding.verdict), reasons.pop() if len(reasons) == 1 else ""


def _badness(cell: Cell) -> tuple[int, float]:
    return _BADNESS.index(cell.kind), -cell.digits


def _column(place: int, report: Outcome) -> str:
    if report.step is not None:
        return str(report.step)
    return report.checkpoint or f"#{place + 1}"
