"""What a report says of the step that was differentiated."""

from __future__ import annotations

from collections.abc import Sequence

from tfcheck.examine.point_facts import PointFacts
from tfcheck.objective.point import Base
from tfcheck.report.rows import ObjectiveSummary


def summary_of(
    point: PointFacts, phase: str, compiled: Sequence[float], eager: Sequence[float]
) -> ObjectiveSummary:
    """What the report says of a step.

    Args:
        point: the step at the point.
        phase: `"train"` or `"inference"`.
        compiled: its losses compiled with XLA, scaled where they are; empty where unknown.
        eager: the same of an eager run.
    """
    objective, base = point.objective, point.base
    return ObjectiveSummary(
        source=objective.facts.source,
        phase=phase,
        losses=_unscaled(base.losses, base),
        parity=max(map(_apart, base.losses, base.losses_as_trained)),
        precision=objective.facts.precision,
        islands=objective.facts.islands,
        random_ops=objective.facts.random_ops,
        trained_precision=objective.facts.lowest,
        trained_losses=_unscaled(base.losses_as_trained, base),
        compiled_losses=_unscaled(compiled, base),
        eager_losses=_unscaled(eager, base),
    )


def _unscaled(losses: Sequence[float], base: Base) -> tuple[float, ...]:
    """Losses without the scale that the optimizer puts on them."""
    return tuple(loss / scale for loss, scale in zip(losses, base.scales, strict=False))


def _apart(value: float, trained: float) -> float:
    """Relative difference between the loss in float64 and as trained."""
    if value == trained:
        return 0.0
    return abs(value - trained) / max(abs(value), abs(trained))
