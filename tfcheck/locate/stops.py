"""What stops a gradient on its way from a loss to a variable: told from the traced graph.

From a variable on, a gradient can come back through every operation that has one and that the tape
has recorded. Where it cannot, though the loss is computed from there, that operation stops it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import tensorflow as tf

from tfcheck.graph.division import READ, flows
from tfcheck.graph.nodes import OF_SHAPES
from tfcheck.internals import function_graph, is_differentiable

_OF_SHAPES = OF_SHAPES | {"VariableShape"}

_FLAT = frozenset({"Ceil", "Floor", "FloorDiv", "Rint", "Round", "Sign", "TruncateDiv"})
"""Operations whose gradient is registered, as nothing or as zero."""

_ONE_SIDED = {"Betainc": (2,), "Polygamma": (1,), "Zeta": (1,)}
"""Operations with a gradient of some of their inputs alone, which are at these positions."""

_HIDING = frozenset({"EagerPyFunc"})
"""Operations with a gradient that is whatever Python code makes of it."""

_BODIES = ("f", "then_branch", "else_branch", "branches", "body")
"""Attributes that hold the functions which an operation calls on its inputs."""


@dataclass(frozen=True, eq=False)
class Stop:
    """An operation that a gradient does not come back through.

    Attributes:
        operation: the operation.
        unrecorded: whether it is so because the tape did not record then.
    """

    operation: tf.Operation
    unrecorded: bool = False


@dataclass(frozen=True, eq=False)
class _Row:
    """An operation on the way.

    Attributes:
        operation: the operation.
        taken: what it is computed from, by way of variables too, as far as a gradient may go there.
        names: their names.
        writes: the operations that have assigned to the variable which it reads.
        recorded: whether the tape recorded it.
    """

    operation: tf.Operation
    taken: tuple[tf.Tensor, ...]
    names: frozenset[str]
    writes: tuple[tf.Operation, ...]
    recorded: bool


@dataclass
class Onward:
    """How far gradients get.

    Attributes:
        reached: the names of the tensors from which they get back to where they are asked for.
        stops: what stops others.
        written: what on the way has a gradient that somebody wrote for it.
    """

    reached: set[str]
    stops: list[Stop]
    written: list[Stop]

    def add(self, other: Onward) -> None:
        """Go on with another part of the way."""
        self.reached |= other.reached
        self.stops += other.stops
        self.written += other.written


class Way:
    """The way from variables to some tensors of a graph.

    Args:
        ends: the tensors, such as the targets of a tape.
        spans: while which operations of the graph, by their positions, the tape recorded; empty for
            all of them. Defaults to all.
    """

    def __init__(self, ends: Sequence[tf.Tensor], spans: Sequence[tuple[int, int]] = ()) -> None:
        self._ends = {tensor.name: tensor for tensor in ends}
        self._spans = spans
        self._operations = list(ends[0].graph.get_operations()) if ends else []
        self._position = {operation.name: n for n, operation in enumerate(self._operations)}
        self._inside: dict[str, list[tuple[Any, Way]]] = {}

    @cached_property
    def _writes(self) -> dict[str, list[tf.Operation]]:
        """The operations that assign to a variable, by the name of its handle."""
        found: dict[str, list[tf.Operation]] = {}
        for operation in self._operations:
            if operation.type.startswith("Assign") and len(operation.inputs) > 1:
                found.setdefault(operation.inputs[0].name, []).append(operation)
        return found

    @cached_property
    def _needed(self) -> dict[str, _Row]:
        """The row of each tensor that the ends are computed from, by its name."""
        pending = list(self._ends.values())
        needed: dict[str, _Row] = {}
        rows: dict[str, _Row] = {}
        while pending:
            tensor = pending.pop()
            if tensor.name not in needed:
                name = tensor.op.name
                rows[name] = rows.get(name) or self._row(tensor.op)
                needed[tensor.name] = rows[name]
                pending += rows[name].taken
        return needed

    @cached_property
    def _rows(self) -> list[_Row]:
        """What makes the tensors that are needed, in order; what sees only shapes is left out."""
        rows = {row.operation.name: row for row in self._needed.values()}
        ordered = sorted(rows.values(), key=lambda row: self._position[row.operation.name])
        return [row for row in ordered if row.operation.type not in _OF_SHAPES]

    def _row(self, operation: tf.Operation) -> _Row:
        taken = list(operation.inputs)
        if has_custom_gradient(operation):
            # It goes to the arguments, which are handed on to nobody.
            pairs = zip(taken, operation.outputs, strict=True)
            taken = [t for t, out in pairs if not out.consumers() and out.name not in self._ends]
        position = self._position[operation.name]
        known = self._writes.get(operation.inputs[0].name, ()) if operation.type == READ else ()
        writes = tuple(write for write in known if self._position[write.name] < position)
        taken += [value for write in writes for value in write.inputs[1:]]
        recorded = any(start <= position < end for start, end in self._spans)
        names = frozenset(tensor.name for tensor in taken)
        return _Row(operation, tuple(taken), names, writes, recorded or not self._spans)

    def stops(self, start: tf.Tensor) -> list[Stop]:
        """What stops a gradient on the way back to a tensor.

        Args:
            start: the tensor, or the handle of a variable.

        Returns:
            The operations in their order, each once. Where none is known to, those with a gradient
            that somebody wrote for them.
        """
        onward = self.onward({start.name})
        found = {stop.operation.name: stop for stop in onward.stops or onward.written}
        return list(found.values())

    def onward(self, starts: Set[str]) -> Onward:
        """How far gradients get.

        Args:
            starts: names of the tensors that they are to get back to.
        """
        onward = Onward(set(starts), [], [])
        unseen: set[str] = set()
        for row in self._rows:
            hidden = not unseen.isdisjoint(row.names)
            given = onward.reached & row.names
            if not (hidden or given):
                continue
            if not row.recorded:
                unseen |= {tensor.name for tensor in row.operation.outputs}
                continue
            assigned = {value.name for write in row.writes for value in write.inputs[1:]}
            onward.stops += [
                Stop(write)
                for write in row.writes
                if any(value.name in onward.reached | unseen for value in write.inputs[1:])
            ]
            onward.stops += [
                Stop(tensor.op, unrecorded=True)
                for tensor in row.taken
                if tensor.name in unseen - assigned
            ]
            if given - assigned:
                onward.add(self._through(row.operation, given - assigned))
        onward.stops += [
            Stop(end.op, unrecorded=True) for name, end in self._ends.items() if name in unseen
        ]
        return onward

    def _through(self, operation: tf.Operation, given: Set[str]) -> Onward:
        """How far gradients get through a single operation."""
        if operation.name not in self._inside:
            self._inside[operation.name] = list(self._bodies(operation))
        if self._inside[operation.name]:
            return self._through_bodies(operation, given)
        made = {t.name for t in operation.outputs if flows(t) and t.name in self._needed}
        sides = _ONE_SIDED.get(operation.type, range(len(operation.inputs)))
        through = any(operation.inputs[side].name in given for side in sides)
        flat = operation.type in _FLAT or not is_differentiable(operation)
        if flat or not made or not through:
            return Onward(set(), [Stop(operation)], [])
        by_hand = has_custom_gradient(operation) or operation.type in _HIDING
        return Onward(made, [], [Stop(operation)] if by_hand else [])

    def _bodies(self, operation: tf.Operation) -> Iterator[tuple[Any, Way]]:
        """The graphs that an operation calls, and the way in each to what is needed of it."""
        loops = _is_loop(operation)
        for graph in _graphs_of(operation):
            pairs = zip(graph.outputs, operation.outputs, strict=False)
            yield graph, Way([end for end, made in pairs if loops or made.name in self._needed])

    def _through_bodies(self, operation: tf.Operation, given: Set[str]) -> Onward:
        """How far gradients get through the functions that are called: of a loop, in all rounds."""
        made = [tensor.name for tensor in operation.outputs]
        starts = {n for n, tensor in enumerate(operation.inputs) if tensor.name in given}
        loops = _is_loop(operation)
        while True:
            found = Onward(set(), [], [])
            reached = set(starts) if loops else set[int]()
            for graph, way in self._inside[operation.name]:
                # What chooses among branches is no input of theirs.
                first = len(operation.inputs) - len(graph.inputs)
                names = {graph.inputs[n - first].name for n in starts if n >= first}
                inside = way.onward(names)
                found.add(Onward(set(), inside.stops, inside.written))
                reached |= {n for n, end in enumerate(graph.outputs) if end.name in inside.reached}
            if not loops or reached <= starts:
                break
            starts |= reached
        found.reached = {made[n] for n in reached if n < len(made)} & self._needed.keys()
        return found


def _is_loop(operation: tf.Operation) -> bool:
    return operation.type in ("While", "StatelessWhile")


def has_custom_gradient(operation: tf.Operation) -> bool:
    """Whether an operation hands on what a function with a gradient of its own gives."""
    if operation.type != "IdentityN":
        return False
    try:
        return operation.get_attr("_gradient_op_type").startswith(b"CustomGradient")
    except ValueError:
        return False


def with_bodies(operation: tf.Operation) -> Iterator[tf.Operation]:
    """An operation, and those of the functions that it calls, and so on."""
    yield operation
    for graph in _graphs_of(operation):
        for inner in graph.get_operations():
            yield from with_bodies(inner)


def _graphs_of(operation: tf.Operation) -> Iterator[Any]:
    """The graphs of the functions that an operation calls, as far as they are known."""
    for name in _BODIES:
        if name in operation.node_def.attr:
            attribute = operation.node_def.attr[name]
            for function in (attribute.func, *attribute.list.func):
                graph = function_graph(operation.graph, function.name) if function.name else None
                if graph is not None:
                    yield graph
