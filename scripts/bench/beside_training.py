"""A model's check beside its own training: seconds, memory, what was compared and what is said."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tfcheck.scripts.bench.memory import load_everything, memory_now, peak_above
from tfcheck.scripts.bench.processes import Answer
from tfcheck.scripts.bench.timing import once, quartiles

if TYPE_CHECKING:
    from tfcheck.checker import GradientChecker
    from tfcheck.gradient_report import GradientReport
    from tfcheck.trace.batch import Batch

TRIES = 5
NOT_COMPARED = ("below_resolution", "unused", "unchecked")
"""Reasons of verdicts on variables whose derivative was not compared with anything."""


def measure(model: str, sizes: dict[str, Any], repeats: int, seconds: float) -> Iterator[Answer]:
    """All that is to be known of a model, as it comes: a process may be stopped before the end.

    Args:
        model: see `cases.Case`.
        sizes: see `cases.Case`.
        repeats: repeated checks, at most.
        seconds: no further check but the first repeated one begins after so many seconds of them.
    """
    from tfcheck.scripts.bench.checkers import checker
    from tfcheck.scripts.bench.models import build

    load_everything()
    built = build(model, sizes)
    check, batch = checker(built)
    reports: list[GradientReport] = []

    def step() -> None:
        built.model.train_on_batch(built.x, built.y)

    def check_once() -> None:
        reports.append(check.check(batch))

    level = memory_now()
    yield {"parameters": built.parameters, "first_step": once(step)}
    yield {"step_bytes": peak_above(level), "step": min(once(step) for _ in range(TRIES))}
    level = memory_now()
    tracing = once(lambda: check.objective(batch))
    yield {"tracing": tracing}
    yield {"first_check": tracing + once(check_once), "check_bytes": peak_above(level)}
    yield {"forward": _forward(check, batch)}
    taken: list[float] = []
    while len(taken) < repeats and sum(taken) < seconds:
        taken.append(once(check_once))
    yield {"repeated": quartiles(taken)[1], "runs": len(taken), **said(reports[-1])}


def _forward(check: GradientChecker, batch: Batch) -> float:
    """Seconds of a forward pass in float64: the loss that is checked, by the graph that is."""
    objective = check.objective(batch)
    inputs = objective.at(batch).inputs
    objective.loss(0, inputs)
    return min(once(lambda: objective.loss(0, inputs)) for _ in range(TRIES))


def said(report: GradientReport) -> Answer:
    """The report in numbers: evaluations, variables that were compared, verdict and culprits."""
    compared = [
        v for v in report.variables if v.reason not in NOT_COMPARED and not math.isnan(v.score)
    ]
    return {
        "evaluations": report.evaluations,
        "variables": len(report.variables),
        "compared": len(compared),
        "verdict": str(report.verdict),
        "culprits": list(report.culprits),
    }
