"""A batch must not spoil the loss."""

from __future__ import annotations

import math

from tfcheck.objective.objective import Objective
from tfcheck.objective.point import Base
from tfcheck.trace.batch import Batch
from tfcheck.trace.refusals import not_finite


def require_finite(objective: Objective, base: Base, batch: Batch) -> None:
    """Raise a `BatchError` where NaN or infinity in a batch spoils a loss.

    A label may be NaN to say that it is missing, and be left out: what counts is the loss.

    Args:
        objective: the objective.
        base: the point, on the batch.
        batch: the batch.
    """
    spoilt = [loss for loss in base.losses if not math.isfinite(loss)]
    if not (spoilt and batch.not_finite):
        return
    without = objective.at(batch.filled())
    if all(map(math.isfinite, without.losses)):
        raise not_finite(spoilt[0], batch, objective.facts.source)
