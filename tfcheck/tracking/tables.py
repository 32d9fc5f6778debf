"""The tables of a run: what became of each variable, and every number of every check."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tfcheck.gradient_report import GradientReport
from tfcheck.judge.reasons import shown as shown_as
from tfcheck.judge.verdict import Verdict, digits
from tfcheck.tracking import metrics, over_checkpoints, schema


def verdict_text(item: over_checkpoints.VariableHistory) -> str:
    """One variable's story in a few words, such as `"❌ fail since step 500 (0.4 digits)"`."""
    told = _told(item)
    if not item.worst.counts:
        return f"➖ declared mismatch{f' ({told})' if told else ''}"
    text = f"{schema.MARKS[item.verdict]} {item.verdict}"
    if item.failed and item.latest is Verdict.FAIL:
        text += f" since step {item.failing_since}"
    elif item.failed:
        text += f" at step {item.failing_since}, now {item.latest}"
    return f"{text} ({told})" if told else text


def cell_text(item: over_checkpoints.VariableHistory) -> str:
    """The same for a cell among many, such as `"❌ 0.4 from 500"`: MLflow cuts what is longer."""
    if not item.worst.counts:
        return "➖ declared"
    text = f"{schema.MARKS[item.verdict]} {_told(item).removesuffix(' digits') or item.verdict}"
    if not item.failed:
        return text
    return f"{text} {'from' if item.latest is Verdict.FAIL else 'at'} {item.failing_since}"


def _told(item: over_checkpoints.VariableHistory) -> str:
    """What the verdict rests on: its reason or, where it has none, the digits of agreement.

    A gradient that agrees in many digits may still be misapplied or blocked: no digits are told
    of it, as they would say the opposite of the verdict.
    """
    worst = item.worst
    if worst.reason and worst.counts:
        return shown_as(worst.reason)
    return f"{digits(worst.score):.1f} digits" if math.isfinite(worst.score) else ""


def verdicts_table(reports: Sequence[GradientReport]) -> dict[str, Any]:
    """A row a variable, worst first, below a row for each layer that is wrong by itself."""
    places = over_checkpoints.culprit_places(reports)
    layers: list[list[Any]] = [
        [path, f"❌ culprit from {step}", "fail", "", "", step, step, path, places.get(path, "")]
        for path, step in over_checkpoints.guilty_since(reports).items()
    ]
    variables = [
        [
            item.label,
            cell_text(item),
            str(item.verdict),
            _json_number(metrics.rounded(item.worst.score)),
            metrics.shown_digits(item.worst.score),
            item.worst_step,
            item.failing_since if item.failed else "",
            item.layer,
            item.worst.note,
        ]
        for item in over_checkpoints.worst_first(over_checkpoints.histories(reports))
    ]
    columns = ["variable", "verdict", "worst verdict", "worst score", "worst digits", "at step"]
    return {
        "columns": [*columns, "failing since step", "layer", "note"],
        "data": layers + variables,
    }


def scores_table(reports: Sequence[GradientReport]) -> dict[str, Any]:
    """A row a checkpoint and variable, in the order of training."""
    rows = []
    for report in over_checkpoints.judged(reports):
        labels = over_checkpoints.numbered(variable.path for variable in report.variables)
        for label, variable in zip(labels, report.variables, strict=True):
            numbers = (
                variable.score,
                digits(variable.score),
                variable.analytic_norm,
                variable.numerical_norm,
                variable.error_bar,
                variable.detectable_error,
            )
            rows.append(
                [
                    over_checkpoints.step_of(report),
                    "" if report.epoch is None else report.epoch,
                    report.checkpoint,
                    label,
                    str(variable.verdict),
                    variable.reason,
                    *map(_json_number, numbers),
                ]
            )
    columns = ["step", "epoch", "checkpoint", "variable", "verdict", "reason", "score", "digits"]
    more = ["analytic norm", "numerical norm", "error bar", "detectable error"]
    return {"columns": [*columns, *more], "data": rows}


def _json_number(value: float) -> float | str:
    """Strict JSON has no NaN, and an empty cell would not say why it is empty."""
    return value if math.isfinite(value) else str(value)
