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

from tfcheck.internals import function_graph, is_differentiable
from tfcheck.nodes import OF_SHAPES
from tfcheck.units import READ

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


class Way:
    """The way from variables to some tensors of a graph.

    Args:
        ends: the tensors, such as the targets of a tape.
        spans: while which operations of the graph, by their positions, the tape recorded; empty for
            all of them. Defaults to all.
    """

    def __init__(self, ends: Sequence[tf.Tensor], spans: Sequence[tuple[int, int]] = ()) -> None:
        self._ends = list(ends)
        self._spans = spans

    @cached_property
    def _all(self) -> list[tf.Operation]:
        return list(self._ends[0].graph.get_operations()) if self._ends else []

    @cached_property
    def _position(self) -> dict[str, int]:
        return {operation.name: position for position, operation in enumerate(self._all)}

    @cached_property
    def _writes(self) -> dict[str, list[tf.Operation]]:
        """The operations that assign to a variable, by the name of its handle."""
        found: dict[str, list[tf.Operation]] = {}
        for operation in self._all:
            if operation.type.startswith("Assign") and len(operation.inputs) > 1:
                found.setdefault(operation.inputs[0].name, []).append(operation)
        return found

    @cached_property
    def _needed(self) -> frozenset[str]:
        """The names of the tensors that the ends are computed from, and their own."""
        pending, needed = list(self._ends), set[str]()
        while pending:
            tensor = pending.pop()
            if tensor.name not in needed:
                needed.add(tensor.name)
                pending += self._taken(tensor.op)
        return frozenset(needed)

    @cached_property
    def _operations(self) -> list[tf.Operation]:
        """What makes the tensors that are needed, in order."""
        needed = self._needed
        return [o for o in self._all if any(tensor.name in needed for tensor in o.outputs)]

    def _taken(self, operation: tf.Operation) -> Iterator[tf.Tensor]:
        """What an operation takes, by way of variables too, as far as a gradient might go there."""
        ends = {tensor.name for tensor in self._ends}
        for given, made in zip(operation.inputs, operation.outputs, strict=False):
            # With a gradient of its own, it goes to the arguments, which are handed on to nobody.
            if not has_custom_gradient(operation) or not (made.consumers() or made.name in ends):
                yield given
        if not has_custom_gradient(operation):
            yield from list(operation.inputs)[len(operation.outputs) :]
        yield from (value for write in self._before(operation) for value in write.inputs[1:])

    def _before(self, operation: tf.Operation) -> list[tf.Operation]:
        """The operations that have assigned to the variable which an operation reads."""
        if operation.type != READ:
            return []
        now = self._position[operation.name]
        writes = self._writes.get(operation.inputs[0].name, ())
        return [write for write in writes if self._position[write.name] < now]

    def _recorded(self, operation: tf.Operation) -> bool:
        position = self._position[operation.name]
        return not self._spans or any(start <= position < end for start, end in self._spans)

    def stops(self, start: tf.Tensor) -> list[Stop]:
        """What stops a gradient on the way back to a tensor.

        Args:
            start: the tensor, or the handle of a variable.

        Returns:
            The operations in their order, each once. Where none is known to, those with a gradient
            that somebody wrote for them.
        """
        _, stops, written = self.onward({start.name})
        found = {stop.operation.name: stop for stop in stops or written}
        return list(found.values())

    def onward(self, starts: Set[str]) -> tuple[set[str], list[Stop], list[Stop]]:
        """How far gradients come from.

        Args:
            starts: names of tensors.

        Returns:
            The names of the tensors of which gradients come back to the starts; what stops others;
            and what on the way has a gradient that somebody wrote for it.
        """
        reached, unseen = set(starts), set[str]()
        stops: list[Stop] = []
        written: list[Stop] = []
        for operation in self._operations:
            if operation.type in OF_SHAPES:
                continue
            hidden = [tensor for tensor in self._taken(operation) if tensor.name in unseen]
            given = {tensor.name for tensor in operation.inputs} & reached
            stops += [
                Stop(write)
                for write in self._before(operation)
                if any(value.name in reached | unseen for value in write.inputs[1:])
            ]
            if not self._recorded(operation):
                if given or hidden:
                    unseen |= {tensor.name for tensor in operation.outputs}
                continue
            stops += [Stop(tensor.op, unrecorded=True) for tensor in hidden]
            if given:
                passed, stopping, others = self._through(operation, given)
                reached |= passed
                stops += stopping
                written += others
        stops += [Stop(end.op, unrecorded=True) for end in self._ends if end.name in unseen]
        return reached, stops, written

    def _through(
        self, operation: tf.Operation, given: Set[str]
    ) -> tuple[set[str], list[Stop], list[Stop]]:
        """The same for a single operation."""
        bodies = list(_bodies(operation))
        if bodies:
            return self._through_bodies(operation, bodies, given)
        made = {t.name for t in operation.outputs if _flows(t.dtype) and t.name in self._needed}
        sides = _ONE_SIDED.get(operation.type, range(len(operation.inputs)))
        through = any(operation.inputs[side].name in given for side in sides)
        flat = operation.type in _FLAT or not is_differentiable(operation)
        if flat or not made or not through:
            return set(), [Stop(operation)], []
        by_hand = has_custom_gradient(operation) or operation.type in _HIDING
        return made, [], [Stop(operation)] if by_hand else []

    def _through_bodies(
        self, operation: tf.Operation, bodies: Sequence[Any], given: Set[str]
    ) -> tuple[set[str], list[Stop], list[Stop]]:
        """The same for an operation that calls functions: a loop again and again."""
        made = list(operation.outputs)
        positions = {n for n, tensor in enumerate(operation.inputs) if tensor.name in given}
        loops = "While" in operation.type
        reached: set[int] = set(positions) if loops else set()
        while True:
            stops: list[Stop] = []
            written: list[Stop] = []
            before = set(reached)
            for graph in bodies:
                # What chooses among branches is no input of theirs.
                first = len(operation.inputs) - len(graph.inputs)
                ends = graph.outputs
                if not loops:
                    ends = [e for e, t in zip(ends, made, strict=False) if t.name in self._needed]
                starts = {
                    graph.inputs[position - first].name
                    for position in (positions | before if loops else positions)
                    if position >= first
                }
                inside, found, others = Way(ends).onward(starts)
                stops += found
                written += others
                reached |= {n for n, end in enumerate(graph.outputs) if end.name in inside}
            if reached == before or not loops:
                break
        names = {made[position].name for position in reached if position < len(made)}
        return names & self._needed, stops, written


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
    for graph in _bodies(operation):
        for inner in graph.get_operations():
            yield from with_bodies(inner)


def _bodies(operation: tf.Operation) -> Iterator[Any]:
    """The graphs of the functions that an operation calls, as far as they are known."""
    for name in _BODIES:
        if name in operation.node_def.attr:
            attribute = operation.node_def.attr[name]
            for function in (attribute.func, *attribute.list.func):
                graph = function_graph(operation.graph, function.name) if function.name else None
                if graph is not None:
                    yield graph


def _flows(dtype: tf.DType) -> bool:
    return bool(dtype.is_floating or dtype.is_complex or dtype in (tf.variant, tf.resource))
