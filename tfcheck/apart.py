"""The units of a loss apart from each other, all in one graph.

What units give each other is held fixed: each is computed from what it was given at a point, moved
or not, and answers with the sum of what it gives, weighted by the tape's gradients of that. So one
evaluation, which costs little more than one of the loss, moves every unit by itself.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf

from tfcheck.deadline import UNLIMITED, Deadline
from tfcheck.directions import Array, generator
from tfcheck.graph_functions import Excerpts, callable_part
from tfcheck.lines import Direction, Factors, factors_of
from tfcheck.listening import TapeCall
from tfcheck.nodes import OF_SHAPES, canonical

_FOREVER = frozenset({"Const"})
_KINKED = frozenset(
    {
        *("Relu", "Relu6", "LeakyRelu", "Selu", "Elu", "Abs", "Maximum", "Minimum", "Max", "Min"),
        *("MaxPool", "MaxPoolV2", "MaxPool3D", "Select", "SelectV2", "Sign", "Floor", "Round"),
        *("PartitionedCall", "StatefulPartitionedCall", "TopKV2", "SegmentMax", "ClipByValue"),
    }
)
"""Operations that may have kinks, among them calls of functions, of which nothing is known."""


class UndividedError(Exception):
    """Units cannot be told apart in a graph."""


@dataclass(frozen=True, eq=False)
class Source:
    """A tensor that units are given, as far as they use it themselves.

    Attributes:
        name: the tensor, in the float64 graph.
        shape: its shape.
        users: the units that use it.
        units: those of them that give something that the tape has a gradient of.
        total: the tensor of the tape's gradient of it; None where the tape gives None.
        beyond: the gradients of the gates that it goes through besides, which are in the total.
        handed: the tensor of the total as it goes on from here, and of nothing else; None for none.
        leaf: the tensor that holds the value of the variable that it is; None for what units make.
        number: its position among the sources.
    """

    name: str
    shape: tuple[int, ...]
    users: frozenset[int]
    units: frozenset[int]
    total: str | None
    beyond: tuple[str, ...]
    handed: str | None
    leaf: str | None
    number: int


@dataclass(frozen=True, eq=False)
class Output:
    """A tensor that a unit gives.

    Attributes:
        name: the tensor.
        weights: the gradients that weigh it, None for one.
        same: a tensor of the same value that is known at a point; None for none.
    """

    name: str
    weights: tuple[str | None, ...]
    same: str | None


@dataclass(frozen=True)
class Leaves:
    """What a loss is differentiated for, in the float64 graph.

    Attributes:
        totals: for each tensor that holds a value of it, the tensor of the tape's gradient, None
            where it gives None.
        variables: for each of these tensors the identity of the variable; None for a tensor.
        constants: tensors that the tape takes for constant.
    """

    totals: Mapping[str, str | None]
    variables: Mapping[str, int | None]
    constants: frozenset[str]


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


class Apart:
    """The units of one loss.

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
        self._still: dict[str, None] = {}
        self._functions: dict[tuple[tuple[int, ...] | None, bool], Together] = {}
        self.parts: dict[Any, Callable[..., Any]] = {}
        self._derivatives: dict[int, _Derivative | None] = {}
        self._backward: dict[tuple[int, ...], tuple[Callable[..., Any], list[str]]] = {}
        self.assembled(tuple(sorted(self.outputs)))
        weights = [w for of in self.outputs.values() for o in of for w in o.weights]
        totals = [name for s in self.sources for name in (s.total, *s.beyond)]
        self.fetches = tuple(
            dict.fromkeys(
                name
                for name in (*(s.name for s in self.sources), *self._still, *weights, *totals)
                if name is not None
            )
        )

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
            if (kernel := _kernel(source, uses[source.name])) is not None
        }
        self._position = {source.name: source.number for source in self.sources}

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

    def function(self, units: tuple[int, ...] | None, *, thin: bool = False) -> Together:
        """Some of the units as one function, or, for None, the loss; `thin` is `Together`'s."""
        if (units, thin) not in self._functions:
            assembly = self.whole() if units is None else self.assembled(units)
            self._functions[units, thin] = Together(self, assembly, thin=thin)
        return self._functions[units, thin]

    def assembled(self, units: Sequence[int]) -> Assembly:
        """What computes the outputs of some units from what they are given."""
        outputs = [self.outputs[unit] for unit in units]
        return self._assembled(outputs, self._position)

    def whole(self) -> Assembly:
        """What computes the loss from the variables, with nothing cut in between."""
        leaves = {s.name: s.number for s in self.sources if s.leaf is not None}
        return self._assembled([self.targets], leaves)

    def _assembled(self, outputs: Sequence[Sequence[Output]], cut: Mapping[str, int]) -> Assembly:
        """What computes outputs from the sources at which the graph is cut."""
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
                elif name not in cut and self._stays_inside(tensor, cut):
                    pending.append(tensor.op)
                else:
                    feeds[name] = name
                    self._still[name] = None
        return Assembly(nodes, feeds, outputs)

    def _stays_inside(self, tensor: tf.Tensor, cut: Mapping[str, int]) -> bool:
        """Whether what makes a tensor is computed along with what uses it."""
        if tensor.name in self._live and tensor.name not in self._leaves:
            # Where units are cut apart, gates are the end of them.
            return not self._is_gate(tensor.op) or cut is not self._position
        return self._constant(tensor.op)

    def _constant(self, operation: tf.Operation) -> bool:
        known = self._constants
        pending = [operation]
        while pending:
            current = pending[-1]
            if current.name in known:
                pending.pop()
                continue
            unknown = [t.op for t in current.inputs if t.op.name not in known]
            if current.type in _FOREVER:
                known[current.name] = True
            elif not current.inputs or current.op_def.is_stateful:
                known[current.name] = False
            elif unknown:
                pending += unknown
                continue
            else:
                known[current.name] = all(known[t.op.name] for t in current.inputs)
        return known[operation.name]

    @cached_property
    def _constants(self) -> dict[str, bool]:
        return {}

    def leaves(self, names: Iterable[str]) -> list[Source]:
        """The sources that are a variable, by the names of the tensors that hold its value."""
        held_by = set(names)
        return [source for source in self.sources if source.leaf in held_by]

    def is_product(self, number: int, move: tuple[tf.Tensor, tf.Tensor]) -> bool:
        """Whether a direction is factors where it is one in a large kernel."""
        kernel = self.kernels.get(number)
        return kernel is None or tuple(move[0].shape) == kernel.factors[0]

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

    def derivative(self, source: Source, found: Mapping[str, tf.Tensor]) -> tf.Tensor | None:
        """What the units of a source compute, differentiated operation by operation.

        Args:
            source: what it is differentiated for.
            found: the tensors named in `fetches`.

        Returns:
            The derivative; None where some operation has none.
        """
        if source.number not in self._derivatives:
            self._derivatives[source.number] = None
            with contextlib.suppress(LookupError, ValueError, TypeError, NotImplementedError):
                self._derivatives[source.number] = _Derivative(self, source)
        derivative = self._derivatives[source.number]
        return None if derivative is None else derivative(found)

    def backward(
        self, units: frozenset[int], sources: Sequence[Source]
    ) -> tuple[Callable[..., Any], list[str]]:
        """The tape's gradients of sources, as a function of what units are given.

        Returns:
            The function, and the names of what it is to be given.
        """
        key = tuple(source.number for source in sources)
        if key not in self._backward:
            given = dict.fromkeys(self.assembled(sorted(units)).feeds.values())
            given |= dict.fromkeys(
                w for unit in units for o in self.outputs[unit] for w in o.weights if w is not None
            )
            given |= dict.fromkeys(name for source in sources for name in source.beyond)
            wanted = [s.total for s in sources if s.total is not None]
            element = self._graph.as_graph_element
            tensors = {name: element(name) for name in given}
            tensors |= {feed.name: feed for feed in self.promoted.feeds}
            names = list(tensors)
            used = [names[n] for n in self.promoted.excerpts.used(names, wanted)]
            part = callable_part(
                self.promoted.excerpts, [tensors[n] for n in used], [element(n) for n in wanted]
            )
            self._backward[key] = part, used
        return self._backward[key]


