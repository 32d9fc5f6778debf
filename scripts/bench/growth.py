"""Growth: seconds of a repeated check against parameters and batch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from tfcheck.scripts.bench import cases
from tfcheck.scripts.bench.cases import Case, Effort
from tfcheck.scripts.bench.processes import ask
from tfcheck.scripts.bench.results import Row, Subject


def rows(effort: Effort) -> Iterator[Row]:
    """Three series: what grows, and by which method."""
    quick = effort.quick
    for what, method, series in (
        ("parameters", "directions", [_wide(10**k) for k in range(3, 6 if quick else 9)]),
        ("batch", "directions", _batches((1, 16) if quick else (1, 4, 16, 64, 256, 1024, 4096))),
        ("parameters", "full", [_wide(n) for n in _numbers(quick)]),
    ):
        measured = []
        for size, case in series:
            row = _measure(f"{what}, {_name(method)}", method, size, case, effort)
            measured.append(row)
            yield row
        yield from exponents(measured)


def _measure(name: str, method: str, size: float, case: Case, effort: Effort) -> Row:
    answer = ask(
        "checkers:checks",
        timeout=effort.timeout,
        **case.arguments,
        method=method,
        **effort.repetition,
    )
    parameters = answer.get("parameters")
    if name.startswith("parameters") and parameters:
        size = parameters
    note = answer.get("note", "")
    if "evaluations" in answer:
        note = f"{answer['evaluations']:,} evaluations; {note}"
    what = f"{size:,.0f}"
    row = Row(name, what, answer.get("repeated"), runs=answer.get("runs"), own=True, note=note)
    return row.replaced(size=size)


def exponents(measured: Sequence[Row]) -> Iterator[Row]:
    """Slopes on logarithmic axes: of all sizes, and of the larger half, where constants fade."""
    points = [(row.size, row.value) for row in measured if row.size and row.value]
    for what, chosen in (
        ("exponent, all sizes", points),
        ("exponent, larger half", points[len(points) // 2 :]),
    ):
        if len(chosen) > 1:
            x, y = np.log(np.array(chosen, dtype=float)).T
            slope = float(np.polyfit(x, y, 1)[0])
            yield Row(measured[0].case, what, slope, "", own=True)


def _name(method: str) -> str:
    return "every coordinate" if method == "full" else "directions"


def _numbers(quick: bool) -> tuple[int, ...]:
    """Numbers of parameters for the full check."""
    return (100, 1000) if quick else (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)


def _wide(parameters: int) -> tuple[float, Case]:
    """An MLP of about so many parameters: as wide as its inputs, with two hidden layers."""
    # 2·(w² + w) + 10·w + 10 parameters.
    width = max(1, round(math.sqrt(parameters / 2 + 9) - 3))
    return parameters, cases.mlp(width, width, width, 10)


def _batches(sizes: Sequence[int]) -> list[tuple[float, Case]]:
    return [(size, cases.mlp(784, 128, 10, batch=size)) for size in sizes]


SUBJECT = Subject(
    name="growth",
    title="Growth",
    how="Seconds of a repeated check: of MLPs of growing width, and of the 784-128-10 MLP on "
    "growing batches.",
    ratio="",
    plotted="value",
    logarithmic=True,
    rows=rows,
)
