"""The losses of the step run eagerly, beside those of the graph that `fit` runs.

The two can differ: Keras finds the logits behind a raw `tf.sigmoid` or `tf.nn.softmax` only in a
graph, and code may ask whether it runs eagerly. What is tried out eagerly, in a notebook, is then
not what is trained.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tfcheck.examine.point_facts import PointFacts
from tfcheck.objective.eager_objective import EagerObjective
from tfcheck.objective.eager_step import listen_eagerly, value_of
from tfcheck.trace.batch import Batch
from tfcheck.trace.steps import Step


class EagerLosses:
    """The losses of a step run eagerly, looked at once for all checks.

    Args:
        step: the step.
    """

    def __init__(self, step: Step) -> None:
        self._step = step
        self._is_known = False

    def at(self, point: PointFacts, batch: Batch) -> tuple[float, ...]:
        """The losses of the step run once eagerly, scaled where they are, all else as in the graph.

        Args:
            point: its graph at a point.
            batch: the debug batch.

        Returns:
            One loss for each in the graph; none where the step only runs eagerly, or not at all so,
            uses its tapes otherwise there, or gives another loss each time, and at later checks.
        """
        if self._is_known or isinstance(point.objective, EagerObjective):
            return ()
        point.objective.deadline.require_time()
        self._is_known = True
        if point.objective.facts.random_ops:
            return ()
        found = _losses(self._step, batch)
        if len(found) != len(point.losses):
            return ()
        if _differing(found, point) and _losses(self._step, batch) != found:
            return ()
        return found


def notes_on_eager(found: Sequence[float], point: PointFacts) -> tuple[str, ...]:
    """Say which losses differ between the graph and the eager run by more than rounding.

    Args:
        found: the losses of the eager run.
        point: the graph at the point.
    """
    base = point.base
    return tuple(
        f"The loss is {base.losses_as_trained[loss] / base.scales[loss]:.6g} in a graph, as fit "
        f"runs it, and {found[loss] / base.scales[loss]:.6g} eagerly: what was checked is the "
        "graph. "
        "A known cause is a raw tf.sigmoid or tf.nn.softmax at the model's end, whose logits Keras "
        "finds only in a graph; end the model in logits, with from_logits=True in the loss."
        for loss in _differing(found, point)
    )


def _losses(step: Step, batch: Batch) -> tuple[float, ...]:
    try:
        return tuple(map(value_of, listen_eagerly(step, batch).tape_calls))
    except Exception:  # noqa: BLE001 - whatever only eager runs raise, the graph is what is checked
        return ()


def _differing(found: Sequence[float], point: PointFacts) -> list[int]:
    """Indices of the losses that differ from those of the graph by more than rounding."""
    in_graph = point.base.losses_as_trained
    return [
        loss
        for loss, (eager, graph) in enumerate(zip(found, in_graph, strict=False))
        if math.isfinite(eager) or math.isfinite(graph)
        if not abs(eager - graph) <= point.losses[loss].parity_limit
    ]
