"""What operations that move entries about do with lanes: reshapes and transpositions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import tensorflow as tf

from tfcheck.evaluate.lanes import Lanes
from tfcheck.evaluate.slices import unravel


def reshaped(lanes: Lanes, out: tf.Tensor) -> Lanes | None:
    """A reshape: axes are split where need be; None where they are torn apart."""
    old = [size for size in lanes.axes if size != 1]
    new = [size for size in out.shape if size != 1]
    fine = _refinement(old, new)
    if fine is None:
        return None
    at: dict[int, tf.Tensor] = {}
    free: list[int] = []
    pieces = iter(fine)
    flat: list[tuple[int, tf.Tensor | None]] = []
    for axis, size in enumerate(lanes.axes):
        sizes = _collect(pieces, size)
        if axis in lanes.at:
            indices = unravel(lanes.at[axis], sizes) if len(sizes) > 1 else [lanes.at[axis]]
            flat += zip(sizes, indices, strict=False)
        else:
            flat += [(piece, None) for piece in sizes]
    parts = []
    pieces = iter(fine)
    for size in out.shape:
        sizes = _collect(pieces, size)
        parts.append(tuple(sizes) or (1,))
    axis = 0
    queue = iter(flat)
    for part in parts:
        for size in part:
            index = next(queue)[1] if size != 1 else None
            if index is None:
                free.append(size)
            else:
                at[axis] = index
            axis += 1
    return Lanes(out, tuple(parts), at, tf.reshape(lanes.values, [-1, *free]))


def _refinement(old: Sequence[int], new: Sequence[int]) -> list[int] | None:
    """The coarsest sizes of which both the old and the new ones are products of neighbours."""
    fine = []
    ours, theirs = list(old[::-1]), list(new[::-1])
    while ours and theirs:
        one, other = ours.pop(), theirs.pop()
        small, large = min(one, other), max(one, other)
        if large % small:
            return None
        fine.append(small)
        if large != small:
            (ours if one == large else theirs).append(large // small)
    return fine if not ours and not theirs else None


def _collect(pieces: Iterator[int], size: int) -> list[int]:
    """The next pieces whose product is a size."""
    found: list[int] = []
    while math.prod(found) < size:
        found.append(next(pieces))
    return found


def transposed(lanes: Lanes, order: Sequence[int], out: tf.Tensor) -> Lanes:
    """A transposition of dimensions."""
    firsts = lanes.firsts()
    axes = [
        firsts[dimension] + position
        for dimension in order
        for position in range(len(lanes.parts[dimension]))
    ]
    at = {place: lanes.at[axis] for place, axis in enumerate(axes) if axis in lanes.at}
    free = lanes.free
    moved = [1 + free.index(axis) for axis in axes if axis not in lanes.at]
    parts = tuple(lanes.parts[dimension] for dimension in order)
    return Lanes(out, parts, at, tf.transpose(lanes.values, [0, *moved]))
