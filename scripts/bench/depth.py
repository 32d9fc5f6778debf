"""Depth: a repeated check against the number of layers, all right and with one wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tfcheck.scripts.bench.cases import Effort, residual
from tfcheck.scripts.bench.networks import WRONG, judged_rightly
from tfcheck.scripts.bench.processes import ask
from tfcheck.scripts.bench.results import Row, Subject, ratio

RIGHT = "all layers right"
EACH = "a layer more, fitted"
LEAST = "of no layer, fitted"
DEVIATION = "largest deviation from that line"
TIMEOUT = 600.0


def rows(effort: Effort) -> Iterator[Row]:
    """Two series of residual networks, each with the line through it."""
    for wrong in (False, True):
        measured = []
        for layers in (2, 5, 10) if effort.quick else (2, 5, 10, 20, 50, 100, 200):
            measured.append(measure(layers, effort, wrong=wrong))
            yield measured[-1]
        yield from line(measured)


def measure(layers: int, effort: Effort, *, wrong: bool) -> Row:
    """One network: seconds of its repeated check, also in its own forward passes."""
    case = residual(layers, wrong=wrong)
    answer = ask(
        "beside_training:measure",
        timeout=min(effort.timeout, TIMEOUT),
        **case.arguments,
        **effort.repetition,
    )
    seconds, note = answer.get("repeated"), answer.get("note", "")
    row = Row(WRONG if wrong else RIGHT, f"{layers} layers", seconds, own=True, size=layers)
    if seconds is None:
        return row.replaced(note=note)
    said = f"{answer['evaluations']:,} evaluations; {answer['compared']} of {answer['variables']}"
    said += f" variables compared; verdict {answer['verdict']}"
    if wrong:
        said += f", culprits: {', '.join(answer['culprits']) or 'none'}"
    row = row.replaced(ratio=ratio(seconds, answer["forward"]), runs=answer["runs"], note=said)
    goal = "fail, at the wrong layer" if wrong else "pass"
    return row.replaced(goal=goal, met=judged_rightly(case, answer))


def line(measured: Sequence[Row]) -> Iterator[Row]:
    """The straight line through seconds against layers, and how far from it they are.

    Each number of layers weighs the same: what is made small are relative deviations, as those of
    the seconds of large networks alone would hide all others.
    """
    points = [(row.size, row.value) for row in measured if row.size and row.value]
    if len(points) < 3:
        return
    x, y = np.array(points, dtype=float).T
    slope, least = np.polyfit(x, y, 1, w=1 / y)
    off = float(np.max(np.abs((slope * x + least) / y - 1)))
    series = measured[0].case
    yield Row(series, EACH, float(slope), own=True)
    yield Row(series, LEAST, float(least), own=True)
    yield Row(series, DEVIATION, 100 * off, "%", own=True)


SUBJECT = Subject(
    name="depth",
    title="Depth",
    how="Seconds of a repeated check of residual networks of 32 units and a growing number of "
    "layers, and how many of the model's own forward passes in float64 that is; all right, and "
    "with one layer in the middle that passes on a gradient that is off by 5 %. The lines are "
    "least squares of relative deviations.",
    ratio="× forward pass",
    plotted="value",
    rows=rows,
)
