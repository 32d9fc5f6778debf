"""A part of a step's float64 graph, cut off from what it is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from tfcheck.graph.excerpts import Excerpts
from tfcheck.units.sources import Output


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
