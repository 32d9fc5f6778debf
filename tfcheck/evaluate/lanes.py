"""Lanes: one tensor at many points at once, where each point changes a slice of it alone.

Perturbing one entry of a kernel changes one column of what its layer gives. So nothing but that
column is kept for every lane, beside the tensor itself, which is computed once for all of them.
Values are exact; nothing is linearised.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import tensorflow as tf

from tfcheck.evaluate.slices import Parts, axes_of, take


@dataclass(frozen=True, eq=False)
class Lanes:
    """A tensor in K lanes, each of which equals `unperturbed` but for one slice.

    Attributes:
        unperturbed: the tensor where nothing is perturbed.
        parts: for each dimension the sizes of the axes that it is made of; more than one after a
            reshape that merges axes.
        at: for the axes that the slice fixes its index in each lane, [K] int64.
        values: the slice in each lane, [K, *sizes of the other axes].
    """

    unperturbed: tf.Tensor
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
        """How the slice differs from that of `unperturbed`, [K, *sizes of the free axes]."""
        return self.values - take(self.unperturbed, self.axes, self.at)

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
            take(self.unperturbed, self.axes, at),
        )
        return Lanes(self.unperturbed, self.parts, at, values)

    def dense(self) -> tf.Tensor:
        """The whole tensor in every lane, [K, *shape]."""
        lanes = self
        for axis in self.at:
            lanes = lanes.spread(axis)
        return tf.reshape(lanes.values, [-1, *lanes.unperturbed.shape])


Operand: TypeAlias = "Lanes | tf.Tensor"