def moved_name(number: int) -> str:
    """The name under which a source that moves is fed."""
    return f"moved/{number}:0"


class Together:
    """Units, or the loss, as one function of places, directions and what they are given.

    Args:
        apart: all units.
        assembly: what computes them.
        thin: whether large kernels stay where they are, and a thin product is added to what comes
            of them. Their directions must then be factors.
    """

    def __init__(self, apart: Apart, assembly: Assembly, *, thin: bool) -> None:
        nodes, feeds, outputs = assembly.nodes, assembly.feeds, assembly.outputs
        element = apart.promoted.graph.as_graph_element
        moved = {moved_name(s.number): s for s in apart.sources}
        self.moving = [moved[fed].number for fed in feeds if fed in moved]
        self.kernels = {n for n in self.moving if n in apart.kernels} if thin else set()
        for number in self.kernels:
            _make_thin(nodes, apart.kernels[number], number)
        self._still = [name for fed, name in feeds.items() if fed not in moved]
        self._names = [apart.sources[number].name for number in self.moving]
        self._weights = list(
            dict.fromkeys(w for of in outputs for o in of for w in o.weights if w is not None)
        )
        wanted = list(dict.fromkeys(o.name for of in outputs for o in of))
        nothing = (tf.zeros((), tf.float64), tf.zeros((), tf.float64))
        self._nowhere = [
            tuple(tf.zeros(shape, tf.float64) for shape in apart.kernels[number].factors)
            if number in self.kernels
            else nothing
            for number in self.moving
        ]

        def evaluate(
            places: tf.Tensor,
            moves: list[tuple[tf.Tensor, tf.Tensor]],
            bases: list[tf.Tensor],
            still: list[tf.Tensor],
            weights: list[tf.Tensor],
        ) -> tf.Tensor:
            given = dict(zip(self._still, still, strict=True))
            for position, number in enumerate(self.moving):
                inner, outer = moves[position]
                base, far = bases[position], places[position] * outer
                if number in self.kernels:
                    names = (
                        moved_name(number),
                        _thin_name(number, "in"),
                        _thin_name(number, "out"),
                    )
                    given |= dict(zip(names, (base, inner, tf.reshape(far, [-1])), strict=True))
                else:
                    there = base + inner * far
                    there.set_shape(base.shape)
                    given[moved_name(number)] = there
            found = apart.promoted.excerpts.assembled(nodes.values(), given, wanted)
            values = dict(zip(wanted, found, strict=True))
            by_name = dict(zip(self._weights, weights, strict=True))

            def weighted(output: Output, weight: str | None) -> tf.Tensor:
                value = values[output.name]
                return tf.reduce_sum(
                    tf.cast(value if weight is None else value * by_name[weight], tf.float64)
                )

            return tf.stack(
                [
                    tf.add_n([weighted(o, weight) for o in of for weight in o.weights])
                    for of in outputs
                ]
            )

        def specs(tensors: Iterable[str]) -> list[tf.TensorSpec]:
            return [tf.TensorSpec(element(n).shape, element(n).dtype) for n in tensors]

        free = tf.TensorSpec(None, tf.float64)
        pairs = [
            tuple(tf.TensorSpec(shape, tf.float64) for shape in apart.kernels[number].factors)
            if number in self.kernels
            else (free, free)
            for number in self.moving
        ]
        function = tf.function(evaluate, autograph=False)
        self._evaluate = function.get_concrete_function(
            tf.TensorSpec([len(self.moving)], tf.float64),
            pairs,
            specs(self._names),
            specs(self._still),
            specs(self._weights),
        )

    def __call__(
        self,
        found: Mapping[str, tf.Tensor],
        places: Mapping[int, float],
        moves: Mapping[int, tuple[tf.Tensor, tf.Tensor]],
    ) -> Array:
        """What each unit answers; `nan` for all where an operation refuses one of the places."""
        at = [places.get(number, 0.0) for number in self.moving]
        try:
            answers = self._evaluate(
                tf.constant(at, tf.float64),
                [
                    moves.get(number, nowhere)
                    for number, nowhere in zip(self.moving, self._nowhere, strict=True)
                ],
                [found[name] for name in self._names],
                [found[name] for name in self._still],
                [found[name] for name in self._weights],
            )
        except tf.errors.OpError:
            return np.full(self._evaluate.outputs[0].shape[0], np.nan)
        return np.asarray(answers)


