"""A traced step in float64: promoted and imported once, with all that is wanted of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import tensorflow as tf

from tfcheck.graph.excerpts import Excerpts, import_tensors, weighted_total
from tfcheck.graph.nodes import all_nodes, reachable
from tfcheck.objective.feeds import Feeds
from tfcheck.objective.step_inputs import StepInputs
from tfcheck.objective.traced_losses import TracedLosses
from tfcheck.promote.purify import PureGraph, purify
from tfcheck.trace.recording import Applied
from tfcheck.unchanged.taking import require_nothing_taken
from tfcheck.units.assembly import Promoted


class Float64Step:
    """The float64 graph of a traced step.

    Args:
        graph_def: `GraphDef` of the traced step.
        inputs: what goes into it.
        losses: its losses, and what is wanted for them.

    Attributes:
        pure: the graph as it was promoted.
        nodes: its nodes, by name.
        outputs: the tensors of all there is to know at a point, by what they are: `losses`, what is
            `applied` and its `divisors`, `factors` and `scales` of losses, `gradients`, and what a
            point holds fixed (`held`).
        feeds: what a point consists of.
        promoted: the graph that was imported, to take parts from.
    """

    def __init__(self, graph_def: Any, inputs: StepInputs, losses: TracedLosses) -> None:
        cut_at = losses.cut_at
        pure = self.pure = purify(
            graph_def, inputs.variables, losses.fetches, sources=[tensor.name for tensor in cut_at]
        )
        require_nothing_taken(all_nodes(pure.graph_def))
        self.nodes = {node.name: node for node in pure.graph_def.node}
        self._targets = [[pure.tensors[t.name] for t in call.targets] for call in losses.calls]
        whole = tf.compat.v1.wrap_function(lambda: _imported(pure, losses), [])
        graph, self.outputs = whole.graph, whole.structured_outputs
        held = self.outputs["held"]
        self.feeds = Feeds(graph, pure, inputs.names, held, [*cut_at, *losses.weights])
        excerpts = Excerpts(graph.as_graph_def())
        self.promoted = Promoted(graph, excerpts, pure.tensors, self.feeds.tensors)

    def name_of(self, traced: tf.Tensor | None) -> str | None:
        """The tensor that one of the traced graph has become; None for None."""
        return None if traced is None else self.pure.tensors[traced.name]

    def behind(self, losses: Sequence[int]) -> list[Any]:
        """The nodes that some losses are computed from, in program order."""
        return reachable(self.nodes, [name for loss in losses for name in self._targets[loss]])

    @cached_property
    def names_behind(self) -> list[frozenset[str]]:
        """For each loss the names of the nodes that it is computed from."""
        losses = range(len(self._targets))
        return [frozenset(node.name for node in self.behind([loss])) for loss in losses]

    @cached_property
    def assigned(self) -> frozenset[str]:
        """The names of the handles of variables to which is assigned what a loss uses."""
        return frozenset(
            cut.variable
            for cut in self.pure.cuts
            for names in self.names_behind
            if cut.tensor.split(":")[0] in names
        )


def _imported(pure: PureGraph, losses: TracedLosses) -> dict[str, Any]:
    """Import a graph into the current one: the outputs of the step."""
    calls = losses.calls
    cuts = [cut.tensor for cut in pure.cuts]
    tensors = import_tensors(pure.graph_def, [*pure.tensors.values(), *cuts, *pure.drawn.values()])

    def new(traced: tf.Tensor) -> tf.Tensor:
        return tensors[pure.tensors[traced.name]]

    held = [
        *(tensors[name] for name in (*cuts, *pure.drawn.values())),
        *(new(tensor) for tensor in (*losses.weights, *losses.cut_at)),
    ]
    totals = [
        weighted_total(
            [new(target) for target in call.targets],
            [None if weight is None else new(weight) for weight in call.output_gradients],
        )
        for call in calls
    ]
    return {
        "losses": totals,
        "applied": [new(applied.gradient) for applied in losses.applied],
        "divisors": [_divisor(applied, new) for applied in losses.applied],
        "factors": [[tf.cast(new(w), tf.float64) for w in call.weights] for call in calls],
        "held": list({tensor.ref(): tensor for tensor in held}.values()),
        "scales": [
            tf.ones((), tf.float64) if before is None else total / new(before)
            for total, before in zip(totals, losses.unscaled, strict=True)
        ],
        "gradients": [
            [new(gradient) for gradient in call.gradients if gradient is not None] for call in calls
        ],
    }


def _divisor(applied: Applied, new: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """What an optimizer divides a gradient by."""
    divisor = applied.divisor
    return tf.cast(new(divisor) if tf.is_tensor(divisor) else divisor, tf.float64)
