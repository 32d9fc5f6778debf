"""The matrix of a run's layers, which MLflow puts beside those of other runs.

MLflow gives every row 190 pixels and every run 360, and breaks no line: so a row is a layer with
all its variables, and the first row sums up the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfcheck.gradient_report import GradientReport
from tfcheck.judge.verdict import Verdict
from tfcheck.rendering.words import moment, plural
from tfcheck.tracking import over_checkpoints, schema
from tfcheck.tracking.tables import cell_text

WHOLE = "(whole model)"
_SEPARATOR = " · "
_MOST_NAMED = 12
_LONGEST = 500  # MLflow shows 512 characters of a cell


def matrix_table(reports: Sequence[GradientReport]) -> dict[str, Any]:
    """A row a layer, what failed first, below a row for the run: `(layer, verdict)`."""
    found = over_checkpoints.worst_first(over_checkpoints.histories(reports))
    culprits = over_checkpoints.guilty_since(reports)
    places = over_checkpoints.culprit_places(reports)
    rows = {WHOLE: _whole(reports, len(found))}
    for path in dict.fromkeys([*culprits, *(item.layer for item in found)]):
        parts = [_layer([item for item in found if item.layer == path])]
        if path in culprits:
            place = f" at {places[path]}" if path in places else ""
            parts.insert(0, f"❌ culprit from {culprits[path]}{place}")
        rows[path] = _SEPARATOR.join(filter(None, parts))
    data = [[path, schema.cut(cell, _LONGEST)] for path, cell in rows.items()]
    return {"columns": ["layer", "verdict"], "data": data}


def _whole(reports: Sequence[GradientReport], variables: int) -> str:
    """A run in a few words: its verdict, since when, and through what."""
    verdict = over_checkpoints.overall(reports)
    parts = [f"{schema.MARKS[verdict]} {verdict}"]
    first = over_checkpoints.first_fail(reports)
    if first is not None and moment(first):
        parts[0] += f" from {moment(first)}"
    culprits = over_checkpoints.culprits(reports)
    others = [layer for layer in over_checkpoints.failing_layers(reports) if layer not in culprits]
    for label, layers in (("culprit", culprits), ("failing", others)):
        if layers:
            more = len(layers) - _MOST_NAMED
            named = ", ".join(layers[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
            parts.append(f"{label}: {named}")
    if verdict is Verdict.PASS:
        parts.append(f"{plural(variables, 'variable')} in {plural(len(reports), 'check')}")
    return _SEPARATOR.join(parts)


def _layer(items: Sequence[over_checkpoints.VariableHistory]) -> str:
    """A layer's variables, worst first; where all pass, the worst speaks for them."""
    if items and all(item.verdict is Verdict.PASS and item.worst.counts for item in items):
        return cell_text(items[0])
    return _SEPARATOR.join(f"{item.worst.name} {cell_text(item)}" for item in items)
