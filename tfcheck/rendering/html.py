"""Reports as HTML: a fragment for notebooks, and a self-contained page of all checks of a run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from functools import cache
from typing import Any

from jinja2 import Environment
from markupsafe import Markup, escape

from tfcheck.judge.reasons import shown as shown_as
from tfcheck.judge.verdict import Thresholds, digits
from tfcheck.rendering import words
from tfcheck.rendering.advice import advice
from tfcheck.rendering.facts import bands, facts, summary
from tfcheck.rendering.grid import Cell, Grid, build_grid, overall, require_reports
from tfcheck.rendering.palette import COLOURS
from tfcheck.rendering.pictures import NO_PICTURES, RIGHT, WRONG, pictures_of
from tfcheck.rendering.rows import (
    MOST_ROWS,
    Rows,
    attention,
    chosen_rows,
    needs_attention,
    telling_variables,
)
from tfcheck.rendering.templating import pages
from tfcheck.report.outcome import Outcome
from tfcheck.report.rows import VariableReport
from tfcheck.settings import Settings

MOST_EXPLAINED = 12
MOST_COORDINATES = 5

_LEGEND = ("great", "okay", "suspect", "fail", "inconclusive", "declared", "error")
_LONGEST_LABEL = 48
_LETTER = 6.7  # pixels


def report_fragment(report: Outcome) -> str:
    """A report as a piece of HTML with its own style, for notebooks.

    It takes its text colour from the page around it, so it suits light and dark ones.

    Args:
        report: the outcome of a check.
    """
    view = {
        **_view(report, drawn=True),
        "subject": ", ".join(part for part in (report.model, words.moment(report)) if part),
        "advice": advice(report),
        "bands": bands(report.settings.thresholds),
    }
    return _environment().get_template("fragment.html.jinja").render(view=view)


def report_page(reports: Sequence[Outcome], run: str = "") -> str:
    """All checks of a model as one HTML page that needs no other file and no network.

    The verdict comes first, then what to do, a heatmap of all checks, and each check with its
    table, the newest one first and open.

    Args:
        reports: the checks of one model, oldest first.
        run: the name of the run that they are of. Defaults to `""`, a run without a name.

    Raises:
        ArgumentError: if there is no report.
    """
    require_reports(reports)
    newest = reports[-1]
    verdict, finding = overall(reports)
    # The advice is on the newest check with the verdict that the page opens with.
    telling = next(report for report in reversed(reports) if report.verdict is verdict)
    views = [
        _view(
            report,
            drawn=any(report is r for r in (newest, telling)),
            with_rest=report is newest,
            place=place,
        )
        for place, report in enumerate(reports)
    ]
    return (
        _environment()
        .get_template("page.html.jinja")
        .render(
            model=next((report.model for report in reversed(reports) if report.model), ""),
            run=run,
            verdict=str(verdict),
            finding=finding,
            standing=_standing(telling, newest),
            advice=advice(telling),
            map=_map(build_grid(reports)),
            legend=[(kind, f"{words.SYMBOLS[kind]} {kind}") for kind in _LEGEND],
            views=views[::-1],
            bands=bands(newest.settings.thresholds),
            version=newest.settings.version,
        )
    )


def _standing(telling: Outcome, newest: Outcome) -> str:
    """The sentence below the headline: what was found, and how things stand now."""
    parts = [summary(telling)]
    if telling.culprits:
        label = "Culprit" if len(telling.culprits) == 1 else "Culprits"
        parts.append(f"{label}: {', '.join(words.placed_culprits(telling, '`'))}.")
    if newest is not telling:
        moment = words.moment(newest)
        parts.append(f"Newest check{f', {moment}' if moment else ''}: {newest.verdict}.")
    return " ".join(parts)


def _view(
    report: Outcome, *, drawn: bool, with_rest: bool = False, place: int = 0
) -> dict[str, Any]:
    rows = chosen_rows(report, MOST_ROWS)
    return {
        "report": report,
        "when": words.moment(report) or f"check {place + 1}",
        "summary": summary(report),
        "facts": facts(report),
        "rows": rows,
        "rest": _rest(report, rows) if with_rest else (),
        "telling": telling_variables(report),
        "glossary": words.glossary(report),
        "pictures": pictures_of(report) if drawn else NO_PICTURES,
    }


def _rest(report: Outcome, rows: Rows) -> tuple[tuple[VariableReport, ...], ...]:
    shown = {id(variable) for group in rows.groups for variable in group}
    groups = chosen_rows(report, None).groups
    rest = (tuple(v for v in group if id(v) not in shown) for group in groups)
    return tuple(group for group in rest if group)


def _map(grid: Grid) -> dict[str, Any]:
    """Where everything in the heatmap goes, in pixels."""
    labels = [
        f"{words.CULPRIT if place < grid.culprits else ''}{words.shortened(path, _LONGEST_LABEL)}"
        for place, path in enumerate(grid.rows)
    ]
    left = 24 + max((7.3 * len(label) for label in labels), default=0)
    width = min(84, max(14, int((1020 - left) / max(8, len(grid.columns)))))
    return {
        "label": f"digits of agreement by {grid.unit} and {grid.axis}",
        "unit": grid.unit,
        "axis": grid.axis,
        "epochs": any(grid.epochs),
        "omitted": grid.omitted,
        "culprits": grid.culprits,
        "left": left,
        "cell": width,
        "width": left + width * len(grid.columns) + 12,
        "height": 22 * len(labels) + (40 if any(grid.epochs) else 26),
        "rows": [
            {
                "label": label,
                "path": path,
                "y": 22 * place,
                "culprit": place < grid.culprits,
                "cells": _map_cells(cells, left, width),
            }
            for place, (label, path, cells) in enumerate(
                zip(labels, grid.rows, grid.cells, strict=True)
            )
        ],
        "columns": _map_columns(grid, left, width),
    }


def _map_cells(cells: Sequence[Cell], left: float, width: int) -> list[dict[str, Any]]:
    return [
        {
            **dataclasses.asdict(cell),
            "text": cell.text if _LETTER * len(cell.text) <= width else cell.symbol,
            "x": left + width * column,
        }
        for column, cell in enumerate(cells)
    ]


def _map_columns(grid: Grid, left: float, width: int) -> list[dict[str, Any]]:
    every = -(-(8 + 7 * max(map(len, grid.columns))) // width)
    last = len(grid.columns) - 1
    named = zip(grid.columns, grid.moments, grid.epochs, strict=True)
    return [
        {"label": label, "title": moment, "epoch": epoch, "x": left + width * (place + 0.5) - 1}
        for place, (label, moment, epoch) in enumerate(named)
        if (last - place) % every == 0
    ]


def _why(variable: VariableReport, thresholds: Thresholds) -> str:
    """What stands beside the verdict: its reason or, where it has none, the band of the score."""
    if variable.reason == "declared":
        return ""
    if variable.reason:
        return shown_as(variable.reason)
    band = thresholds.band(variable.score)
    return "" if band == words.kind(variable) else band


def _any_detectable(groups: Sequence[Sequence[VariableReport]]) -> bool:
    return any(math.isfinite(v.detectable_error) for group in groups for v in group)


def _any_imprecise(groups: Sequence[Sequence[VariableReport]], settings: Settings) -> bool:
    return any(v.precision_error > settings.precision for group in groups for v in group)


def _code(text: str) -> Markup:
    """Text with what stands between backticks as code; all of it escaped."""
    text = words.printable(text)
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return escape(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if place % 2 else escape(part)
        for place, part in enumerate(parts)
    )


def _breakable(path: str) -> Markup:
    """A path that a browser may break behind its slashes."""
    return Markup("/<wbr>").join(words.printable(path).split("/"))


@cache
def _environment() -> Environment:
    environment = pages()
    environment.globals.update(
        symbols=words.SYMBOLS,
        colours=COLOURS,
        right_colour=RIGHT,
        wrong_colour=WRONG,
        most_explained=MOST_EXPLAINED,
        most_coordinates=MOST_COORDINATES,
    )
    environment.filters.update(
        any_attention=attention,
        any_detectable=_any_detectable,
        any_imprecise=_any_imprecise,
        attention=needs_attention,
        breakable=_breakable,
        code=_code,
        digits=digits,
        index=words.index,
        kind=words.kind,
        number=words.number,
        plural=words.plural,
        ratio=words.ratio,
        scientific=words.scientific,
        sentences=words.variable_sentences,
        shape=words.shape,
        why=_why,
    )
    return environment
