"""The layers in a row, as a picture: the culprit, and those that it corrupts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from tfcheck.judge.verdict import Verdict
from tfcheck.rendering import words
from tfcheck.report.chain import Link
from tfcheck.report.outcome import Outcome

_WIDTH, _ROW, _BOX, _BOX_WIDTH = 340, 38, 24, 196
_LONGEST_NAME = 27
_LONGEST_RUN = 4
"""Of more layers in a row of which the same is said, all but the first and the last are folded."""

_MOST_ROWS = 30

_SAID = {
    "culprit": "✗ culprit",
    "corrupted": "✗ gets a wrong gradient",
    "fail": "✗ fails",
    "suspect": "! suspect",
    "pass": "✓ right",
    "": "",
}


def chain_picture(report: Outcome) -> dict[str, Any] | None:
    """Where everything goes in the picture of the layers, in pixels; None where there is none.

    Args:
        report: the outcome of a check.
    """
    if len(report.chain) < 2 or not report.culprits:
        return None
    rows = list(itertools.islice(_rows(report), _MOST_ROWS))
    corrupted = [link.path for link in report.chain if link.corrupted]
    drawn = [
        {
            "name": words.shortened(name, _LONGEST_NAME),
            "path": name,
            "kind": kind or "other",
            "said": _SAID[kind],
            "folded": folded,
            "y": _ROW * place + 1,
        }
        for place, (name, kind, folded) in enumerate(rows)
    ]
    arrows = [
        # The gradient goes up, from a layer to the one before it.
        {"y": _ROW * (place + 1), "wrong": kind == "corrupted"}
        for place, (_, kind, _) in enumerate(rows[:-1])
    ]
    return {
        "width": _WIDTH,
        "height": _ROW * len(rows) - (_ROW - _BOX) + 2,
        "box": _BOX,
        "box_width": _BOX_WIDTH,
        "rows": drawn,
        "arrows": arrows,
        "title": "The layers in the order in which they compute the loss",
        "about": _about(report, corrupted),
    }


def _about(report: Outcome, corrupted: list[str]) -> str:
    culprits, several = ", ".join(f"`{path}`" for path in report.culprits), len(report.culprits) > 1
    if not corrupted:
        wrong = "are wrong by themselves" if several else "is wrong by itself"
        return f"Gradients go up, from the loss. {culprits} {wrong}; no layer before suffers."
    layers = "1 layer gets it" if len(corrupted) == 1 else f"{len(corrupted)} layers get it"
    hands = "hand on wrong ones" if several else "hands on a wrong one"
    return f"Gradients go up, from the loss. {culprits} {hands}; {layers} (dashed)."


def _rows(report: Outcome) -> Iterator[tuple[str, str, bool]]:
    """Names, what is said of them, and whether they stand for layers that are folded."""
    said = [
        (link.path.removeprefix(f"{report.model}/"), _kind(report, link)) for link in report.chain
    ]
    # What has no variables, and so no verdict, may lie between what is right.
    for _, run in itertools.groupby(said, lambda one: one[1] if one[1] != "pass" else ""):
        layers = list(run)
        if len(layers) <= _LONGEST_RUN:
            yield from ((name, kind, False) for name, kind in layers)
            continue
        first, *folded, last = layers
        yield *first, False
        kind = max(kind for _, kind in folded)
        yield f"… {words.plural(len(folded), 'more layer')}", kind, True
        yield *last, False


def _kind(report: Outcome, link: Link) -> str:
    if link.path in report.culprits:
        return "culprit"
    if link.corrupted:
        return "corrupted"
    verdicts = {layer.path: layer.verdict for layer in report.layers}
    verdict = verdicts.get(link.path)
    known = (Verdict.FAIL, Verdict.SUSPECT, Verdict.PASS)
    return str(verdict) if verdict in known else ""
