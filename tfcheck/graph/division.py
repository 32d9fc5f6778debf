"""The units of a traced step: what each layer call computes itself, each loss, and what is in none.

A layer's inputs and the reads of variables go through *gates*: operations that hand on what they
get, at which a graph can be cut, and whose gradient is the share that comes from behind them. All
else that one unit computes and another uses *crosses*. Between gates and crossings every unit
stands by itself: what it is given, what it computes, and the tape's gradients of both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from tfcheck.graph.nodes import OF_SHAPES

OUTSIDE = "outside"
"""The path of what is computed in no layer and no loss."""

LOSS = "loss"
"""The path of what a loss object computes."""

READ = "ReadVariableOp"


def name_of(path: str) -> str:
    """How a unit is named to a reader."""
    return {OUTSIDE: "what is in no layer", LOSS: "the loss"}.get(path, path)


@dataclass
class Call:
    """A call of a layer or of a loss: the operations from `start` on, before `end`, are made in it.

    Attributes:
        path: the layer's Keras path; `LOSS` for a loss object.
        start: position of its first operation.
        end: position after its last one; None while it goes on.
        tracked: whether the layer is one of the model's.
        backward_of: the call that this is a backward pass of, and belongs to; None for none.
    """

    path: str
    start: int
    end: int | None = None
    tracked: bool = False
    backward_of: Call | None = None

    def makes(self, position: int) -> bool:
        """Whether the operation at a position is made in it."""
        return self.start <= position and (self.end is None or position < self.end)


@dataclass(frozen=True, eq=False)
class Division:
    """How what one call of a tape differentiates divides into units.

    Attributes:
        paths: the path of each unit.
        unit_of: the unit of each operation that the target is computed from, by its name.
        gates: for each gate, by its operation's name, the identity of the variable that it reads;
            None for a layer's input.
        closed: the names of gates behind which the tape does not know what comes through them.
        crossings: tensors, gates' outputs aside, that one unit computes and another uses.
        behind: the tensors to ask the tape for: the gates' outputs, then the crossings.
    """

    paths: tuple[str, ...]
    unit_of: Mapping[str, int]
    gates: Mapping[str, int | None]
    closed: frozenset[str]
    crossings: tuple[tf.Tensor, ...]
    behind: tuple[tf.Tensor, ...]

    def path_of(self, operation: tf.Operation) -> str:
        """The path of an operation's unit; `""` where the targets are not computed from it."""
        unit = self.unit_of.get(operation.name)
        return "" if unit is None else self.paths[unit]


def divide(
    graph: Any,
    calls: Sequence[Call],
    gates: Mapping[str, bool],
    targets: Iterable[tf.Tensor],
    leaves: Mapping[str, Any],
) -> Division:
    """Divide what targets are computed from into units.

    Args:
        graph: the graph being traced.
        calls: the calls of layers and losses, outer ones before those that are made in them.
        gates: the names of the operations that layers' inputs go through, and whether the tape
            knows what they were computed from.
        targets: what is differentiated.
        leaves: what it is differentiated for: the variable for the name of the tensor that holds
            its handle, None for that of a tensor in the graph.
    """
    operations = graph.get_operations()
    cone = before_all(targets)
    walk = _Walk(leaves, gates, _calls_at(operations, calls))
    for position, operation in enumerate(operations):
        if operation.name in cone:
            walk.add(position, operation)
    walk.unite()
    crossings = walk.crossings()
    behind = [gate.outputs[0] for gate in walk.gates]
    unit_of, paths = walk.numbered(calls)
    return Division(
        paths,
        unit_of,
        {gate.name: walk.read_by(gate) for gate in walk.gates},
        frozenset(name for name, watched in gates.items() if not watched),
        tuple(crossings),
        (*behind, *crossings),
    )


def before_all(targets: Iterable[tf.Tensor]) -> set[str]:
    """The names of the operations that tensors are computed from."""
    pending = [target.op for target in targets]
    found: set[str] = set()
    while pending:
        operation = pending.pop()
        if operation.name not in found:
            found.add(operation.name)
            pending += [tensor.op for tensor in operation.inputs]
    return found