@dataclass(frozen=True)
class Kernel:
    """A large kernel of a single product.

    Attributes:
        user: the operation that it is multiplied in.
        transposed: whether that transposes it.
        factors: shapes of the two factors of a direction in it, as `as_tensors` gives them.
    """

    user: str
    transposed: bool
    factors: tuple[tuple[int, ...], tuple[int, ...]]


def _kernel(source: Source, users: Sequence[tf.Operation]) -> Kernel | None:
    """A source as a large kernel, where it is one."""
    if len(users) != 1 or math.prod(source.shape) <= LARGE:
        return None
    (user,) = users
    if len(user.inputs) != 2 or user.inputs[1].name != source.name:
        return None
    transposed = False
    if user.type == "MatMul":
        transposed = user.get_attr("transpose_b")
    elif user.type != "Conv2D" or user.get_attr("data_format") != b"NHWC":
        return None
    elif user.inputs[0].shape[-1] != source.shape[2]:
        return None  # with groups, one output needs one of each group
    if math.prod(source.shape) <= (user.outputs[0].shape.num_elements() or math.inf):
        return None  # to move it costs less than to add to all that it gives
    inner, outer = factors_of(source.shape, transposed=transposed)
    return Kernel(user.name, transposed, (inner, (*outer, 1) if transposed else outer))


