"""tfcheck as it is measured: a checker with the options' own defaults, and the times it takes."""

from __future__ import annotations

from inspect import signature
from typing import Any

from tfcheck.check import check_gradients
from tfcheck.checker import GradientChecker
from tfcheck.gradient_report import GradientReport
from tfcheck.scripts.bench.models import Built, build
from tfcheck.scripts.bench.processes import Answer, CannotMeasureError
from tfcheck.scripts.bench.timing import timed
from tfcheck.settings import make_settings
from tfcheck.trace.batch import Batch, first_batch


def checker(built: Built, **options: Any) -> tuple[GradientChecker, Batch]:
    """A checker as `check_gradients` makes one, which keeps what it has traced, and its batch.

    Args:
        built: the model.
        options: those of `check_gradients`.
    """
    known = signature(make_settings).parameters
    for name in options:
        if name not in known:
            raise CannotMeasureError(f"this version of tfcheck has no option {name}")
    defaults = {
        name: parameter.default
        for name, parameter in signature(check_gradients).parameters.items()
        if name in known
    }
    settings = make_settings(**{**defaults, **options})
    return GradientChecker(built.model, settings), first_batch(built.x, built.y)


def checks(model: str, sizes: dict[str, Any], method: str, repeats: int, seconds: float) -> Answer:
    """Seconds of a first check, and of those after it."""
    built = build(model, sizes)
    check, batch = checker(built, method=method)
    reports: list[GradientReport] = []
    timing = timed(lambda: reports.append(check.check(batch)), repeats=repeats, seconds=seconds)
    return {
        **timing.answer(),
        "parameters": built.parameters,
        "evaluations": reports[-1].evaluations,
        "note": f"verdict {reports[-1].verdict}",
    }
