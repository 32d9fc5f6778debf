"""Slices of tensors, one for each of many lanes: with which axes, and which indices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import tensorflow as tf

Parts: TypeAlias = tuple[tuple[int, ...], ...]
"""For each dimension of a tensor the sizes of the axes that it is made of."""


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
