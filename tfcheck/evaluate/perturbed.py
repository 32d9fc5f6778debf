"""The loss where single entries of a variable are perturbed, thousands of them in one evaluation.

The graph between the variable and the loss is built once more for K lanes, each with an entry of
its own. As far as rules go (`lane_rules.py`) a lane holds only what its entry changes. What comes
after is batched by `tf.vectorized_map`, and what cannot be is looped over in the graph. What no
entry changes is computed once for all.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import tensorflow as tf

from tfcheck.evaluate.lane_rules import through
from tfcheck.evaluate.lanes import Lanes, Operand
from tfcheck.evaluate.slices import single, take, unravel
from tfcheck.graph.excerpts import LossPart, operations_between
from tfcheck.graph.nodes import OF_SHAPES, called_functions
from tfcheck.measure.directions import Array
from tfcheck.measure.entries import Entries, Indices

_ENOUGH = 2**27
"""More bytes than this at once make nothing faster."""

_GRAPH = 24 * 2**20
"""About what TensorFlow keeps of the graphs for entries, and for running them."""


class PerturbedEntries:
    """A loss as a function of its point, and of entries of a variable that are perturbed there.

    Args:
        part: the loss.
        moved: the names of the feeds that hold the variable.
        looped: whether what no rule covers is looped over instead of batched. Defaults to False.

    Attributes:
        bytes_per_lane: about how much memory each further entry takes.
        fixed_bytes: about how much memory all of them together take.
    """

    def __init__(self, part: LossPart, moved: Sequence[str], *, looped: bool = False) -> None:
        sizes: list[tuple[int, int]] = []

        def losses(index: tf.Tensor, change: tf.Tensor, *point: tf.Tensor) -> tf.Tensor:
            given = dict(zip((feed.name for feed in part.feeds), point, strict=True))
            found, size = _losses(part, given, moved, (index, change), looped=looped)
            sizes.append(size)
            return found

        specs = [tf.TensorSpec(feed.shape, feed.dtype) for feed in part.feeds]
        lanes = (tf.TensorSpec([None], tf.int64), tf.TensorSpec([None], tf.float64))
        function = tf.function(losses, autograph=False)
        self._losses = function.get_concrete_function(*lanes, *specs)
        self.bytes_per_lane, self.fixed_bytes = sizes[-1]

    def at(self, point: Sequence[tf.Tensor], limit: int) -> Entries:
        """The loss around a point.

        Args:
            point: a tensor for each feed.
            limit: the memory that may be used, in bytes.
        """

        def losses(index: Indices, change: Array) -> Array:
            found = self._losses(tf.constant(index, tf.int64), tf.constant(change), *point)
            return np.asarray(found, np.float64)

        graph = min(_GRAPH, limit * 3 // 4)
        left = max(0, limit - graph - self.fixed_bytes)
        return Entries(losses, min(left, _ENOUGH) // self.bytes_per_lane)


def perturbed_entries(part: LossPart, moved: Sequence[str]) -> PerturbedEntries | None:
    """The loss with entries perturbed; None where the graph cannot be built for many at once."""
    for looped in (False, True):
        with _unheard(), contextlib.suppress(Exception):  # batching refuses in many ways
            return PerturbedEntries(part, moved, looped=looped)
    return None


@contextlib.contextmanager
def _unheard() -> Iterator[None]:
    """Without what TensorFlow logs of operations that it cannot batch."""
    logger = tf.get_logger()
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _losses(
    part: LossPart,
    given: Mapping[str, tf.Tensor],
    moved: Sequence[str],
    lanes_of: tuple[tf.Tensor, tf.Tensor],
    *,
    looped: bool,
) -> tuple[tf.Tensor, tuple[int, int]]:
    """The losses in lanes, in the current graph, and the bytes that each lane and all take."""
    index, change = lanes_of
    graph = index.graph
    (loss,) = part.source.imported(given, [part.loss], _BASE)
    before = len(graph.get_operations())
    walk = _walk(loss, [given[name] for name in moved], given.values(), index, change)
    losses = walk.lanes.get(loss.ref())
    if losses is None and not walk.rest:
        raise ValueError("The loss must depend on the variable.")
    names = {tensor.ref(): name for name, tensor in given.items()}

    def name_of(tensor: tf.Tensor) -> str:
        return names.get(tensor.ref(), tensor.name.removeprefix(f"{_BASE}/"))

    lanes = {name_of(tensor): walk.lanes[tensor.ref()].dense() for tensor in walk.frontier}
    new = [out for op in graph.get_operations()[before:] for out in op.outputs]
    in_lanes = [out for out in new if out.shape.rank and out.shape[0] is None]
    fixed = sum(_size(out) for out in new) - sum(map(_size, in_lanes))
    each = sum(map(_size, in_lanes))
    each += sum(_size(out) for op in walk.rest for out in op.outputs)
    size = (max(8, each), fixed)
    if losses is not None:
        return losses.dense(), size
    same = {name_of(tensor): tensor for tensor in walk.boundary}

    def rest(lane: Mapping[str, tf.Tensor]) -> tf.Tensor:
        inside = {name: tf.identity(tensor) for name, tensor in same.items()}
        return part.source.imported({**lane, **inside}, [part.loss], _REST)[0]

    if looped or any(map(_calls, walk.rest)):
        return tf.map_fn(rest, lanes, fn_output_signature=tf.float64), size
    return tf.vectorized_map(rest, lanes, warn=False), size


def _calls(op: tf.Operation) -> bool:
    """Whether an operation calls functions, such as a loop's body: those are not batched."""
    return any(True for _ in called_functions(op.node_def))


