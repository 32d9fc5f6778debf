"""Reports made by hand: a variable with the verdict of its score, and reports on such."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from tfcheck.gradient_report import GradientReport
from tfcheck.judge.verdict import Thresholds, Verdict, worst
from tfcheck.report.rows import Coordinate, LayerReport, ObjectiveSummary, VariableReport

VERDICT_OF_BAND = {
    "great": Verdict.PASS,
    "okay": Verdict.PASS,
    "suspect": Verdict.SUSPECT,
    "concerning": Verdict.FAIL,
    "unknown": Verdict.INCONCLUSIVE,
}


def variable(path: str, score: float = 2e-10, **fields: Any) -> VariableReport:
    """A variable with the verdict of its score, unless told otherwise."""
    known: dict[str, Any] = {
        "layer": path.rpartition("/")[0],
        "shape": (3, 2),
        "verdict": VERDICT_OF_BAND[Thresholds().band(score)],
        "reason": "",
        "analytic_norm": 1.5,
        "numerical_norm": 1.75,
        "error_bar": 4e-11,
    }
    return VariableReport(path=path, score=score, **{**known, **fields})


def report(*variables: VariableReport, **fields: Any) -> GradientReport:
    """A report on these variables, gathered by layer, with the verdict that follows."""
    by_layer: dict[str, list[VariableReport]] = {}
    for each in variables:
        by_layer.setdefault(each.layer, []).append(each)
    layers = tuple(
        LayerReport(
            path,
            max((v.score for v in found if v.counts), default=0.0),
            worst([v.verdict for v in found if v.counts] or [Verdict.PASS]),
            tuple(found),
        )
        for path, found in by_layer.items()
    )
    known: dict[str, Any] = {
        "verdict": worst(layer.verdict for layer in layers),
        "score": max((layer.score for layer in layers), default=math.nan),
        "layers": layers,
        "culprits": (),
        "notes": (),
        "objective": ObjectiveSummary("train_step", "train", (2.302585,), 4e-8),
        "step": 938,
        "checkpoint": "epoch 2",
        "seconds": 1.3,
        "evaluations": 212,
        "model": "mnist_cnn",
    }
    return GradientReport(**{**known, **fields})


WRONG_BIAS = variable(
    "dense/bias",
    0.33,
    worst=(Coordinate((3,), 0.012345, 0.02469, 2e-12), Coordinate((77,), -0.5, 0.5, 3e-12)),
    note="Wrong by a constant factor.",
)


FAILING = report(variable("conv/kernel"), variable("dense/kernel"), WRONG_BIAS)


PASSING = report(variable("conv/kernel"), variable("dense/kernel"), variable("dense/bias", 3e-6))


ERROR = GradientReport(
    Verdict.ERROR,
    math.nan,
    (),
    (),
    (),
    ObjectiveSummary("train_step", "train"),
    error="The debug batch must fit the model.",
    step=0,
)


def training(*reports: GradientReport) -> list[GradientReport]:
    """These checks as one run: 100 steps apart."""
    return [
        dataclasses.replace(each, step=100 * place, checkpoint=f"epoch {place}")
        for place, each in enumerate(reports)
    ]


RUN = training(PASSING, ERROR, PASSING, FAILING, FAILING)
