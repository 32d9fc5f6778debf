"""The direction of a wrong variable along which a picture shows the mismatch best."""

from __future__ import annotations

import numpy as np

from tfcheck.examine.finding import Details, Looked
from tfcheck.measure.directions import Array, generator, norm
from tfcheck.measure.lines import dense
from tfcheck.measure.measurement import Measurement
from tfcheck.measure.target import Target

AT_ALL = "in which the two gradients differ most"
AT_ENTRIES = "of the entries that differ most"
AT_RANDOM = "that deviates most of those measured"
STEEPEST = "of steepest ascent"
"""What directions are called in a report."""


def worst_direction(looked: Looked, details: Details, seed: int) -> tuple[str, Array] | None:
    """The direction along which two gradients differ most, as far as that is known.

    It is that of their gap: in all entries, or in those that were measured. Where neither is known
    it is, of the directions that were measured, the one that deviates most.

    Args:
        looked: a variable whose gradient is wrong.
        details: how and where it is wrong.
        seed: seeded the directions that were measured.

    Returns:
        What the direction is called, and the direction, of the variable's scale; None where
        nothing can be measured along any.
    """
    subject, seen = looked.subject, looked.seen
    gradient, shape = subject.gradient, tuple(subject.parameter.variable.shape)
    if gradient is not None and not np.all(np.isfinite(gradient)):
        return None
    if seen.right is not None and gradient is not None:
        found = AT_ALL, sized(seen.right.gradient - gradient, subject.scale)
    elif (gap := _gap_at_entries(details, shape)) is not None:
        found = AT_ENTRIES, sized(gap, subject.scale)
    elif seen.target is not None:
        found = AT_RANDOM, _most_deviating(seen.target, seen.measurement, seed)
    else:
        return None
    return found if np.any(found[1]) and np.all(np.isfinite(found[1])) else None


def sized(direction: Array, scale: float) -> Array:
    """A direction in which the entries that move do so by a scale, in the root mean square.

    Args:
        direction: the direction.
        scale: the scale.
    """
    largest = float(np.max(np.abs(direction), initial=0.0))
    if not 0 < largest < np.inf:
        return direction
    unit = direction / largest
    return np.asarray(unit * (scale * np.sqrt(np.count_nonzero(unit)) / norm(unit)))


def _gap_at_entries(details: Details, shape: tuple[int, ...]) -> Array | None:
    """By how much the gradients differ in the entries that were measured; None where in none."""
    gap = np.zeros(shape)
    for entry in details.worst:
        difference = entry.numerical - np.nan_to_num(entry.analytic)
        if abs(difference) > entry.error_bar:
            gap[entry.index] = difference
    return gap if np.any(gap) else None


def _most_deviating(target: Target, measurement: Measurement | None, seed: int) -> Array:
    """The direction whose slope deviates most; they are drawn again, one after the other."""
    gaps = [line.gap for line in measurement.lines] if measurement is not None else []
    deviating = int(np.argmax(np.nan_to_num(gaps))) if gaps else 0
    rng = generator(seed, target.stream)
    for _ in range(deviating):
        target.drawn(rng)
    return dense(target.drawn(rng))