_BASE, _REST = "base", "rest"


@dataclass
class _Walk:
    """How far the rules go.

    Attributes:
        lanes: the tensors that are known in lanes.
        rest: the operations that no rule covers, and those after them.
        frontier: the tensors in lanes that the rest needs.
        boundary: the tensors that no entry changes and the rest needs.
    """

    lanes: dict[Any, Lanes] = field(default_factory=dict)
    rest: list[tf.Operation] = field(default_factory=list)
    frontier: list[tf.Tensor] = field(default_factory=list)
    boundary: list[tf.Tensor] = field(default_factory=list)


def _walk(
    loss: tf.Tensor,
    moved: Sequence[tf.Tensor],
    feeds: Iterable[tf.Tensor],
    index: tf.Tensor,
    change: tf.Tensor,
) -> _Walk:
    walk = _Walk()
    for variable in moved:
        at = dict(enumerate(unravel(index, variable.shape)))
        entry = take(variable, variable.shape, at)
        walk.lanes[variable.ref()] = Lanes(variable, single(variable.shape), at, entry + change)
    behind: set[Any] = set()
    needed: dict[Any, tf.Tensor] = {}
    for op in operations_between(feeds, loss):
        operands: list[Operand] = [walk.lanes.get(tensor.ref(), tensor) for tensor in op.inputs]
        late = any(tensor.ref() in behind for tensor in op.inputs)
        touched = late or any(isinstance(operand, Lanes) for operand in operands)
        if not touched or op.type in OF_SHAPES:
            continue
        if op.type == "IdentityN" and not late:
            for operand, out in zip(operands, op.outputs, strict=True):
                if isinstance(operand, Lanes):
                    walk.lanes[out.ref()] = replace(operand, unperturbed=out)
            continue
        new = None if late else through(op, operands)
        if new is not None:
            walk.lanes[op.outputs[0].ref()] = new
            continue
        walk.rest.append(op)
        behind |= {out.ref() for out in op.outputs}
        needed |= {tensor.ref(): tensor for tensor in op.inputs}
    for ref, tensor in needed.items():
        if ref in walk.lanes:
            walk.frontier.append(tensor)
        elif ref not in behind and tensor.op.type != "Const":
            walk.boundary.append(tensor)
    return walk


def _size(tensor: tf.Tensor) -> int:
    """Bytes of a tensor, those of one lane where it has lanes of an unknown number."""
    if tensor.shape.rank is None or tensor.dtype in (tf.resource, tf.variant, tf.string):
        return 8
    return math.prod(size or 1 for size in tensor.shape) * tensor.dtype.size
