"""The gradients as they would be if every unit handed on the right ones.

A unit that hands on a wrong gradient spoils all that comes before it. What it ought to hand on is
the derivative of what it computes, taken operation by operation and held against the differences
that were measured of it. With that in the place of what it does hand on, the rest of the tape's own
backward pass gives the right gradients of all variables at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf

from tfcheck.examine.local_examination import LocalExamination
from tfcheck.measure.directions import Array, generator, norm
from tfcheck.measure.measurement import Measurement, measure_directions
from tfcheck.units.apart_at import ApartAt
from tfcheck.units.sources import Source

_MOST = 8
"""With more wrong units than this, variables are measured one by one."""

_ALIKE = 1e-5
"""So far may the derivative and the differences be apart, relative to their size."""


@dataclass(frozen=True)
class Corrected:
    """The right gradient of a variable.

    Attributes:
        gradient: the gradient.
        bar: how far it may be off, as a norm.
    """

    gradient: Array
    bar: float

    def measurement(self, tape: Array) -> Measurement:
        """How the tape's gradient compares with it."""
        return Measurement(
            lines=(),
            gap_square=norm(self.gradient - tape) ** 2,
            numerical_square=norm(self.gradient) ** 2,
            analytic_square=norm(tape) ** 2,
            bar_square=self.bar * self.bar,
            analytic_norm=norm(tape),
        )


class Correction:
    """The right gradients of the variables before wrong units.

    Args:
        local: the examination that found the units.
    """

    def __init__(self, local: LocalExamination) -> None:
        self._local = local
        self._at: ApartAt = local.locally.at
        self._apart = local.locally.apart
        self._right: dict[str, tf.Tensor] = {}
        self._doubt: dict[str, Array] = {}
        wrong = {w.source.number: w.source for w in local.wrong if w.source.leaf is None}
        self.known = 0 < len(wrong) <= _MOST and all(
            self._correct(source) for _, source in sorted(wrong.items(), reverse=True)
        )

    def gradients(self, totals: Sequence[str]) -> list[Corrected] | None:
        """The right values of gradients, by the names of their tensors; None where unknown."""
        if not self.known:
            return None
        right = self._at.evaluated(totals, self._right)
        rng = generator(0, "doubt")
        perturbed = {
            name: value
            + tf.constant(rng.standard_normal(value.shape) * self._doubt[name], tf.float64)
            for name, value in self._right.items()
        }
        other = self._at.evaluated(totals, perturbed)
        if right is None or other is None:
            return None
        return [
            Corrected(np.asarray(r, np.float64), 3 * norm(np.asarray(r - o, np.float64)))
            for r, o in zip(right, other, strict=True)
        ]

    def _correct(self, source: Source) -> bool:
        """Find what units ought to hand on of what they are given; whether that was possible."""
        if source.handed is None:
            return False
        weights = self._apart.weights_of(sorted(source.units))
        found = self._at.evaluated([*weights, *source.beyond], self._right)
        if found is None:
            return False
        given = {**self._at.found, **dict(zip([*weights, *source.beyond], found, strict=True))}
        own = self._apart.derivative(source, given)
        as_it_was = self._apart.derivative(source, self._at.found)
        if own is None or as_it_was is None:
            return False
        part = self._agreement(source, np.asarray(as_it_was))
        if part is None:
            return False
        total = own
        for name in source.beyond:
            total = total + given[name]
        self._right[source.handed] = total
        size = part * norm(np.asarray(own)) / math.sqrt(max(1, math.prod(source.shape)))
        self._doubt[source.handed] = np.asarray(size)
        return True

    def _agreement(self, source: Source, derivative: Array) -> float | None:
        """How far a derivative may be from the differences, relative to its size."""
        if not np.all(np.isfinite(derivative)):
            return None
        target = replace(self._local.target([source]), gradient=derivative)
        settings = self._local.settings
        measurement = measure_directions(target, settings.directions, None, settings.seed)
        part = measurement.score + measurement.score_bar
        return part if part <= _ALIKE else None
