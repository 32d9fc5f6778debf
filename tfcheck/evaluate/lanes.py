"""Lanes: one tensor at many points at once, where each point changes a slice of it alone.

Perturbing one entry of a kernel changes one column of what its layer gives. So nothing but that
column is kept for every lane, beside the tensor itself, which is computed once for all of them.
Values are exact; nothing is linearised.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import tensorflow as tf

Parts: TypeAlias = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, eq=False)
class Lanes:
    """A tensor in K lanes, each of which equals `base` but for one slice.

    Attributes:
        base: the tensor where nothing is perturbed.
        parts: for each dimension the sizes of the axes that it is made of; more than one after a
            reshape that merges axes.
        at: for the axes that the slice fixes its index in each lane, [K] int64.
        values: the slice in each lane, [K, *sizes of the other axes].
    """

    base: tf.Tensor
    parts: Parts
    at: Mapping[int, tf.Tensor]
    values: tf.Tensor

    @property
    def axes(self) -> tuple[int, ...]:
        """Sizes of all axes."""
        return axes_of(self.parts)

    @property
    def free(self) -> list[int]:
        """The axes that the slice does not fix."""
        return [axis for axis in range(len(self.axes)) if axis not in self.at]

    @property
    def change(self) -> tf.Tensor:
        """How the slice differs from that of `base`, [K, *sizes of the free axes]."""
        return self.values - take(self.base, self.axes, self.at)

    def firsts(self) -> list[int]:
        """For each dimension its first axis."""
        firsts, axis = [], 0
        for part in self.parts:
            firsts.append(axis)
            axis += len(part)
        return firsts

    def spread(self, axis: int) -> Lanes:
        """The same with the slice extended over an axis that it fixes."""
        at = {other: index for other, index in self.at.items() if other != axis}
        position = 1 + sum(free < axis for free in self.free)
        shape = [1] * (1 + len(self.axes) - len(at))
        shape[0], shape[position] = -1, self.axes[axis]
        chosen = tf.one_hot(self.at[axis], self.axes[axis], True, False, dtype=tf.bool)
        values = tf.where(
            tf.reshape(chosen, shape),
            tf.expand_dims(self.values, position),
            take(self.base, self.axes, at),
        )
        return Lanes(self.base, self.parts, at, values)

    def dense(self) -> tf.Tensor:
        """The whole tensor in every lane, [K, *shape]."""
        lanes = self
        for axis in self.at:
            lanes = lanes.spread(axis)
        return tf.reshape(lanes.values, [-1, *lanes.base.shape])


Operand: TypeAlias = "Lanes | tf.Tensor"


def single(shape: Sequence[int]) -> Parts:
    """Every dimension as one axis."""
    return tuple((size,) for size in shape)


def axes_of(parts: Parts) -> tuple[int, ...]:
    """Sizes of all axes."""
    return tuple(size for part in parts for size in part)


def take(tensor: tf.Tensor, axes: Sequence[int], at: Mapping[int, tf.Tensor]) -> tf.Tensor:
    """The slice of a tensor that belongs to each lane, [K, *other axes]; [1, …] if to all alike.

    Args:
        tensor: the tensor.
        axes: the axes it is looked at with; those of size 1 hold for every index.
        at: the index in each lane of the axes that are fixed.
    """
    free = [size for axis, size in enumerate(axes) if axis not in at]
    fixed = [axis for axis in at if axes[axis] != 1]
    if not fixed:
        return tf.reshape(tensor, [1, *free])
    others = [axis for axis in range(len(axes)) if axis not in fixed]
    moved = tf.transpose(tf.reshape(tensor, axes), [*fixed, *others])
    flat = tf.reshape(moved, [math.prod(axes[axis] for axis in fixed), *free])
    index = at[fixed[0]]
    for axis in fixed[1:]:
        index = index * axes[axis] + at[axis]
    return tf.gather(flat, index)


def unravel(index: tf.Tensor, sizes: Sequence[int]) -> list[tf.Tensor]:
    """The index along each axis of a flat index."""
    found = []
    for size in reversed(sizes):
        found.append(index % size)
        index = index // size
    return found[::-1]


def elementwise(
    apply: Callable[..., tf.Tensor], operands: Sequence[Operand], out: tf.Tensor
) -> Lanes | None:
    """What an operation that broadcasts its operands gives.

    Args:
        apply: the operation.
        operands: what it is applied to.
        out: what it gives where nothing is perturbed.
    """
    lanes = [operand for operand in operands if isinstance(operand, Lanes)]
    rank = len(out.shape)
    parts = _common_parts(lanes, out)
    if parts is None:
        return None
    placed = {id(operand): _placed(operand, parts) for operand in lanes}
    for axis in range(len(axes_of(parts))):
        having = [key for key, operand in placed.items() if axis in operand.at]
        indices = {id(placed[key].at[axis]) for key in having}
        if len(indices) > 1 or 0 < len(having) < len(placed):
            placed |= {key: placed[key].spread(axis) for key in having}
    at = next(iter(placed.values())).at
    slices = []
    for operand in operands:
        if isinstance(operand, Lanes):
            slices.append(placed[id(operand)].values)
            continue
        sizes = [1] * (rank - len(operand.shape)) + list(operand.shape)
        axes = axes_of(
            tuple(
                part if size != 1 else (1,) * len(part)
                for size, part in zip(sizes, parts, strict=True)
            )
        )
        slices.append(take(operand, axes, at))
    return Lanes(out, parts, at, apply(*slices))


def _common_parts(lanes: Sequence[Lanes], out: tf.Tensor) -> Parts | None:
    """How all operands see the dimensions of what they give; None where they differ."""
    parts: list[tuple[int, ...]] = [(size,) for size in out.shape]
    seen: set[int] = set()
    for operand in lanes:
        offset = len(parts) - len(operand.parts)
        for dimension, part in enumerate(operand.parts, offset):
            if math.prod(part) == 1 and math.prod(parts[dimension]) != 1:
                continue
            if dimension in seen and parts[dimension] != part:
                return None
            parts[dimension] = part
            seen.add(dimension)
    return tuple(parts)


def _placed(lanes: Lanes, parts: Parts) -> Lanes:
    """The same with axes of size 1 put in, so that there are as many as `parts` has."""
    offset = len(parts) - len(lanes.parts)
    for axis in _broadcast(lanes, parts[offset:]):
        lanes = lanes.spread(axis)
    new: list[tuple[int, ...]] = [(1,) * len(part) for part in parts]
    at: dict[int, tf.Tensor] = {}
    firsts = lanes.firsts()
    start = sum(map(len, parts[:offset]))
    for dimension, part in enumerate(lanes.parts):
        wide = parts[dimension + offset]
        if math.prod(part) != 1 or len(part) == len(wide):
            new[dimension + offset] = part
            for position in range(len(part)):
                if firsts[dimension] + position in lanes.at:
                    at[start + position] = lanes.at[firsts[dimension] + position]
        start += len(wide)
    sizes = axes_of(tuple(new))
    free = [size for axis, size in enumerate(sizes) if axis not in at]
    return Lanes(lanes.base, tuple(new), at, tf.reshape(lanes.values, [-1, *free]))


def _broadcast(lanes: Lanes, parts: Parts) -> list[int]:
    """The axes of size 1 that the slice fixes and that become wider: all of those changes."""
    return [
        first
        for first, part, wide in zip(lanes.firsts(), lanes.parts, parts, strict=True)
        if math.prod(part) == 1 and math.prod(wide) != 1 and first in lanes.at
    ]


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


def _collect(pieces: Any, size: int) -> list[int]:
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


def summed(lanes: Lanes, dimensions: Sequence[int], out: tf.Tensor, *, keep: bool) -> Lanes:
    """A sum over dimensions: that of `base`, and what the slice changes of it."""
    firsts = lanes.firsts()
    gone = {
        firsts[dimension] + position
        for dimension in dimensions
        for position in range(len(lanes.parts[dimension]))
    }
    over = [1 + position for position, axis in enumerate(lanes.free) if axis in gone]
    change = tf.reduce_sum(lanes.change, over)
    parts: list[tuple[int, ...]] = []
    at: dict[int, tf.Tensor] = {}
    for dimension, part in enumerate(lanes.parts):
        if dimension in dimensions:
            parts += [(1,)] if keep else []
            continue
        start = sum(map(len, parts))
        at |= {
            start + position: lanes.at[firsts[dimension] + position]
            for position in range(len(part))
            if firsts[dimension] + position in lanes.at
        }
        parts.append(part)
    sizes = axes_of(tuple(parts))
    free = [size for axis, size in enumerate(sizes) if axis not in at]
    whole = take(out, sizes, at)
    return Lanes(out, tuple(parts), at, whole + tf.reshape(change, [-1, *free]))


def bilinear(
    lanes: Lanes, other: tf.Tensor, labels: tuple[str, str, tuple[str, ...]], out: tf.Tensor
) -> Lanes:
    """A product that is linear in each operand: that of `base`, and what the slice changes of it.

    Args:
        lanes: the operand that is perturbed.
        other: the one that is not.
        labels: a letter for each dimension of either, and for each dimension of `out` the letters
            of the dimensions that it is made of; those that are missing there are summed over.
        out: the product where nothing is perturbed.
    """
    ours, theirs, given = labels
    parts = dict(zip(ours, lanes.parts, strict=True))
    for letter, size in zip(theirs, other.shape, strict=True):
        parts.setdefault(letter, (size,))

    def named(letters: str) -> list[tuple[str, int]]:
        return [(letter, position) for letter in letters for position in range(len(parts[letter]))]

    names = named(ours)
    fixed = {names[axis]: index for axis, index in lanes.at.items()}
    letters = {
        name: chr(ord("a") + n) for n, name in enumerate(dict.fromkeys(names + named(theirs)))
    }
    sizes = {name: parts[name[0]][name[1]] for name in letters}

    def placed(wanted: list[tuple[str, int]]) -> dict[int, tf.Tensor]:
        return {axis: fixed[name] for axis, name in enumerate(wanted) if name in fixed}

    def remaining(wanted: list[tuple[str, int]]) -> str:
        return "".join(letters[name] for name in wanted if name not in fixed)

    second = named(theirs)
    slices = take(other, [sizes[name] for name in second], placed(second))
    third = [name for group in given for name in named(group)]
    product = _product(lanes.change, slices, remaining(names), remaining(second), remaining(third))
    out_parts = tuple(tuple(sizes[name] for name in named(group)) for group in given)
    at = placed(third)
    return Lanes(out, out_parts, at, take(out, axes_of(out_parts), at) + product)


def _product(one: tf.Tensor, other: tf.Tensor, ours: str, theirs: str, given: str) -> tf.Tensor:
    """The product of two tensors with a leading axis of lanes, which may be 1 in the second."""
    if set(given) >= set(ours) | set(theirs):
        return _arranged(one, ours, given) * _arranged(other, theirs, given)
    if other.shape[0] == 1:
        return tf.einsum(f"Z{ours},{theirs}->Z{given}", one, other[0])
    return tf.einsum(f"Z{ours},Z{theirs}->Z{given}", one, other)


def _arranged(tensor: tf.Tensor, own: str, given: str) -> tf.Tensor:
    """The axes in the order given, with axes of size 1 for those that are missing."""
    order = [1 + own.index(letter) for letter in given if letter in own]
    moved = tf.transpose(tensor, [0, *order])
    sizes = iter(moved.shape[1:])
    return tf.reshape(moved, [-1, *(next(sizes) if letter in own else 1 for letter in given)])
