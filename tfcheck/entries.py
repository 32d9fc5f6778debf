"""The loss where single entries of a variable are perturbed, thousands of them in one evaluation.

The graph between the variable and the loss is built once more for K lanes, each with an entry of
its own. As far as rules go (`lane_rules.py`) a lane holds only what its entry changes. What comes
after is batched by `tf.vectorized_map`, and what cannot be is looped over in the graph. What no
entry changes is computed once for all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfcheck.directions import Array
from tfcheck.graph_functions import callable_part
from tfcheck.lane_rules import through
from tfcheck.lanes import Lanes, Operand, single, take, unravel

Indices: TypeAlias = npt.NDArray[np.int64]

_ENOUGH = 2**25
"""More bytes than this at once make nothing faster: caches are smaller."""

_ONE_BY_ONE = 64


@dataclass(frozen=True)
class LossPart:
    """The part of a graph that computes a loss.

    Attributes:
        whole: the function whose graph it is.
        feeds: the tensors of the graph that are given.
        moved: those among them that hold the variable.
        loss: the loss.
    """

    whole: Any
    feeds: Sequence[tf.Tensor]
    moved: Sequence[tf.Tensor]
    loss: tf.Tensor


@dataclass(frozen=True)
class Entries:
    """A loss around a point, as a function of which entries of a variable are perturbed.

    Attributes:
        losses: gives [K] losses for flat indices, [K] integers, and changes, [K]: in each of them
            one entry is perturbed. `nan` where an operation refuses one of them.
        at_once: how many entries to perturb at once.
    """

    losses: Callable[[Indices, Array], Array]
    at_once: int


class PerturbedEntries:
    """A loss as a function of its point, and of entries of a variable that are perturbed there.

    Args:
        part: the loss.
        looped: whether what no rule covers is looped over instead of batched. Defaults to False.

    Attributes:
        bytes_per_lane: about how much memory each further entry takes.
    """

    def __init__(self, part: LossPart, *, looped: bool = False) -> None:
        built = _build(part, looped=looped)
        self.bytes_per_lane = max(8, built.bytes_per_lane)
        graph_inputs = [built.index, built.change]
        self._prepare = callable_part(part.whole, part.feeds, built.prepared)
        self._losses = callable_part(part.whole, [*graph_inputs, *built.prepared], built.losses)

    def at(self, point: Sequence[tf.Tensor], limit: int) -> Entries:
        """The loss around a point.

        Args:
            point: a tensor for each feed.
            limit: the memory that may be used, in bytes.
        """
        prepared = self._prepare(*point)

        def losses(index: Indices, change: Array) -> Array:
            found = self._losses(tf.constant(index, tf.int64), tf.constant(change), *prepared)
            return np.asarray(found, np.float64)

        return Entries(losses, max(1, min(limit, _ENOUGH) // self.bytes_per_lane))


def perturbed_entries(part: LossPart) -> PerturbedEntries | None:
    """The loss with entries perturbed; None where the graph cannot be built for many at once."""
    for looped in (False, True):
        try:
            return PerturbedEntries(part, looped=looped)
        except Exception:  # noqa: BLE001 - batching refuses in many ways, and one by one is left
            continue
    return None


def one_by_one(displaced: Callable[[Array], float], shape: Sequence[int]) -> Entries:
    """The same by an evaluation of its own for every entry.

    Args:
        displaced: the loss as a function of the variable's displacement.
        shape: the variable's shape.
    """
    unit = np.zeros(shape)

    def losses(index: Indices, change: Array) -> Array:
        found = np.empty(len(index))
        for lane, (entry, step) in enumerate(zip(index, change, strict=True)):
            unit.flat[entry] = step
            found[lane] = displaced(unit)
            unit.flat[entry] = 0.0
        return found

    return Entries(losses, _ONE_BY_ONE)


@dataclass(frozen=True)
class _Built:
    """What `_build` put into the graph."""

    index: tf.Tensor
    change: tf.Tensor
    prepared: list[tf.Tensor]
    losses: tf.Tensor
    bytes_per_lane: int


def _build(part: LossPart, *, looped: bool) -> _Built:
    graph = part.whole.graph
    with graph.as_default():
        index = tf.compat.v1.placeholder(tf.int64, [None])
        change = tf.compat.v1.placeholder(tf.float64, [None])
        found = _walk(part, index, change)
        losses = found.lanes.get(part.loss.ref())
        result = _rest(part, found, looped=looped) if losses is None else losses.dense()
        result = tf.identity(result)
        prepared, size = _invariant(result, [index, change])
    rest = sum(_size(out) for op in found.rest for out in op.outputs)
    return _Built(index, change, prepared, result, size + rest)


@dataclass(frozen=True)
class _Walk:
    """How far the rules went.

    Attributes:
        lanes: the tensors that are known in lanes.
        rest: the operations that no rule covers, and those after them.
        frontier: the tensors in lanes that the rest needs.
        boundary: the tensors that no entry changes and the rest needs.
    """

    lanes: dict[Any, Lanes]
    rest: list[tf.Operation]
    frontier: list[tf.Tensor]
    boundary: list[tf.Tensor]


def _walk(part: LossPart, index: tf.Tensor, change: tf.Tensor) -> _Walk:
    lanes: dict[Any, Lanes] = {}
    for moved in part.moved:
        at = dict(enumerate(unravel(index, moved.shape)))
        entry = take(moved, moved.shape, at)
        lanes[moved.ref()] = Lanes(moved, single(moved.shape), at, entry + change)
    fed = {feed.ref() for feed in part.feeds}
    behind: set[Any] = set()
    rest: list[tf.Operation] = []
    frontier: dict[Any, tf.Tensor] = {}
    boundary: dict[Any, tf.Tensor] = {}
    for op in _between(part):
        operands: list[Operand] = [lanes.get(tensor.ref(), tensor) for tensor in op.inputs]
        late = any(tensor.ref() in behind for tensor in op.inputs)
        if not late and not any(isinstance(operand, Lanes) for operand in operands):
            continue
        new = None if late or op.control_inputs else through(op, operands)
        if new is not None:
            lanes[op.outputs[0].ref()] = new
            continue
        rest.append(op)
        behind |= {out.ref() for out in op.outputs} - fed
        for tensor in op.inputs:
            if tensor.ref() in lanes:
                frontier[tensor.ref()] = tensor
            elif tensor.ref() not in behind:
                boundary[tensor.ref()] = tensor
    return _Walk(lanes, rest, list(frontier.values()), list(boundary.values()))


def _between(part: LossPart) -> Iterator[tf.Operation]:
    """The operations that the loss depends on, feeds aside, each after those it depends on."""
    fed = {feed.ref() for feed in part.feeds}
    done: set[tf.Operation] = set()
    pending = [(part.loss.op, False)]
    while pending:
        op, ready = pending.pop()
        if ready:
            yield op
            continue
        if op in done:
            continue
        done.add(op)
        pending.append((op, True))
        pending += [(tensor.op, False) for tensor in op.inputs if tensor.ref() not in fed]


def _rest(part: LossPart, walk: _Walk, *, looped: bool) -> tf.Tensor:
    """The losses from the lanes at the frontier."""
    if not walk.frontier:
        raise ValueError("The loss must depend on the variable.")
    pruned = part.whole.prune([*walk.frontier, *walk.boundary], part.loss)

    def loss(lane: tuple[tf.Tensor, ...]) -> tf.Tensor:
        return pruned(*lane, *walk.boundary)

    lanes = tuple(walk.lanes[tensor.ref()].dense() for tensor in walk.frontier)
    if looped:
        return tf.map_fn(loss, lanes, fn_output_signature=tf.float64)
    return tf.vectorized_map(loss, lanes)


def _invariant(result: tf.Tensor, varying: Sequence[tf.Tensor]) -> tuple[list[tf.Tensor], int]:
    """What is the same in all lanes but needed by them, and the bytes that each lane takes."""
    depends: dict[tf.Operation, bool] = {tensor.op: True for tensor in varying}
    order: list[tf.Operation] = []
    pending = [(result.op, False)]
    while pending:
        op, ready = pending.pop()
        if ready:
            depends[op] = any(depends[tensor.op] for tensor in op.inputs)
            order.append(op)
        elif op not in depends:
            depends[op] = False
            pending.append((op, True))
            pending += [(tensor.op, False) for tensor in op.inputs]
    prepared: dict[Any, tf.Tensor] = {}
    size = 0
    for op in order:
        if not depends[op]:
            continue
        size += sum(_size(out) for out in op.outputs)
        for tensor in op.inputs:
            if not depends[tensor.op] and tensor.op.type != "Const":
                prepared[tensor.ref()] = tensor
    return list(prepared.values()), size


def _size(tensor: tf.Tensor) -> int:
    """Bytes of a tensor, those of one lane where it has lanes of an unknown number."""
    if tensor.shape.rank is None or tensor.dtype in (tf.resource, tf.variant, tf.string):
        return 8
    return math.prod(size or 1 for size in tensor.shape) * tensor.dtype.size
