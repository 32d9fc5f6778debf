"""What leads to what in the live graph: from leaves to tensors, and from sources to outputs."""

from __future__ import annotations

from collections.abc import Container, Iterable

from tfcheck.graph.nodes import OF_SHAPES
from tfcheck.units.live import Live, flows


def leaves_before(live: Live, name: str) -> frozenset[str]:
    """The leaves that a tensor is computed from.

    Args:
        live: the live operations.
        name: the tensor.
    """
    pending = [live.graph.as_graph_element(name).op]
    found: set[str] = set()
    seen: set[str] = set()
    while pending:
        operation = pending.pop()
        if operation.name in seen:
            continue
        seen.add(operation.name)
        found |= {out.name for out in operation.outputs} & live.leaves.totals.keys()
        pending += [tensor.op for tensor in operation.inputs if live.has(tensor)]
    return frozenset(found)


def follows_in_jumps(live: Live, outputs: Iterable[str], source: str, cut: Container[str]) -> bool:
    """Whether any outputs are computed from a source by way of what is no float.

    Such are the positions that an argmax finds, and the outcomes of comparisons.

    Args:
        live: the live operations.
        outputs: the tensors that units give.
        source: the tensor that they are given.
        cut: the tensors at which the graph is cut.
    """
    pending = [(live.graph.as_graph_element(name).op, False) for name in outputs]
    seen: set[tuple[str, bool]] = set()
    while pending:
        operation, in_jumps = pending.pop()
        if (operation.name, in_jumps) in seen or operation.type in OF_SHAPES:
            continue
        seen.add((operation.name, in_jumps))
        for tensor in operation.inputs:
            if tensor.name == source and in_jumps:
                return True
            if tensor.name not in cut:
                pending.append((tensor.op, in_jumps or not flows(tensor.dtype)))
    return False
