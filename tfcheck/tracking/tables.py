"""The tables of a run: what became of each variable, and every number of every check."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tfcheck.gradient_report import GradientReport
from tfcheck.judge.verdict import Verdict, digits
from tfcheck.tracking import over_checkpoints, schema


def verdict_text(item: over_checkpoints.VariableHistory) -> str:
    """One variable's story in a few words, such as `"❌ fail since step 500 (0.4 digits)"`."""
    worst = item.worst
    known = math.isfinite(worst.score)
    facts = [f"{digits(worst.score):.1f} digits"] if known else []
    if not worst.counts:
        return " ".join(["➖ declared mismatch", *(f"({fact})" for fact in facts)])
    text = f"{schema.MARKS[item.verdict]} {item.verdict}"
    if item.failed and item.latest is Verdict.FAIL:
        text += f" since step {item.failing_since}"
    elif item.failed:
        text += f" at step {item.failing_since}, now {item.latest}"
    if worst.reason:
        facts.append(worst.reason.replace("_", " "))
    return f"{text} ({', '.join(facts)})" if facts else text


def verdicts_table(reports: Sequence[GradientReport]) -> dict[str, Any]:
    """A row a variable, worst first; the first two columns make MLflow's verdict matrix."""
    rows = [
        [
            item.label,
            verdict_text(item),
            str(item.verdict),
            _json_number(float(f"{item.worst.score:.3g}")),
            round(digits(item.worst.score), 2),
            item.worst_step,
            item.failing_since if item.failed else "",
            item.layer,
            item.worst.note,
        ]
        for item in over_checkpoints.worst_first(over_checkpoints.histories(reports))
    ]
    columns = ["variable", "verdict", "worst verdict", "worst score", "worst digits", "at step"]
    return {"columns": [*columns, "failing since step", "layer", "note"], "data": rows}


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