def _make_thin(nodes: dict[str, Any], kernel: Kernel, number: int) -> None:
    """Put a thin product beside that of a kernel, which does not move then."""
    node = nodes[kernel.user]
    kept, thin = type(node)(), type(node)()
    kept.CopyFrom(node)
    kept.name = f"{node.name}/kept"
    thin.CopyFrom(node)
    thin.name = f"{node.name}/thin"
    thin.input[1] = _thin_name(number, "in")
    dtype = {"T": node.attr["T"]}
    product = type(node)(
        name=f"{node.name}/product",
        op="Mul",
        input=[thin.name, _thin_name(number, "out")],
        attr=dtype,
    )
    total = type(node)(name=node.name, op="AddV2", input=[kept.name, product.name], attr=dtype)
    nodes |= {new.name: new for new in (kept, thin, product, total)}


def _thin_name(number: int, part: str) -> str:
    return f"thin/{number}/{part}:0"


LARGE = 2**13
"""Directions in tensors of more entries than this are products."""


class _Derivative:
    """What units compute, differentiated for something that they are given.

    Args:
        apart: all units.
        source: what it is differentiated for.
    """

    def __init__(self, apart: Apart, source: Source) -> None:
        units = sorted(source.units)
        assembly = apart.assembled(units)
        nodes, feeds = assembly.nodes, assembly.feeds
        for node in nodes.values():
            if node.op in _STOPPING:  # it hands on what it gets; only tapes are told otherwise
                node.op = "Identity"
        own = moved_name(source.number)
        weights = [w for u in units for o in apart.outputs[u] for w in o.weights if w is not None]
        self._names = list(dict.fromkeys([*feeds.values(), *weights]))
        element = apart.promoted.graph.as_graph_element

        def evaluate(tensors: list[tf.Tensor]) -> tf.Tensor:
            by_name = dict(zip(self._names, tensors, strict=True))
            given = {fed: tf.identity(by_name[name]) for fed, name in feeds.items()}
            outputs = [o for unit in units for o in apart.outputs[unit]]
            wanted = [output.name for output in outputs]
            found = apart.promoted.excerpts.assembled(nodes.values(), given, wanted)
            grad_ys = [
                tf.add_n([tf.ones_like(value) if w is None else by_name[w] for w in o.weights])
                for value, o in zip(found, outputs, strict=True)
            ]
            (gradient,) = tf.gradients(found, [given[own]], grad_ys)
            return tf.zeros_like(given[own]) if gradient is None else tf.convert_to_tensor(gradient)

        specs = [tf.TensorSpec(element(n).shape, element(n).dtype) for n in self._names]
        function = tf.function(evaluate, autograph=False)
        self._evaluate = function.get_concrete_function(specs)

    def __call__(self, found: Mapping[str, tf.Tensor]) -> tf.Tensor | None:
        try:
            derivative: tf.Tensor = self._evaluate([found[name] for name in self._names])
        except tf.errors.OpError:
            return None
        return derivative


