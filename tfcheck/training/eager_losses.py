"""The losses of the step run eagerly, beside those of the graph that `fit` runs.

The two can differ: Keras finds the logits behind a raw `tf.sigmoid` or `tf.nn.softmax` only in a
graph, and code may ask whether it runs eagerly. What is tried out eagerly, in a notebook, is then
not what is trained.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tfcheck.examine.examination import Examination
from tfcheck.objective.eager_step import listen_eagerly, value_of
from tfcheck.trace.batch import Batch
from tfcheck.trace.steps import Step


def eager_losses(step: Step, examination: Examination, batch: Batch) -> tuple[float, ...]:
    """The losses of a step run once eagerly, scaled where they are, all else as in the graph.

    Args:
        step: the step.
        examination: the examination of its graph.
        batch: the debug batch.

    Returns:
        One loss for each in the graph; none where the step does not run eagerly, uses its tapes
        otherwise there, or gives another loss each time.
    """
    objective = examination.objective
    if objective.facts.random_ops:
        return ()
    found = _losses(step, batch)
    if len(found) != objective.loss_count:
        return ()
    if _differing(found, examination) and _losses(step, batch) != found:
        return ()
    return found


def notes_on_eager(found: Sequence[float], examination: Examination) -> tuple[str, ...]:
    """Say which losses differ between the graph and the eager run by more than rounding.

    Args:
        found: the losses of the eager run.
        examination: the examination of the graph.
    """
    base = examination.base
    return tuple(
        f"The loss is {base.losses_as_trained[loss] / base.scales[loss]:.6g} in a graph, as fit "
        f"runs it, and {found[loss] / base.scales[loss]:.6g} eagerly: what was checked is the "
        "graph. "
        "A known cause is a raw tf.sigmoid or tf.nn.softmax at the model's end, whose logits Keras "
        "finds only in a graph; end the model in logits, with from_logits=True in the loss."
        for loss in _differing(found, examination)
    )


def _losses(step: Step, batch: Batch) -> tuple[float, ...]:
    try:
        return tuple(map(value_of, listen_eagerly(step, batch).tape_calls))
    except Exception:  # noqa: BLE001 - whatever only eager runs raise, the graph is what is checked
        return ()


def _differing(found: Sequence[float], examination: Examination) -> list[int]:
    """Indices of the losses that differ from those of the graph by more than rounding."""
    in_graph = examination.base.losses_as_trained
    return [
        loss
        for loss, (eager, graph) in enumerate(zip(found, in_graph, strict=False))
        if math.isfinite(eager) or math.isfinite(graph)
        if not abs(eager - graph) <= examination.parity_limit(loss)
    ]
