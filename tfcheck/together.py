"""Units, or the loss as a whole, as one function of places, directions and what they are given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from tfcheck.directions import Array
from tfcheck.graph_functions import Excerpts, graph_function
from tfcheck.lines import Direction, Factors
from tfcheck.sources import Kernel, Output, Source

if TYPE_CHECKING:
    from tfcheck.apart import Apart


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
        self._moving = [moved[fed].number for fed in feeds if fed in moved]
        self._kernels = {n for n in self._moving if n in apart.kernels} if thin else set()
        for number in self._kernels:
            _make_thin(nodes, apart.kernels[number], number)
        self._still = [name for fed, name in feeds.items() if fed not in moved]
        self._names = [apart.sources[number].name for number in self._moving]
        self._weights = list(
            dict.fromkeys(w for of in outputs for o in of for w in o.weights if w is not None)
        )
        wanted = list(dict.fromkeys(o.name for of in outputs for o in of))
        nothing = (tf.zeros((), tf.float64), tf.zeros((), tf.float64))
        self._nowhere = [
            tuple(tf.zeros(shape, tf.float64) for shape in apart.kernels[number].factors)
            if number in self._kernels
            else nothing
            for number in self._moving
        ]

        def evaluate(
            places: tf.Tensor,
            moves: list[tuple[tf.Tensor, tf.Tensor]],
            bases: list[tf.Tensor],
            still: list[tf.Tensor],
            weights: list[tf.Tensor],
        ) -> tf.Tensor:
            given = dict(zip(self._still, still, strict=True))
            for position, number in enumerate(self._moving):
                inner, outer = moves[position]
                base, far = bases[position], places[position] * outer
                if number in self._kernels:
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
            if number in self._kernels
            else (free, free)
            for number in self._moving
        ]
        places = tf.TensorSpec([len(self._moving)], tf.float64)
        given = (specs(self._names), specs(self._still), specs(self._weights))
        self._evaluate = graph_function(evaluate, [places, pairs, *given])
        self._count = len(outputs)

    def __call__(
        self,
        found: Mapping[str, tf.Tensor],
        places: Mapping[int, float],
        moves: Mapping[int, tuple[tf.Tensor, tf.Tensor]],
    ) -> Array:
        """What each unit answers; `nan` for all where an operation refuses one of the places."""
        at = [places.get(number, 0.0) for number in self._moving]
        try:
            answers = self._evaluate(
                tf.constant(at, tf.float64),
                [
                    moves.get(number, nowhere)
                    for number, nowhere in zip(self._moving, self._nowhere, strict=True)
                ],
                [found[name] for name in self._names],
                [found[name] for name in self._still],
                [found[name] for name in self._weights],
            )
        except tf.errors.OpError:
            return np.full(self._count, np.nan)
        return np.asarray(answers)


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


class Derivative:
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
        self._names = list(dict.fromkeys([*feeds.values(), *apart.weights_of(units)]))
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
        self._evaluate = graph_function(evaluate, [specs])

    def __call__(self, found: Mapping[str, tf.Tensor]) -> tf.Tensor | None:
        """The derivative at a point; None where an operation refuses it."""
        try:
            derivative: tf.Tensor = self._evaluate([found[name] for name in self._names])
        except tf.errors.OpError:
            return None
        return derivative


_STOPPING = frozenset({"StopGradient", "PreventGradient"})


def as_tensors(direction: Direction) -> tuple[tf.Tensor, tf.Tensor]:
    """A direction as the two tensors whose product it is."""
    if isinstance(direction, Factors):
        outer = direction.outer[:, None] if direction.transposed else direction.outer
        return tf.constant(direction.inner), tf.constant(outer)
    return tf.constant(direction), tf.ones((), tf.float64)
