"""What operations that are linear in lanes and sum over axes do with them: sums and products."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tfcheck.evaluate.lanes import Lanes
from tfcheck.evaluate.slices import axes_of, take


def summed(lanes: Lanes, dimensions: Sequence[int], out: tf.Tensor, *, keep: bool) -> Lanes:
    """A sum over dimensions: that of `unperturbed`, and what the slice changes of it."""
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
    """A product, linear in each operand: that of `unperturbed`, and what the slice changes of it.

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
