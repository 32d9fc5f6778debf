"""Units, or the loss as a whole, as one function of places, directions and what they are given."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfcheck.graph.excerpts import graph_function
from tfcheck.measure.directions import Array
from tfcheck.measure.lines import factors_of
from tfcheck.units.assembly import Assembly, moved_name
from tfcheck.units.cut import CutGraph
from tfcheck.units.moves import Layout, Moves, Piece
from tfcheck.units.sources import Kernel, Output, Source


class Given(NamedTuple):
    """What units are given at a point.

    Attributes:
        lying: the vector of what moves and is small.
        bases: what moves and is large.
        still: what does not move.
        weights: what weighs the outputs.
    """

    lying: tf.Tensor
    bases: list[tf.Tensor]
    still: list[tf.Tensor]
    weights: list[tf.Tensor]


class _Part:
    """A part of the graph as a function of a place, directions and what it is given there.

    Args:
        cut: all units.
        assembly: what computes it.
        thin: whether large kernels stay where they are, and a thin product is added to what comes
            of them. Their directions must then be factors.
    """

    def __init__(self, cut: CutGraph, assembly: Assembly, *, thin: bool) -> None:
        nodes, feeds = assembly.nodes, assembly.feeds
        moved = {moved_name(s.number): s for s in cut.sources}
        moving = [moved[fed] for fed in feeds if fed in moved]
        self._kernels = {s.number for s in moving if s.number in cut.kernels} if thin else set()
        for number in self._kernels:
            _make_thin(nodes, cut.kernels[number], number)
        pieces = [_piece(s, cut.kernels.get(s.number), self._kernels) for s in moving]
        self._layout = Layout(pieces)
        self._pieces = {piece.number: piece for piece in pieces if piece.factored}
        self._small = {s.number: s.name for s in moving if s.number not in self._pieces}
        self._large = [s.name for s in moving if s.number in self._pieces]
        self._still = [name for fed, name in feeds.items() if fed not in moved]
        outputs = [output for of in assembly.outputs for output in of]
        self._weights = list(dict.fromkeys(o.named for o in outputs if o.named))
        wanted = list(dict.fromkeys(output.name for output in outputs))

        def evaluate(place: tf.Tensor, move: tuple[tf.Tensor, list[tf.Tensor]], at: Given) -> Any:
            fed = self._fed(place, move, at)
            found = cut.promoted.excerpts.assembled(nodes.values(), fed, wanted)
            return self._answer(assembly, dict(zip(wanted, found, strict=True)), at)

        element = cut.promoted.graph.as_graph_element

        def specs(tensors: Iterable[str]) -> list[tf.TensorSpec]:
            return [tf.TensorSpec(element(n).shape, element(n).dtype) for n in tensors]

        inners = [
            tf.TensorSpec(piece.inner if number in self._kernels else None, tf.float64)
            for number, piece in self._pieces.items()
        ]
        vector, place = self._layout.spec, tf.TensorSpec([], tf.float64)
        weights = specs(names[0] for names in self._weights)
        given = Given(vector, specs(self._large), specs(self._still), weights)
        self._evaluate = graph_function(evaluate, [place, (vector, inners), given])

    def _fed(
        self, place: tf.Tensor, move: tuple[tf.Tensor, list[tf.Tensor]], at: Given
    ) -> dict[str, tf.Tensor]:
        """What is fed where everything has moved, by the names in the assembly."""
        direction, inners = move
        fed = dict(zip(self._still, at.still, strict=True))
        there = self._layout.unpacked(at.lying + place * direction)
        beside = iter(zip(inners, at.bases, strict=True))
        for number, value in there.items():
            if number not in self._pieces:
                fed[moved_name(number)] = value
                continue
            inner, kept = next(beside)
            if number in self._kernels:
                fed |= {moved_name(number): kept, _thin_name(number, "in"): inner}
                fed[_thin_name(number, "out")] = tf.reshape(value, [-1])
            else:
                far = kept + inner * value
                far.set_shape(kept.shape)
                fed[moved_name(number)] = far
        return fed

    def _answer(self, assembly: Assembly, values: Mapping[str, tf.Tensor], at: Given) -> Any:
        """What the function gives, of the tensors that are wanted."""
        raise NotImplementedError

    def given(self, found: Mapping[str, tf.Tensor]) -> Given:
        """What the part is given where tensors are these, by their names."""
        return Given(
            self._layout.packed({n: np.asarray(found[name]) for n, name in self._small.items()}),
            [found[name] for name in self._large],
            [found[name] for name in self._still],
            [_total([found[name] for name in names]) for names in self._weights],
        )

    def _at(self, given: Given, place: float, moves: Moves) -> Any:
        direction = moves.in_layout(self._layout)
        try:
            return self._evaluate(tf.constant(place, tf.float64), direction, given)
        except tf.errors.OpError:
            return None


class Together(_Part):
    """Units, or the loss, as one function: what each answers."""

    def __init__(self, cut: CutGraph, assembly: Assembly, *, thin: bool) -> None:
        super().__init__(cut, assembly, thin=thin)
        self._count = len(assembly.outputs)

    def _answer(self, assembly: Assembly, values: Mapping[str, tf.Tensor], at: Given) -> Any:
        by_name = dict(zip(self._weights, at.weights, strict=True))

        def sums(output: Output) -> Iterator[tf.Tensor]:
            value = values[output.name]
            if output.named:
                # Where a mask is infinite, or a label is missing, the gradient is zero.
                weighed = tf.math.multiply_no_nan(value, by_name[output.named])
                yield tf.reduce_sum(tf.cast(weighed, tf.float64))
            if plain := output.weights.count(None):
                yield plain * tf.reduce_sum(tf.cast(value, tf.float64))

        answers = [_total([s for output in of for s in sums(output)]) for of in assembly.outputs]
        return tf.stack(answers)

    def __call__(self, given: Given, place: float, moves: Moves) -> Array:
        """What each unit answers; `nan` for all where an operation refuses the place."""
        answers = self._at(given, place, moves)
        return np.full(self._count, np.nan) if answers is None else np.asarray(answers)


class Flow(_Part):
    """What units make, as one function of where the variables are.

    Args:
        cut: all units.
        assembly: what computes it.
    """

    def __init__(self, cut: CutGraph, assembly: Assembly) -> None:
        super().__init__(cut, assembly, thin=True)

    def _answer(self, assembly: Assembly, values: Mapping[str, tf.Tensor], at: Given) -> Any:
        del at
        return [values[output.name] for of in assembly.outputs for output in of]

    def __call__(self, given: Given, moves: Moves) -> list[tf.Tensor] | None:
        """What units make; None where an operation refuses that."""
        made: list[tf.Tensor] | None = self._at(given, 1.0, moves)
        return made


def _piece(source: Source, kernel: Kernel | None, thin: Container[int]) -> Piece:
    """Where a source lies that moves."""
    if not source.large:
        return Piece(source.number, source.shape, factored=False)
    transposed = kernel is not None and kernel.transposed
    inner, outer = factors_of(source.shape, transposed=transposed)
    shape = (*outer, 1) if transposed else outer
    nothing = inner if source.number in thin else ()
    return Piece(source.number, shape, factored=True, transposed=transposed, inner=nothing)


def _total(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """The sum of tensors, of which there is at least one."""
    return tensors[0] if len(tensors) == 1 else tf.add_n(tensors)


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
        cut: all units.
        source: what it is differentiated for.
    """

    def __init__(self, cut: CutGraph, source: Source) -> None:
        units = sorted(source.units)
        assembly = cut.assembled(units)
        nodes, feeds = assembly.nodes, assembly.feeds
        for node in nodes.values():
            if node.op in _STOPPING:  # it hands on what it gets; only tapes are told otherwise
                node.op = "Identity"
        own = moved_name(source.number)
        self._names = list(dict.fromkeys([*feeds.values(), *cut.weights_of(units)]))
        element = cut.promoted.graph.as_graph_element

        def evaluate(tensors: list[tf.Tensor]) -> tf.Tensor:
            by_name = dict(zip(self._names, tensors, strict=True))
            given = {fed: tf.identity(by_name[name]) for fed, name in feeds.items()}
            outputs = [o for unit in units for o in cut.outputs[unit]]
            wanted = [output.name for output in outputs]
            found = cut.promoted.excerpts.assembled(nodes.values(), given, wanted)
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
