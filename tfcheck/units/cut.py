"""The units of a loss apart from each other, all in one graph.

What units give each other is held fixed: each is computed from what it was given at a point, moved
or not, and answers with the sum of what it gives, weighted by the tape's gradients of that. So one
evaluation, which costs little more than one of the loss, moves every unit by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf

from tfcheck.graph.nodes import OF_SHAPES, canonical
from tfcheck.measure.lines import Direction, Factors, random_direction
from tfcheck.trace.listening import TapeCall
from tfcheck.units.assembly import Assembly, Promoted, moved_name
from tfcheck.units.moves import Moves
from tfcheck.units.sources import Leaves, Output, Source, UndividedError, kernel_of

_KINKED = frozenset(
    {
        *("Relu", "Relu6", "LeakyRelu", "Selu", "Elu", "Abs", "Maximum", "Minimum", "Max", "Min"),
        *("MaxPool", "MaxPoolV2", "MaxPool3D", "Select", "SelectV2", "Sign", "Floor", "Round"),
        *("PartitionedCall", "StatefulPartitionedCall", "TopKV2", "SegmentMax", "ClipByValue"),
    }
)
"""Operations that may have kinks, among them calls of functions, of which nothing is known."""


class Cut:
    """The graph of one loss, cut between its units.

    Args:
        call: the tape's call.
        promoted: the graph of the step.
        leaves: what the loss is differentiated for.

    Attributes:
        paths: the path of each unit.
        sources: what the units are given that moves.
        outputs: for each unit what it gives that the tape has a gradient of.
        targets: what the loss is a sum of.
        giving: the units that give anything that moves.
        kernels: the sources, by number, that are large kernels.
        parts: parts of the step's graph, as functions.
        fetches: the names of the tensors to evaluate at a point.

    Raises:
        UndividedError: if the units cannot be told apart.
    """

    def __init__(self, call: TapeCall, promoted: Promoted, leaves: Leaves) -> None:
        if call.division is None:
            raise UndividedError
        names = promoted.names
        self._division = call.division
        self.promoted = promoted
        self._graph = promoted.graph
        self.paths = call.division.paths
        shares = {
            names[tensor.name]: None if share is None else names[share.name]
            for tensor, share in zip(call.division.behind, call.shares, strict=True)
        }
        self._leaves = leaves.totals.keys()
        self._before: dict[str, frozenset[str]] = {}
        self._live: dict[str, tf.Operation] = {}
        targets = [names[target.name] for target in call.targets]
        live = self._walk(targets, leaves)
        self._cut = self._crossing(live, leaves, shares)
        self._find_sources(live, leaves, shares)
        seeds = [None if w is None else names[w.name] for w in call.output_gradients]
        self._find_outputs(live, shares, list(zip(targets, seeds, strict=True)))
        self.kinked = self._units_with(live, lambda op: op.type in _KINKED)
        self.rough = self._units_with(
            live, lambda op: any(t.dtype.is_floating and t.dtype.size < 8 for t in op.outputs)
        )
        self._constants: dict[str, bool] = {}
        self.parts: dict[Any, tuple[Callable[..., Any], list[str]]] = {}
        assemblies = (self.assembled(sorted(self.outputs)), self.whole(), self.flowing())
        given = [name for assembly in assemblies for name in assembly.feeds.values()]
        totals = [n for s in self.sources for n in (s.name, s.total, *s.beyond) if n is not None]
        self.fetches = tuple(dict.fromkeys([*given, *self.weights_of(self.outputs), *totals]))

    # -- which units there are -----------------------------------------------------------------

    def unit_of(self, operation: str) -> int:
        """The unit of an operation, or of the one that it was made for."""
        name = operation
        while name and name not in self._division.unit_of:
            name = name.rpartition("/")[0]
        if not name:
            raise UndividedError
        return self._division.unit_of[name]

    def _walk(
        self, targets: Iterable[str], leaves: Leaves
    ) -> list[tuple[tf.Operation, list[tf.Tensor]]]:
        """The live operations that the targets are computed from, each with its live inputs."""
        element = self._graph.as_graph_element
        pending = [element(name).op for name in targets]
        ends = leaves.totals.keys() | leaves.constants
        cone: set[str] = set()
        while pending:
            operation = pending.pop()
            if operation.name in cone:
                continue
            cone.add(operation.name)
            if not all(out.name in ends for out in operation.outputs):
                pending += [tensor.op for tensor in operation.inputs]
        found = []
        for operation in self._graph.get_operations():
            if operation.name not in cone:
                continue
            own = [out.name for out in operation.outputs if out.name in leaves.totals]
            own_only = bool(own) and len(own) == len(operation.outputs)
            inputs = [tensor for tensor in operation.inputs if tensor.name in self._live]
            self._live |= dict.fromkeys(own, operation)
            closed = operation.name in self._division.closed
            if own_only or not inputs or operation.type in OF_SHAPES or closed:
                continue
            self._live |= {
                out.name: operation
                for out in operation.outputs
                if _flows(out.dtype) and out.name not in leaves.constants
            }
            found.append((operation, inputs))
        return found

    def _crossing(
        self,
        live: Sequence[tuple[tf.Operation, list[tf.Tensor]]],
        leaves: Leaves,
        shares: Mapping[str, str | None],
    ) -> frozenset[str]:
        """The tensors that are cut: gates' outputs, leaves, and what another unit uses."""
        cut: set[str] = set()
        for operation, inputs in live:
            if self._is_gate(operation):
                continue
            for tensor in inputs:
                maker = tensor.op
                if self._is_gate(maker) or tensor.name in leaves.totals:
                    cut.add(tensor.name)
                elif self.unit_of(maker.name) != self.unit_of(operation.name):
                    if tensor.name not in shares:
                        raise UndividedError
                    cut.add(tensor.name)
        return frozenset(cut)

    def _is_gate(self, operation: tf.Operation) -> bool:
        return operation.name in self._division.gates

    def _find_sources(
        self,
        live: Sequence[tuple[tf.Operation, list[tf.Tensor]]],
        leaves: Leaves,
        shares: Mapping[str, str | None],
    ) -> None:
        users: dict[str, set[int]] = {}
        uses: dict[str, list[tf.Operation]] = {}
        tensors: dict[str, tf.Tensor] = {}
        self._gates_of: dict[str, list[str]] = {}
        reads: dict[int, list[str]] = {}
        for operation, inputs in live:
            if self._is_gate(operation):
                (given,) = (tensor.name for tensor in inputs)
                gate = operation.outputs[0].name
                variable = self._division.gates[operation.name]
                if variable is None:
                    self._gates_of.setdefault(given, []).append(gate)
                else:
                    reads.setdefault(variable, []).append(gate)
                continue
            for tensor in inputs:
                if tensor.name in self._cut:
                    users.setdefault(tensor.name, set()).add(self.unit_of(operation.name))
                    uses.setdefault(tensor.name, []).append(operation)
                    tensors[tensor.name] = tensor
        self.sources: list[Source] = []
        for number, (name, units) in enumerate(users.items()):
            tensor = tensors[name]
            which = leaves.variables.get(name)
            behind = reads.get(which, []) if which is not None else self._gates_of.get(name, [])
            total = leaves.totals[name] if name in leaves.totals else shares.get(name)
            if tensor.shape.rank is None or not tensor.shape.is_fully_defined():
                raise UndividedError
            self.sources.append(
                Source(
                    name,
                    tuple(tensor.shape),
                    frozenset(units),
                    frozenset(),
                    total,
                    tuple(g for gate in behind if (g := shares.get(gate)) is not None),
                    shares.get(self._gate_before(tensor), total),
                    self._leaf_of(tensor, leaves),
                    number,
                )
            )
        self.kernels = {
            source.number: kernel
            for source in self.sources
            if (kernel := kernel_of(source, uses[source.name])) is not None
        }

    def _gate_before(self, tensor: tf.Tensor) -> str:
        """The gate that a gate's output goes through just before; `""` for none."""
        if not self._is_gate(tensor.op):
            return ""
        given = [t for t in tensor.op.inputs if t.name in self._live and self._is_gate(t.op)]
        return given[0].name if given else ""

    def _leaf_of(self, tensor: tf.Tensor, leaves: Leaves) -> str | None:
        """The leaf that a tensor is, directly or behind gates; None for what units make."""
        while tensor.name not in leaves.totals and self._is_gate(tensor.op):
            (tensor,) = (given for given in tensor.op.inputs if given.name in self._live)
        return tensor.name if tensor.name in leaves.totals else None

    def _find_outputs(
        self,
        live: Sequence[tuple[tf.Operation, list[tf.Tensor]]],
        shares: Mapping[str, str | None],
        seeds: Sequence[tuple[str, str | None]],
    ) -> None:
        self.outputs: dict[int, list[Output]] = {}
        self.giving: set[int] = set()
        targets = [target for target, _ in seeds]
        self.targets = [Output(target, (seed,), None) for target, seed in seeds]
        for operation, _ in live:
            if self._is_gate(operation):
                continue
            for out in operation.outputs:
                if out.name in self._cut or out.name in self._gates_of or out.name in targets:
                    self.giving.add(self.unit_of(operation.name))
                weights: list[str | None] = []
                if out.name in self._cut:
                    weights = [w for w in [shares.get(out.name)] if w is not None]
                else:
                    gates = self._gates_of.get(out.name, ())
                    weights = [w for gate in gates if (w := shares.get(gate)) is not None]
                    weights += [seed for target, seed in seeds if target == out.name]
                if weights:
                    unit = self.unit_of(operation.name)
                    known = [name for name in self._handed_on(out.name) if name in self._cut]
                    output = Output(out.name, tuple(weights), known[0] if known else None)
                    self.outputs.setdefault(unit, []).append(output)
        self.sources = [
            replace(source, units=frozenset(source.users & self.outputs.keys()))
            for source in self.sources
        ]

    def _handed_on(self, name: str) -> Iterator[str]:
        """A tensor, and the outputs of all gates that it goes through from here."""
        yield name
        for gate in self._gates_of.get(name, ()):
            yield from self._handed_on(gate)

    def _units_with(
        self,
        live: Sequence[tuple[tf.Operation, list[tf.Tensor]]],
        is_meant: Callable[[tf.Operation], bool],
    ) -> frozenset[int]:
        """The units with operations of some kind."""
        return frozenset(
            self.unit_of(operation.name)
            for operation, _ in live
            if not self._is_gate(operation) and is_meant(operation)
        )

    # -- computing them ------------------------------------------------------------------------

    @property
    def made(self) -> list[Source]:
        """The sources that units make."""
        return [source for source in self.sources if source.leaf is None]

    def flowing(self) -> Assembly:
        """What computes all that units give each other from the variables."""
        return self._computed([[Output(source.name, (), None) for source in self.made]])

    def weights_of(self, units: Iterable[int]) -> list[str]:
        """The tensors of the gradients that weigh what units give."""
        weights = (w for unit in units for o in self.outputs[unit] for w in o.weights)
        return list(dict.fromkeys(weight for weight in weights if weight is not None))

    def assembled(self, units: Sequence[int]) -> Assembly:
        """What computes the outputs of some units from what they are given."""
        return self._assembled([self.outputs[unit] for unit in units], self.sources)

    def whole(self) -> Assembly:
        """What computes the loss from the variables, with nothing cut in between."""
        return self._computed([self.targets])

    def _computed(self, outputs: Sequence[Sequence[Output]]) -> Assembly:
        leaves = [source for source in self.sources if source.leaf is not None]
        return self._assembled(outputs, leaves, through_gates=True)

    def _assembled(
        self,
        outputs: Sequence[Sequence[Output]],
        sources: Iterable[Source],
        *,
        through_gates: bool = False,
    ) -> Assembly:
        """What computes outputs from the sources at which the graph is cut.

        Where units are cut apart, gates are the end of them.
        """
        cut = {source.name: source.number for source in sources}
        nodes: dict[str, Any] = {}
        feeds: dict[str, str] = {}
        element = self._graph.as_graph_element
        pending = [element(output.name).op for of in outputs for output in of]
        while pending:
            operation = pending.pop()
            if operation.name in nodes:
                continue
            node = tf.compat.v1.NodeDef()
            node.CopyFrom(self.promoted.excerpts.node(operation.name))
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
        if tensor.name in self._live and tensor.name not in self._leaves:
            return through_gates or not self._is_gate(tensor.op)
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

    def leaves(self, names: Iterable[str]) -> list[Source]:
        """The sources that are a variable, by the names of the tensors that hold its value."""
        held_by = dict.fromkeys(names)
        return [source for name in held_by for source in self._leaf_sources.get(name, ())]

    @cached_property
    def _leaf_sources(self) -> dict[str, list[Source]]:
        found: dict[str, list[Source]] = {}
        for source in self.sources:
            if source.leaf is not None:
                found.setdefault(source.leaf, []).append(source)
        return found

    def drawn(self, rng: np.random.Generator, source: Source, unit: float) -> Direction:
        """A random direction in a source, with entries of this standard deviation."""
        kernel = self.kernels.get(source.number)
        return random_direction(
            rng.standard_normal,
            source.shape,
            unit,
            product=source.large,
            transposed=kernel is not None and kernel.transposed,
        )

    def are_products(self, moves: Moves) -> bool:
        """Whether all directions in large kernels are such as can be moved by a thin product."""
        return all(
            isinstance(direction, Factors) and direction.transposed == kernel.transposed
            for number, direction in moves.directions.items()
            if (kernel := self.kernels.get(number)) is not None
        )

    def leaves_before(self, name: str) -> frozenset[str]:
        """The leaves that a tensor is computed from."""
        if name not in self._before:
            pending = [self._graph.as_graph_element(name).op]
            found: set[str] = set()
            seen: set[str] = set()
            while pending:
                operation = pending.pop()
                if operation.name in seen:
                    continue
                seen.add(operation.name)
                found |= {out.name for out in operation.outputs} & self._leaves
                pending += [t.op for t in operation.inputs if t.name in self._live]
            self._before[name] = frozenset(found)
        return self._before[name]

    def follows_in_jumps(self, source: Source) -> bool:
        """Whether what units give is computed from a source by way of what is no float.

        Such are the positions that an argmax finds, and the outcomes of comparisons.
        """
        element = self._graph.as_graph_element
        pending = [(element(o.name).op, False) for unit in source.units for o in self.outputs[unit]]
        seen: set[tuple[str, bool]] = set()
        while pending:
            operation, in_jumps = pending.pop()
            if (operation.name, in_jumps) in seen or operation.type in OF_SHAPES:
                continue
            seen.add((operation.name, in_jumps))
            for tensor in operation.inputs:
                if tensor.name == source.name and in_jumps:
                    return True
                if tensor.name not in self._cut:
                    pending.append((tensor.op, in_jumps or not _flows(tensor.dtype)))
        return False


def _flows(dtype: tf.DType) -> bool:
    return bool(dtype.is_floating or dtype.is_complex or dtype == tf.variant)
