"""What operations that broadcast their operands do with lanes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import tensorflow as tf

from tfcheck.evaluate.lanes import Lanes, Operand
from tfcheck.evaluate.slices import Parts, axes_of, take


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
    return Lanes(lanes.unperturbed, tuple(new), at, tf.reshape(lanes.values, [-1, *free]))


def _broadcast(lanes: Lanes, parts: Parts) -> list[int]:
    """The axes of size 1 that the slice fixes and that become wider: all of those changes."""
    return [
        first
        for first, part, wide in zip(lanes.firsts(), lanes.parts, parts, strict=True)
        if math.prod(part) == 1 and math.prod(wide) != 1 and first in lanes.at
    ]
