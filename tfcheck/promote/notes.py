"""What is noticed while a graph is rewritten, and which of it matters to what is computed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from tfcheck.graph.nodes import functions_behind


@dataclass(frozen=True)
class Note:
    """An operation that a reader should know of.

    Attributes:
        op: its type.
        node: its name.
        function: the function that it is in, as rewritten; `""` for none.
    """

    op: str
    node: str
    function: str


@dataclass(frozen=True)
class Notes:
    """What is noticed, in a graph and all its functions.

    Attributes:
        islands: operations that kept a lower precision.
        random_ops: operations that draw new numbers at every evaluation.
    """

    islands: list[Note] = field(default_factory=list)
    random_ops: list[Note] = field(default_factory=list)


def told(
    notes: Iterable[Note], nodes: Iterable[Any], among: Set[str], functions: Mapping[str, Any]
) -> tuple[str, ...]:
    """The operations noted that are part of what is computed, each as `"type (node)"`.

    Args:
        notes: the notes.
        nodes: the nodes of the graph that are computed.
        among: the names of those that matter.
        functions: the functions that there are, by name.
    """
    calling = [node for node in nodes if node.name in among]
    bodies = functions_behind(calling, functions)
    inside = {(name, node.name) for name, body in bodies.items() for node in body.node_def}
    inside |= {("", node.name) for node in calling}
    chosen = (note for note in notes if (note.function, note.node) in inside)
    return tuple(dict.fromkeys(f"{note.op} ({note.node})" for note in chosen))
