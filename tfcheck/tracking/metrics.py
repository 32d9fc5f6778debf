"""The numbers of a report in MLflow, as pure functions.

Their names are made so that MLflow's charts fall into few sections: it cuts at the last `/`, and a
section per layer or variable would be unreadable.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from tfcheck.gradient_report import GradientReport
from tfcheck.judge.reasons import Reason
from tfcheck.judge.verdict import Verdict, digits
from tfcheck.tracking import over_checkpoints, schema

# More charts than this help nobody: beyond it, metrics are per layer, and the rest in the tables.
MAX_VARIABLE_METRICS = 100

LEVELS = {
    Verdict.PASS: 0.0,
    Verdict.INCONCLUSIVE: 1.0,
    Verdict.ERROR: 1.0,
    Verdict.SUSPECT: 2.0,
    Verdict.FAIL: 3.0,
}
"""A verdict as a number, for charts. After a check that could not be made, nothing is known."""

# MLflow allows names of 250 characters; the longest prefix is "gradcheck/digits/".
_MAX_NAME = 200


def metric_name(text: str) -> str:
    """A layer or variable path as the last part of a metric name.

    Example:
        >>> metric_name("encoder/dense:0/kernel")
        'encoder.dense_0.kernel'
    """
    name = re.sub(r"[^\w.\-]+", "_", text.replace("/", ".")).strip(".")
    if len(name) > _MAX_NAME:
        name = f"{name[:110]}_{name[-80:]}"
    return name or "unnamed"


def metric_names(paths: Iterable[str]) -> list[str]:
    """A metric name for each path, no two alike.

    Names that differ only by case count as alike: file systems and databases may not tell them
    apart.

    Example:
        >>> metric_names(["a/b", "a.b", "A/b"])
        ['a.b', 'a.b_2', 'A.b_3']
    """
    taken: set[str] = set()
    names = []
    for path in paths:
        base = name = metric_name(path)
        number = 1
        while name.casefold() in taken:
            number += 1
            name = f"{base}_{number}"
        taken.add(name.casefold())
        names.append(name)
    return names


def of_report(
    report: GradientReport, section: str = schema.FIRST, guilty: Sequence[str] = ()
) -> dict[str, float]:
    """The numbers of one report, finite ones only: MLflow draws NaN as a gap, which hides it.

    Args:
        report: the check.
        section: its callback's section.
        guilty: the layers that this check or one before it found wrong by themselves. They may
            have no variables, and so no verdict of their own in the report.
    """
    failed_to_run = report.verdict is Verdict.ERROR
    values: dict[str, float] = {
        "gradcheck/errors": float(failed_to_run),
        "gradcheck/worst_verdict": LEVELS[report.verdict],
        "gradcheck/seconds": rounded(report.seconds),
        "gradcheck/evaluations": float(report.evaluations),
        "gradcheck/epoch": math.nan if report.epoch is None else float(report.epoch),
    }
    if not failed_to_run:
        values |= _summary(report) | _verdicts(report, guilty) | _scores(report)
    return {
        schema.renamed(k, section): value for k, value in values.items() if math.isfinite(value)
    }


def _summary(report: GradientReport) -> dict[str, float]:
    counted = [variable for variable in report.variables if variable.counts]
    telling = [
        variable for variable in counted if variable.reason not in over_checkpoints.EXPLAINED
    ]
    scores = [v.score for v in telling or counted]
    finite = [score for score in scores if math.isfinite(score)]
    silent = sum(
        not math.isfinite(v.score) or v.reason == Reason.NON_FINITE for v in report.variables
    )
    return {
        "gradcheck/worst_score": rounded(max(finite, default=math.nan)),
        "gradcheck/worst_digits": min(map(shown_digits, scores), default=math.nan),
        "gradcheck/global_score": rounded(report.score),
        "gradcheck/failed_variables": float(report.count(Verdict.FAIL)),
        "gradcheck/inconclusive_variables": float(report.count(Verdict.INCONCLUSIVE)),
        "gradcheck/nonfinite_variables": float(silent),
    }


def rounded(value: float) -> float:
    """A number in three digits: MLflow's tables write every decimal, and cut the exponent off.

    Example:
        >>> rounded(8.3405141394e-9)
        8.34e-09
    """
    return float(f"{value:.3g}")


def shown_digits(score: float) -> float:
    """Digits of agreement, as many of their decimals as are worth showing.

    Example:
        >>> shown_digits(8.3405141394e-9)
        8.08
    """
    return round(digits(score), 2)


def levels(report: GradientReport, guilty: Iterable[str] = ()) -> dict[str, float]:
    """What was judged, layer by layer: a score alone does not tell a misapplied gradient."""
    found: dict[str, float] = {}
    for layer in report.layers:  # Keras allows two layers of one path
        found[layer.path] = max(found.get(layer.path, 0.0), LEVELS[layer.verdict])
    for path in dict.fromkeys([*guilty, *report.culprits]):
        found[path] = LEVELS[Verdict.FAIL] if path in report.culprits else found.get(path, 0.0)
    return found


def layer_names(paths: Iterable[str]) -> dict[str, str]:
    """The name of each layer in its metrics, by its path."""
    different = list(dict.fromkeys(paths))
    return dict(zip(different, metric_names(different), strict=True))


def _verdicts(report: GradientReport, guilty: Iterable[str]) -> dict[str, float]:
    judged = levels(report, guilty)
    return {f"gradcheck/verdict/{name}": judged[path] for path, name in layer_names(judged).items()}


def _scores(report: GradientReport) -> dict[str, float]:
    paths = [layer.path for layer in report.layers]
    variables = report.variables
    # A layer's name and its variables' names share one section, so they are told apart together.
    names = metric_names([*paths, *(f"{v.layer}.{v.name}" for v in variables)])
    of_layers, of_variables = names[: len(paths)], names[len(paths) :]

    values = {
        f"gradcheck/score/{name}": rounded(layer.score)
        for name, layer in zip(of_layers, report.layers, strict=True)
    }
    values |= {
        f"gradcheck/precision/{name}": rounded(layer.precision_error)
        for name, layer in zip(of_layers, report.layers, strict=True)
    }
    if len(variables) > MAX_VARIABLE_METRICS:
        for name, layer in zip(of_layers, report.layers, strict=True):
            values[f"gradcheck/digits/{name}"] = shown_digits(layer.score)
        return values
    for name, variable in zip(of_variables, variables, strict=True):
        values[f"gradcheck/score/{name}"] = rounded(variable.score)
        # No agreement is drawn as 0, but not where a score is unknown for a good reason.
        if math.isfinite(variable.score) or variable.reason not in over_checkpoints.EXPLAINED:
            values[f"gradcheck/digits/{name}"] = shown_digits(variable.score)
    return values