_STOPPING = frozenset({"StopGradient", "PreventGradient"})


def _flows(dtype: tf.DType) -> bool:
    return bool(dtype.is_floating or dtype.is_complex or dtype == tf.variant)


@dataclass
class ApartAt:
    """The units of a loss at a point.

    Attributes:
        apart: the units.
        found: the inputs of the step and the tensors named in `fetches`.
        deadline: when evaluating them has to end.
        evaluations: how often all units were computed, or as much of them.
    """

    apart: Apart
    found: dict[str, tf.Tensor]
    deadline: Deadline = UNLIMITED
    evaluations: float = 0.0
    units: frozenset[int] = frozenset()
    _sizes: dict[int, float] = field(default_factory=dict)

    def value(self, source: Source) -> Array:
        """A source's value."""
        return np.asarray(self.found[source.name])

    def gradient(self, source: Source) -> Array:
        """The tape's gradient of a source for what its units use themselves; zero for None."""
        if source.total is None:
            return np.zeros(source.shape)
        total = np.asarray(self.found[source.total], np.float64)
        for name in source.beyond:
            total = total - np.asarray(self.found[name], np.float64)
        return total

    def size(self, unit: int) -> float:
        """The sum of the magnitudes of what a unit's answer is a sum of, as far as it is known."""
        if unit not in self._sizes:
            self._sizes[unit] = math.fsum(
                _magnitude(self.found[output.same], self.found[weight])
                for output in self.apart.outputs[unit]
                for weight in output.weights
                if weight is not None and output.same is not None
            )
        return self._sizes[unit]

    def evaluated(
        self, names: Sequence[str], instead: Mapping[str, tf.Tensor]
    ) -> list[tf.Tensor] | None:
        """Tensors of the step's graph, with others in the place of some; None where that fails.

        Args:
            names: the tensors that are wanted.
            instead: tensors to put in the place of those of these names.
        """
        self.deadline.require_time()
        promoted, parts = self.apart.promoted, self.apart.parts
        element = promoted.graph.as_graph_element
        feeds: dict[str, Any] = {feed.name: feed for feed in promoted.feeds}
        feeds |= {name: element(name) for name in instead}
        labels = list(feeds)
        used = [labels[position] for position in promoted.excerpts.used(labels, names)]
        key = (tuple(names), tuple(used))
        if key not in parts:
            parts[key] = callable_part(
                promoted.excerpts, [feeds[name] for name in used], [element(n) for n in names]
            )
        given = {**self.found, **instead}
        try:
            found: list[tf.Tensor] = parts[key](*(given[name] for name in used))
        except tf.errors.OpError:
            return None
        return found

    def dormant(self) -> frozenset[int]:
        """The units of whose outputs the tape's gradients are zero throughout."""
        return frozenset(
            unit
            for unit, outputs in self.apart.outputs.items()
            if not any(w is None or np.any(self.found[w]) for o in outputs for w in o.weights)
        )

    def weighed_at_random(self, units: frozenset[int], seed: int) -> ApartAt | None:
        """Units with random gradients of their outputs in the place of the tape's.

        Args:
            units: the units.
            seed: seeds the gradients.

        Returns:
            The units, with what the tape's backward pass makes of that; None where that fails.
        """
        rng = generator(seed, "weights")
        names = [w for u in sorted(units) for o in self.apart.outputs[u] for w in o.weights if w]
        weights = {
            name: tf.constant(rng.standard_normal(self.found[name].shape), self.found[name].dtype)
            for name in dict.fromkeys(names)
        }
        given = [s for s in self.apart.sources if s.units and s.units <= units]
        totals = [n for s in given for n in (s.total, *s.beyond) if n is not None]
        wanted = [name for name in dict.fromkeys(totals) if name not in weights]
        found = self.evaluated(wanted, weights)
        if found is None:
            return None
        own = {**self.found, **dict(zip(wanted, found, strict=True)), **weights}
        return ApartAt(self.apart, own, self.deadline, units=units)

    def elsewhere(
        self, found: dict[str, tf.Tensor], units: frozenset[int], sources: Sequence[Source]
    ) -> ApartAt | None:
        """Units where what they are given is something else; what weighs their outputs is not.

        Args:
            found: what they are given.
            units: the units.
            sources: the sources whose gradients are wanted there.

        Returns:
            The units there; None where an operation refuses it.
        """
        self.deadline.require_time()
        part, names = self.apart.backward(units, sources)
        try:
            gradients = part(*(found[name] for name in names))
        except tf.errors.OpError:
            return None
        wanted = [source.total for source in sources if source.total is not None]
        there = {**found, **dict(zip(wanted, gradients, strict=True))}
        return ApartAt(self.apart, there, self.deadline, units=units)

    def answers(
        self,
        units: Iterable[int],
        places: Mapping[int, float],
        moves: Mapping[int, Any],
    ) -> dict[int, float]:
        """What units answer where sources have moved.

        Args:
            units: the units that are asked.
            places: how far each source goes.
            moves: where to, by the source.
        """
        self.deadline.require_time()
        asked = tuple(sorted(units))
        everyone = tuple(sorted(self.apart.outputs))
        if len(asked) * _FEW >= len(everyone):
            self.evaluations += 1.0
            thin = all(self.apart.is_product(number, move) for number, move in moves.items())
            found = self.apart.function(everyone, thin=thin)(self.found, places, moves)
            if np.all(np.isfinite(found)) or len(everyone) == 1:
                known = dict(zip(everyone, map(float, found), strict=True))
                return {unit: known[unit] for unit in asked}
        answers = {}
        for unit in asked:
            self.deadline.require_time()
            self.evaluations += 1 / len(everyone)
            (answer,) = self.apart.function((unit,))(self.found, places, moves)
            answers[unit] = float(answer)
        return answers


def _magnitude(output: tf.Tensor, weight: tf.Tensor) -> float:
    """The sum of the magnitudes of all products, from a part of them where there are many."""
    one, other = np.asarray(output).ravel(), np.asarray(weight).ravel()
    if one.size != other.size:
        return 0.0
    stride = max(1, one.size // _SAMPLE)
    return stride * float(np.abs(one[::stride] * other[::stride]).sum(dtype=np.float64))


_SAMPLE = 2**14
_FEW = 4
"""Where fewer than one in so many units are asked, each is computed by itself."""


def as_tensors(direction: Direction) -> tuple[tf.Tensor, tf.Tensor]:
    """A direction as the two tensors whose product it is."""
    if isinstance(direction, Factors):
        outer = direction.outer[:, None] if direction.transposed else direction.outer
        return tf.constant(direction.inner), tf.constant(outer)
    return tf.constant(direction), _ONE


with tf.init_scope():
    _ONE = tf.ones((), tf.float64)
