"""Parts of a step's float64 graph, cut off from what they are given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from tfcheck.graph.excerpts import Excerpts
from tfcheck.graph.nodes import OF_SHAPES, canonical
from tfcheck.units.live import Live
from tfcheck.units.sources import Output, Source


@dataclass(frozen=True, eq=False)
class Promoted:
    """A step's float64 graph.

    Attributes:
        graph: the graph.
        excerpts: the same, to take parts from.
        names: the tensors in it, by their names in the traced graph.
        feeds: the inputs of the step.
    """

    graph: tf.Graph
    excerpts: Excerpts
    names: Mapping[str, str]
    feeds: Sequence[tf.Tensor]


@dataclass(frozen=True, eq=False)
class Assembly:
    """Nodes of the float64 graph, cut off from what they are given.

    Attributes:
        nodes: the nodes, by name.
        feeds: for the name of what is fed the tensor at a point that it is; what moves is fed
            under the name that `moved_name` gives it.
        outputs: what is wanted, in groups that are summed up.
    """

    nodes: dict[str, Any]
    feeds: dict[str, str]
    outputs: Sequence[Sequence[Output]]


def moved_name(number: int) -> str:
    """The name under which a source that moves is fed."""
    return f"moved/{number}:0"


class Assembler:
    """Puts together what computes outputs.

    Args:
        promoted: the step's graph.
        live: the live operations in it.
    """

    def __init__(self, promoted: Promoted, live: Live) -> None:
        self._promoted = promoted
        self._live = live
        self._constants: dict[str, bool] = {}

    def assembled(
        self,
        outputs: Sequence[Sequence[Output]],
        sources: Iterable[Source],
        *,
        through_gates: bool = False,
    ) -> Assembly:
        """What computes outputs from the sources at which the graph is cut.

        Args:
            outputs: what is wanted, in groups that are summed up.
            sources: where the graph is cut.
            through_gates: whether gates hand on what they are given. Where units are cut apart,
                gates are the end of them. Defaults to False.
        """
        cut = {source.name: source.number for source in sources}
        nodes: dict[str, Any] = {}
        feeds: dict[str, str] = {}
        element = self._promoted.graph.as_graph_element
        pending = [element(output.name).op for of in outputs for output in of]
        while pending:
            operation = pending.pop()
            if operation.name in nodes:
                continue
            node = tf.compat.v1.NodeDef()
            node.CopyFrom(self._promoted.excerpts.node(operation.name))
            nodes[operation.name] = node
            for position, tensor in enumerate(operation.inputs):
                name = canonical(node.input[position], in_function=False)
                if name in cut and operation.type not in OF_SHAPES:
                    fed = moved_name(cut[name])
                    feeds[fed] = name
                    node.input[position] = fed
                elif name not in cut and self._stays_inside(tensor, through_gates=through_gates):
                    pending.append(tensor.op)
                else:
                    feeds[name] = name
        return Assembly(nodes, feeds, outputs)

    def _stays_inside(self, tensor: tf.Tensor, *, through_gates: bool) -> bool:
        """Whether what makes a tensor is computed along with what uses it."""
        if self._live.has(tensor) and tensor.name not in self._live.leaves.totals:
            return through_gates or not self._live.is_gate(tensor.op)
        return self._constant(tensor.op)

    def _constant(self, operation: tf.Operation) -> bool:
        """Whether what an operation gives follows from constants alone."""
        known = self._constants
        pending = [operation]
        while pending:
            current = pending[-1]
            if current.name in known:
                pending.pop()
                continue
            unknown = [t.op for t in current.inputs if t.op.name not in known]
            if current.type == "Const":
                known[current.name] = True
            elif not current.inputs or current.op_def.is_stateful:
                known[current.name] = False
            elif unknown:
                pending += unknown
                continue
            else:
                known[current.name] = all(known[t.op.name] for t in current.inputs)
        return known[operation.name]
