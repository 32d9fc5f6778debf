"""Runs beside each other as HTML: a fragment for notebooks, and a self-contained page."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment

from tfcheck._version import __version__
from tfcheck.rendering import runs_words, words
from tfcheck.rendering.palette import COLOURS
from tfcheck.rendering.templating import pages
from tfcheck.runs.timeline import Timeline, when


def runs_page(timeline: Timeline) -> str:
    """Runs beside each other as a page that needs no other file and no network."""
    view = _view(timeline, None)
    return _environment().get_template("runs_page.html.jinja").render(view=view)


def runs_fragment(timeline: Timeline) -> str:
    """The same as a piece of HTML with its own style, for notebooks."""
    view = _view(timeline, runs_words.MOST_LAYERS)
    return _environment().get_template("runs_fragment.html.jinja").render(view=view)


def _view(timeline: Timeline, most: int | None) -> dict[str, Any]:
    layers, hidden = runs_words.rows(timeline, most)
    return {
        "headline": runs_words.headline(timeline),
        "standing": runs_words.standing(timeline),
        "verdict": str(timeline.runs[-1].verdict),
        "runs": [
            {
                "number": place,
                "is_base": run is timeline.base,
                "label": run.label,
                "run_id": run.run_id,
                "began": when(run.started_at),
                "verdict": str(run.verdict),
                "since": runs_words.since(run),
                "culprits": runs_words.culprits(run),
            }
            for place, run in enumerate(timeline.runs, 1)
        ],
        "rows": [
            {"layer": layer, "cells": [runs_words.cell(run, layer) for run in timeline.runs]}
            for layer in layers
        ],
        "hidden": hidden,
        "changes": runs_words.changed_together(timeline),
        "pairs": [
            {
                "title": f"{pair.base.label} → {pair.run.label}",
                "answers": runs_words.answers(pair, brief=timeline.base is None),
                "command": pair.command,
            }
            for pair in timeline.differences
        ],
        "version": __version__,
    }


@cache
def _environment() -> Environment:
    environment = pages()
    environment.globals.update(
        symbols=words.SYMBOLS,
        colours=COLOURS,
        legend=runs_words.LEGEND,
        of_change={"regressed": "fail", "fixed": "pass", "declared": "declared"},
    )
    environment.filters.update(plural=words.plural)
    return environment
