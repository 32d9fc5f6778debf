"""What moves, and where in one vector it lies: a graph takes one argument instead of hundreds.

Of a large tensor only the outer factor of its direction lies there, its inner one beside.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from tfcheck.measure.directions import Array
from tfcheck.measure.lines import Direction, Factors, dense

_ROW = 8
"""So many numbers are one row of the vector: pieces of whole rows are views of it, not copies."""


@dataclass(frozen=True)
class Piece:
    """Where something that moves lies.

    Attributes:
        number: the source that moves.
        shape: the shape of what lies in the vector.
        factored: whether that is the outer factor of its direction; else it is the direction.
        transposed: whether the factors are those of a transposed kernel.
        inner: the shape of an inner factor that is zero.
    """

    number: int
    shape: tuple[int, ...]
    factored: bool
    transposed: bool = False
    inner: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


class Layout:
    """Where everything that moves lies in one vector, which is a matrix of rows.

    Args:
        pieces: what moves.
    """

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.pieces = pieces
        self._rows = [-(-piece.size // _ROW) for piece in pieces]
        ends = np.cumsum([0, *self._rows])
        self._begins = [int(end) * _ROW for end in ends[:-1]]
        self._shape = (int(ends[-1]), _ROW)

    @property
    def spec(self) -> tf.TensorSpec:
        """The vector, as an argument of a graph."""
        return tf.TensorSpec(self._shape, tf.float64)

    def packed(self, values: Mapping[int, Array]) -> tf.Tensor:
        """The vector with these values, by the number of what moves; zero for the others."""
        vector = np.zeros(self._shape)
        flat = vector.ravel()
        for piece, begin in zip(self.pieces, self._begins, strict=True):
            if (value := values.get(piece.number)) is not None:
                flat[begin : begin + piece.size] = value.ravel()
        return tf.constant(vector)

    def unpacked(self, vector: tf.Tensor) -> dict[int, tf.Tensor]:
        """The pieces of a vector, in a graph, by the number of what moves."""
        if not self.pieces:
            return {}
        found = {}
        for piece, rows in zip(self.pieces, tf.split(vector, self._rows), strict=True):
            exact = rows if piece.size % _ROW == 0 else tf.reshape(rows, [-1])[: piece.size]
            found[piece.number] = tf.reshape(exact, piece.shape)
        return found


@dataclass(frozen=True, eq=False)
class Moves:
    """Directions for what moves at once.

    Attributes:
        directions: for each source that moves, by its number, where to.
        reach: how far each goes, at one; one where it does not say.
    """

    directions: Mapping[int, Direction] = field(default_factory=dict)
    reach: Mapping[int, float] = field(default_factory=dict)
    _packed: dict[Layout, tuple[tf.Tensor, list[tf.Tensor]]] = field(default_factory=dict)

    def in_layout(self, layout: Layout) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """The vector of them, and the inner factors beside; made once a layout."""
        if layout not in self._packed:
            self._packed[layout] = self._laid_out(layout)
        return self._packed[layout]

    def _laid_out(self, layout: Layout) -> tuple[tf.Tensor, list[tf.Tensor]]:
        lying: dict[int, Array] = {}
        beside: list[tf.Tensor] = []
        for piece in layout.pieces:
            number = piece.number
            direction = self.directions.get(number)
            reach = self.reach.get(number, 1.0)
            if not piece.factored:
                if direction is not None:
                    lying[number] = reach * dense(direction)
            elif direction is None:
                beside.append(tf.zeros(piece.inner, tf.float64))
            elif isinstance(direction, Factors) and direction.transposed == piece.transposed:
                lying[number] = reach * direction.outer
                beside.append(tf.constant(direction.inner))
            else:
                lying[number] = np.full(piece.shape, reach)
                beside.append(tf.constant(dense(direction)))
        return layout.packed(lying), beside
