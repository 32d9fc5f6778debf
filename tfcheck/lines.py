"""The loss along lines: many points of a line in one evaluation, by a loop in the graph.

Where only variables deep in the network move, what comes before them is computed once a line. A
direction in a kernel may be the product of a vector with the rest: then the kernel is not moved at
all, and a thin product is added to what its operation gives, x·(W + t·abᵀ) = x·W + t·(x·a)bᵀ, which
is exact and costs next to nothing where moving a large kernel costs more than the network itself.
Kernels smaller than what they give are moved.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from tfcheck.directions import Array, dot
from tfcheck.graph_functions import Excerpts, LossPart, operations_between
from tfcheck.nodes import canonical

Values: TypeAlias = Callable[[Sequence[float]], Array]
"""The loss at several places along a line."""


_AT_ONCE = 2
"""Two places at a time keep cores busy that wait for each other in small operations."""


@dataclass(frozen=True)
class Factors:
    """A direction in a kernel that is the product of two, broadcast to the kernel's shape.

    Attributes:
        inner: the part along the axes that are summed over, 1 along the last one of the output.
        outer: the part along the axis of the output, which is the last or, transposed, the first.
        transposed: whether it is the first.
    """

    inner: Array
    outer: Array
    transposed: bool = False

    def slope(self, gradient: Array) -> float:
        """The product of the direction with a gradient of the kernel's shape."""
        if self.transposed:
            return float(self.outer @ gradient.reshape(self.outer.size, -1) @ self.inner.ravel())
        return float(self.inner.ravel() @ gradient.reshape(-1, self.outer.size) @ self.outer)

    def dense(self) -> Array:
        """The direction as an array of the kernel's shape."""
        outer = self.outer[:, None] if self.transposed else self.outer
        return np.asarray(self.inner * outer)


Direction: TypeAlias = "Array | Factors"


def slope_along(direction: Direction, gradient: Array) -> float:
    """The product of a direction with a gradient."""
    if isinstance(direction, Factors):
        return direction.slope(gradient)
    return dot(direction, gradient)


class Lines:
    """A loss along lines in some variables, as a function of the point, the line and the places.

    Args:
        part: the loss.
        movable: for each variable that may move the names of those feeds that hold it.
        factored: the variables, by position, whose directions are to be factors where they are
            kernels. Defaults to none.

    Attributes:
        kernels: for the variables, by position, whose directions must be factors, whether the
            kernel is transposed.
    """

    def __init__(
        self, part: LossPart, movable: Sequence[Sequence[str]], factored: Collection[int] = ()
    ) -> None:
        source, loss = part.source, part.loss
        names = [feed.name for feed in part.feeds]
        self._shapes = {feed.name: feed.shape for feed in part.feeds}
        self._movable = movable
        self.kernels: dict[int, bool] = {}
        beside = self._factor(part, factored) if factored else source

        def along(
            places: tf.Tensor, moves: tf.Tensor, directions: list[Any], point: list[tf.Tensor]
        ) -> tf.Tensor:
            given = dict(zip(names, point, strict=True))
            fixed = self._fixed(source, given, loss)

            def at(place: tf.Tensor) -> tf.Tensor:
                inside = {name: tf.identity(tensor) for name, tensor in fixed.items()}
                for number in range(len(movable)):
                    inside |= self._moved(number, given, place, moves, directions)
                return beside.imported(inside, [loss], "line")[0]

            return tf.map_fn(
                at, places, fn_output_signature=tf.float64, parallel_iterations=_AT_ONCE
            )

        specs = [tf.TensorSpec(feed.shape, feed.dtype) for feed in part.feeds]
        free = tf.TensorSpec(None, tf.float64)
        self._along = tf.function(along, autograph=False).get_concrete_function(
            tf.TensorSpec([None], tf.float64),
            tf.TensorSpec([len(movable)], tf.bool),
            [(free, free) if number in self.kernels else free for number in range(len(movable))],
            specs,
        )
        nothing = tf.zeros((), tf.float64)
        self._still = [
            self._zeros(number) if number in self.kernels else nothing
            for number in range(len(movable))
        ]

    def at(self, point: Sequence[tf.Tensor], directions: Mapping[int, Direction]) -> Values:
        """The loss along a line.

        Args:
            point: a tensor for each feed.
            directions: for the variables that move, by position, where to.
        """
        moves = np.zeros(len(self._movable), bool)
        given: list[Any] = list(self._still)
        for number, direction in directions.items():
            moves[number] = True
            given[number] = (
                (tf.constant(direction.inner), tf.constant(direction.outer))
                if isinstance(direction, Factors)
                else tf.constant(direction)
            )
        flags = tf.constant(moves)

        def values(places: Sequence[float]) -> Array:
            return np.asarray(
                self._along(tf.constant(places, tf.float64), flags, given, list(point))
            )

        return values

    def _fixed(
        self, source: Excerpts, given: Mapping[str, tf.Tensor], loss: str
    ) -> dict[str, tf.Tensor]:
        """The tensors by name that do not move, and that what moves is computed with."""
        (base,) = source.imported(given, [loss], "base")
        moving = {given[name].ref() for held_by in self._movable for name in held_by}
        names = {tensor.ref(): name for name, tensor in given.items()}
        fixed: dict[str, tf.Tensor] = {}
        for op in operations_between(given.values(), base):
            if not any(tensor.ref() in moving for tensor in op.inputs):
                continue
            moving |= {out.ref() for out in op.outputs}
            for tensor in op.inputs:
                if tensor.ref() not in moving and tensor.op.type != "Const":
                    fixed[names.get(tensor.ref(), tensor.name.removeprefix("base/"))] = tensor
        return fixed

    def _moved(
        self,
        number: int,
        given: Mapping[str, tf.Tensor],
        place: tf.Tensor,
        moves: tf.Tensor,
        directions: Sequence[Any],
    ) -> dict[str, tf.Tensor]:
        """What is given in the place of a variable, by the names of its feeds."""
        held_by, direction = self._movable[number], directions[number]
        if number in self.kernels:
            (name,), (inner, outer) = held_by, direction
            # An import does not capture what is outside of the loop; other operations do.
            still = tf.identity(given[name])
            return {name: still, _inner(name): tf.identity(inner), _outer(name): place * outer}
        before = [given[name] for name in held_by]

        def there() -> list[tf.Tensor]:
            return [tensor + place * direction for tensor in before]

        always = len(self._movable) == 1
        moved = there() if always else tf.cond(moves[number], there, lambda: before)
        for tensor, still in zip(moved, before, strict=True):
            tensor.set_shape(still.shape)
        return dict(zip(held_by, moved, strict=True))

    def _factor(self, part: LossPart, among: Collection[int]) -> Excerpts:
        """The graph with thin products beside those of kernels, where these are large."""
        graph = part.feeds[0].graph
        users: dict[str, list[tuple[Any, str]]] = {}
        same: dict[str, str] = {}
        for node in part.source.between(self._shapes, [part.loss]):
            refs = [canonical(ref, in_function=False) for ref in node.input]
            if node.op == "Identity":
                same[f"{node.name}:0"] = same.get(refs[0], refs[0])
                continue
            for ref in refs:
                users.setdefault(same.get(ref, ref), []).append((node, ref))
        new: list[Any] = []
        for number in among:
            held_by = self._movable[number]
            name = held_by[0]
            uses = users.get(name, [])
            layouts = {_layout(node, ref, graph) for node, ref in uses}
            if len(held_by) > 1 or len(layouts) != 1 or None in layouts:
                continue
            added = [graph.get_tensor_by_name(f"{node.name}:0").shape for node, _ in uses]
            if _entries(self._shapes[name]) <= sum(map(_entries, added)):
                continue  # to move it costs less than to add to all that it gives
            self.kernels[number] = layouts == {True}
            for node, _ in uses:
                new += _with_product(node, name)
        return part.source.replacing(new)

    def _zeros(self, number: int) -> tuple[tf.Tensor, tf.Tensor]:
        inner, outer = factors_of(
            self._shapes[self._movable[number][0]], transposed=self.kernels[number]
        )
        return tf.zeros(inner, tf.float64), tf.zeros(outer, tf.float64)


