"""Trainings that log to MLflow in this process, and reports with chosen scores to be logged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from tfcheck.gradient_report import GradientReport
from tfcheck.judge.verdict import Thresholds, Verdict, worst
from tfcheck.report.rows import LayerReport, ObjectiveSummary, VariableReport
from tfcheck.settings import Settings
from tfcheck.tracking import (
    MlflowTracking,
)
from tfcheck.tracking.delivery import Delivery

Scores = dict[str, dict[str, float]]


GOOD: Scores = {"conv": {"kernel": 1e-9, "bias": 1e-10}, "out": {"kernel": 2e-8}}


BAD: Scores = {"conv": {"kernel": 0.25, "bias": 1e-10}, "out": {"kernel": 2e-8}}


NOTE = "mlflow.note.content"


def variable_report(layer: str, name: str, score: float, reason: str = "") -> VariableReport:
    """A variable judged by the bands of its score; an unknown score is a failure."""
    names = {"great": "pass", "okay": "pass", "suspect": "suspect"}
    verdict = Verdict(names.get(Thresholds().band(score), "fail"))
    if math.isnan(score) and not reason:
        reason = "non_finite"
    return VariableReport(f"{layer}/{name}", layer, (3, 2), score, verdict, reason, 1.0, 1.0, 1e-9)


def report_of(scores: Scores, step: int | None = 0, **fields: Any) -> GradientReport:
    """A report whose layers and variables have these scores."""
    layers = []
    for path, named in scores.items():
        variables = tuple(variable_report(path, name, score) for name, score in named.items())
        verdict = worst(variable.verdict for variable in variables)
        layers.append(LayerReport(path, max(named.values()), verdict, variables))
    failing = tuple(layer.path for layer in layers if layer.verdict is Verdict.FAIL)
    ordinary: dict[str, Any] = {
        "verdict": worst(layer.verdict for layer in layers),
        "score": 1e-9,
        "layers": tuple(layers),
        "culprits": failing,
        "notes": (),
        "objective": ObjectiveSummary("train_step", "train", (1.5,)),
        "settings": Settings(batch_size=32, version="0.1"),
        "step": step,
        "checkpoint": f"step {step}",
        "seconds": 0.5,
        "evaluations": 80,
    }
    return GradientReport(**{**ordinary, **fields})


def error_report(step: int) -> GradientReport:
    """A check that could not be carried out."""
    return report_of({}, step, verdict=Verdict.ERROR, score=math.nan, error="the batch is empty")


class InProcess:
    """Sends at once and in this process what a training's own process would send."""

    def tell(self, path: Path) -> None:
        delivery = Delivery(path)
        try:
            delivery.send_numbers()
            lines = delivery.content.lines
            delivery.send_files()
            delivery.conclude(lines)
        finally:
            delivery.close()

    def is_there(self) -> bool:
        return True


def tracking_of(run_id: str | None = None, **options: Any) -> MlflowTracking:
    """Tracking that sends in this process."""
    return MlflowTracking(run_id, sender=InProcess(), **options)


def logged(reports: Sequence[GradientReport], run_id: str | None = None) -> str:
    """Log as a training does, a report more at every check, and give the run's id."""
    tracking = tracking_of(run_id)
    tracking.start(Settings())
    for count in range(1, len(reports) + 1):
        tracking.log(reports[:count])
    tracking.close()
    assert tracking.run_id is not None
    return tracking.run_id


def artifact(client: MlflowClient, run_id: str, path: str) -> str:
    """The text of one of a run's artifacts."""
    return Path(client.download_artifacts(run_id, path)).read_text(encoding="utf-8")


def steps(client: MlflowClient, run_id: str, metric: str) -> list[int]:
    """The steps at which a metric was logged."""
    return [entry.step for entry in client.get_metric_history(run_id, metric)]