def _calls_at(
    operations: Sequence[tf.Operation], calls: Sequence[Call]
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The innermost call, by its position, that each operation belongs to; -1 for none.

    What a tape within the step computes for a call's backward pass belongs to that call, too.
    """
    innermost = np.full(len(operations), -1)
    numbers = {id(call): number for number, call in enumerate(calls)}
    for number, call in enumerate(calls):
        own = number if call.backward_of is None else numbers[id(call.backward_of)]
        innermost[call.start : call.end] = own
    scopes: dict[str, set[int]] = {}
    for operation, number in zip(operations, innermost, strict=True):
        scopes.setdefault(operation.name.rpartition("/")[0], set()).add(int(number))
    for position, operation in enumerate(operations):
        if innermost[position] < 0 and operation.name.startswith(_BACKWARD):
            innermost[position] = _only_call(operation.name, scopes)
    return innermost


_BACKWARD = "gradient_tape/"
"""What names of operations begin with that tapes add, before the scope of the forward one."""


def _only_call(name: str, scopes: Mapping[str, set[int]]) -> int:
    """The one call that was made in the scope that an operation differentiates; -1 for none."""
    scope = name.rpartition(_BACKWARD)[2].rpartition("/")[0]
    while scope and scope not in scopes:
        scope = scope.rpartition("/")[0]
    known = scopes.get(scope, set())
    return next(iter(known)) if len(known) == 1 else -1


@dataclass
class _Walk:
    """The live operations of a graph, in the order in which they were made.

    A float is live where it depends on what is differentiated for. A unit is known by a number,
    that of a call, or by the identity of the variable that it alone depends on: a regularizer's.
    """

    leaves: Mapping[str, Any]
    layer_inputs: Mapping[str, bool]
    innermost: np.ndarray[Any, np.dtype[np.int64]]
    gates: list[tf.Operation] = field(default_factory=list)
    _live: dict[str, tf.Operation] = field(default_factory=dict)
    _members: list[tuple[tf.Operation, list[tf.Tensor]]] = field(default_factory=list)
    _unit: dict[str, tuple[str, int]] = field(default_factory=dict)
    _origin: dict[str, int | None] = field(default_factory=dict)
    _read: dict[str, int | None] = field(default_factory=dict)
    _same: dict[tuple[str, int], tuple[str, int]] = field(default_factory=dict)

    def add(self, position: int, operation: tf.Operation) -> None:
        """Add one operation."""
        own = [out for out in operation.outputs if out.name in self.leaves]
        self._live |= dict.fromkeys((out.name for out in own), operation)
        inputs = [tensor for tensor in operation.inputs if tensor.name in self._live]
        call = int(self.innermost[position])
        self._unit[operation.name] = ("call", call)
        closed = not self.layer_inputs.get(operation.name, True)
        if not inputs or operation.type in OF_SHAPES or closed:
            return
        self._live |= {out.name: operation for out in operation.outputs if flows(out)}
        if operation.type == READ or operation.name in self.layer_inputs:
            self.gates.append(operation)
            variable = self.leaves.get(inputs[0].name)
            self._read[operation.name] = None if variable is None else id(variable)
            return
        self._members.append((operation, inputs))
        if call < 0:
            self._of_one_variable(operation, inputs)

    def _of_one_variable(self, operation: tf.Operation, inputs: Sequence[tf.Tensor]) -> None:
        """Note an operation outside of all calls that depends on one regularized variable."""
        origins = {
            self._read.get(tensor.op.name, self._origin.get(tensor.op.name)) for tensor in inputs
        }
        origin = origins.pop() if len(origins) == 1 else None
        variables = {id(v): v for v in self.leaves.values() if v is not None}
        if origin is not None and getattr(variables[origin], "regularizer", None) is not None:
            self._origin[operation.name] = origin
            self._unit[operation.name] = ("regularizer", origin)

    def unite(self) -> None:
        """Make one unit of those between which something goes that cannot be cut."""
        for operation, inputs in self._members:
            for tensor in inputs:
                if not tensor.dtype.is_floating and self._made_here(tensor):
                    one, other = self._of(tensor.op), self._of(operation)
                    if one != other:
                        self._same[one] = other

    def crossings(self) -> list[tf.Tensor]:
        """The floats that one unit makes and another uses."""
        found = {
            tensor.name: tensor
            for operation, inputs in self._members
            for tensor in inputs
            if tensor.dtype.is_floating and self._made_here(tensor)
            if self._of(tensor.op) != self._of(operation)
        }
        return list(found.values())

    def _made_here(self, tensor: tf.Tensor) -> bool:
        """Whether a unit makes a tensor, rather than a gate handing it on or it being a leaf."""
        return tensor.op.name not in self._read and tensor.name not in self.leaves

    def _of(self, operation: tf.Operation) -> tuple[str, int]:
        return self._united(self._unit[operation.name])

    def _united(self, unit: tuple[str, int]) -> tuple[str, int]:
        while unit in self._same:
            unit = self._same[unit]
        return unit

    def read_by(self, gate: tf.Operation) -> int | None:
        """The identity of the variable that a gate reads; None for a layer's input."""
        return self._read[gate.name]

    def numbered(self, calls: Sequence[Call]) -> tuple[dict[str, int], tuple[str, ...]]:
        """The number of each operation's unit, and the units' paths."""
        variables = {id(v): v for v in self.leaves.values() if v is not None}
        numbers: dict[tuple[str, int], int] = {}
        paths: list[str] = []
        unit_of = {}
        for name, own in self._unit.items():
            unit = self._united(own)
            if unit not in numbers:
                kind, which = unit
                numbers[unit] = len(paths)
                if kind == "regularizer":
                    paths.append(variables[which].path.rpartition("/")[0])
                else:
                    paths.append(OUTSIDE if which < 0 else calls[which].path)
            unit_of[name] = numbers[unit]
        return unit_of, tuple(paths)


def flows(tensor: tf.Tensor) -> bool:
    """Whether derivatives can go through a tensor of this kind."""
    dtype = tensor.dtype
    return bool(dtype.is_floating or dtype.is_complex or dtype in (tf.variant, tf.resource))