def _entries(shape: tf.TensorShape) -> int:
    """Number of entries; 0 where it is unknown."""
    return shape.num_elements() or 0


def factors_of(
    shape: Sequence[int], *, transposed: bool
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of the inner and the outer part of a direction in a kernel."""
    if transposed:
        return (1, *shape[1:]), (shape[0],)
    return (*shape[:-1], 1), (shape[-1],)


def _inner(kernel: str) -> str:
    return f"{kernel.replace(':', '_')}/inner:0"


def _outer(kernel: str) -> str:
    return f"{kernel.replace(':', '_')}/outer:0"


def _layout(node: Any, kernel: str, graph: tf.Graph) -> bool | None:
    """Whether a product has its kernel transposed; None for what is no product with a kernel."""
    refs = [canonical(ref, in_function=False) for ref in node.input]
    if refs.count(kernel) != 1 or len(refs) != 2 or refs[1] != kernel:
        return None
    if node.op == "MatMul":
        return bool(node.attr["transpose_b"].b)
    if node.op == "Conv2D" and node.attr["data_format"].s in (b"", b"NHWC"):
        inputs, entries = (graph.get_tensor_by_name(ref).shape for ref in refs)
        whole = inputs.rank and entries.rank and inputs[-1] == entries[2]
        return False if whole else None  # with groups, one output needs one of each group
    return None


def _with_product(node: Any, kernel: str) -> list[Any]:
    """A product with a kernel, and a thin one beside it that is added."""
    kept, thin = type(node)(), type(node)()
    kept.CopyFrom(node)
    kept.name = f"{node.name}/kept"
    thin.CopyFrom(node)
    thin.name = f"{node.name}/thin"
    thin.input[1] = _inner(kernel)
    dtype = {"T": node.attr["T"]}
    product = type(node)(
        name=f"{node.name}/product", op="Mul", input=[thin.name, _outer(kernel)], attr=dtype
    )
    total = type(node)(name=node.name, op="AddV2", input=[kept.name, product.name], attr=dtype)
    return [kept, thin, product, total]
