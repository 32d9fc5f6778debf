"""The live part of a step's float64 graph: what depends on what a loss is differentiated for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import tensorflow as tf

from tfcheck.graph.division import Division
from tfcheck.graph.nodes import OF_SHAPES
from tfcheck.units.sources import Leaves, UndividedError


class Live:
    """The live operations that a loss is computed from, and the units that they belong to.

    Args:
        graph: the graph.
        division: the units.
        leaves: what the loss is differentiated for.
        targets: the tensors that the loss is a sum of.

    Attributes:
        graph: the graph.
        leaves: what the loss is differentiated for.
        operations: the live operations, gates aside, each with its live inputs, in the order in
            which they were made.
        gates_of: the outputs of the layers' gates that a tensor goes through, by its name.
        reads: the outputs of the gates that read a variable, by its identity.
    """

    def __init__(
        self, graph: tf.Graph, division: Division, leaves: Leaves, targets: Iterable[str]
    ) -> None:
        self.graph = graph
        self.leaves = leaves
        self._division = division
        self._alive: set[str] = set()
        self.operations: list[tuple[tf.Operation, list[tf.Tensor]]] = []
        self.gates_of: dict[str, list[str]] = {}
        self.reads: dict[int, list[str]] = {}
        cone = self._cone(targets)
        for operation in graph.get_operations():
            if operation.name in cone:
                self._add(operation)

    def _cone(self, targets: Iterable[str]) -> set[str]:
        """The names of the operations that the targets are computed from, up to the leaves."""
        pending = [self.graph.as_graph_element(name).op for name in targets]
        ends = self.leaves.totals.keys() | self.leaves.constants
        cone: set[str] = set()
        while pending:
            operation = pending.pop()
            if operation.name in cone:
                continue
            cone.add(operation.name)
            if not all(out.name in ends for out in operation.outputs):
                pending += [tensor.op for tensor in operation.inputs]
        return cone

    def _add(self, operation: tf.Operation) -> None:
        """Add an operation, after those that it is computed from."""
        own = [out.name for out in operation.outputs if out.name in self.leaves.totals]
        own_only = bool(own) and len(own) == len(operation.outputs)
        inputs = [tensor for tensor in operation.inputs if self.has(tensor)]
        self._alive.update(own)
        closed = operation.name in self._division.closed
        if own_only or not inputs or operation.type in OF_SHAPES or closed:
            return
        self._alive.update(
            out.name
            for out in operation.outputs
            if flows(out.dtype) and out.name not in self.leaves.constants
        )
        if self.is_gate(operation):
            self._add_gate(operation, inputs)
        else:
            self.operations.append((operation, inputs))

    def _add_gate(self, operation: tf.Operation, inputs: Iterable[tf.Tensor]) -> None:
        (given,) = (tensor.name for tensor in inputs)
        gate = operation.outputs[0].name
        variable = self._division.gates[operation.name]
        if variable is None:
            self.gates_of.setdefault(given, []).append(gate)
        else:
            self.reads.setdefault(variable, []).append(gate)

    # -- tensors -------------------------------------------------------------------------------

    def has(self, tensor: tf.Tensor) -> bool:
        """Whether a tensor is live."""
        return tensor.name in self._alive

    def gate_before(self, tensor: tf.Tensor) -> str:
        """The gate that a gate's output goes through just before; `""` for none."""
        if not self.is_gate(tensor.op):
            return ""
        given = [t for t in tensor.op.inputs if self.has(t) and self.is_gate(t.op)]
        return given[0].name if given else ""

    def leaf_of(self, tensor: tf.Tensor) -> str | None:
        """The leaf that a tensor is, directly or behind gates; None for what units make."""
        while tensor.name not in self.leaves.totals and self.is_gate(tensor.op):
            (tensor,) = (given for given in tensor.op.inputs if self.has(given))
        return tensor.name if tensor.name in self.leaves.totals else None

    def handed_on(self, name: str) -> Iterator[str]:
        """A tensor, and the outputs of all gates that it goes through from here."""
        yield name
        for gate in self.gates_of.get(name, ()):
            yield from self.handed_on(gate)

    # -- operations ----------------------------------------------------------------------------

    def is_gate(self, operation: tf.Operation) -> bool:
        """Whether an operation reads a variable, or hands a layer its input."""
        return operation.name in self._division.gates

    def unit_of(self, operation: str) -> int:
        """The unit of an operation, or of the one that it was made for.

        Raises:
            UndividedError: if there is none.
        """
        name = operation
        while name and name not in self._division.unit_of:
            name = name.rpartition("/")[0]
        if not name:
            raise UndividedError
        return self._division.unit_of[name]

    def units_with(self, is_meant: Callable[[tf.Operation], bool]) -> frozenset[int]:
        """The units with operations of some kind."""
        return frozenset(self.unit_of(op.name) for op, _ in self.operations if is_meant(op))


def flows(dtype: tf.DType) -> bool:
    """Whether derivatives can go through a tensor of this type."""
    return bool(dtype.is_floating or dtype.is_complex or dtype == tf.variant)
