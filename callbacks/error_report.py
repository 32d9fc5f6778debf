"""The report of a check that could not be carried out."""

from __future__ import annotations

import math
import traceback

from tfcheck.errors import TfcheckError
from tfcheck.gradient_report import GradientReport
from tfcheck.judge.verdict import Verdict
from tfcheck.report.rows import ObjectiveSummary
from tfcheck.settings import Settings


def error_report(
    error: Exception, *, model: str, source: str, settings: Settings, step: int, checkpoint: str
) -> GradientReport:
    """A report with the verdict `"error"`.

    Args:
        error: what went wrong.
        model: name of the model.
        source: where the loss comes from, `"train_step"` or `"loss_fn"`.
        settings: the options of the check.
        step: steps made so far.
        checkpoint: name of the checkpoint.
    """
    return GradientReport(
        verdict=Verdict.ERROR,
        score=math.nan,
        layers=(),
        culprits=(),
        notes=(),
        objective=ObjectiveSummary(source, settings.phase),
        settings=settings,
        step=step,
        checkpoint=checkpoint,
        error=str(error) if isinstance(error, TfcheckError) else _where(error),
        model=model,
    )


def _where(error: Exception) -> str:
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} (in {place.name})"
