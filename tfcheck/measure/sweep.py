"""Measuring every coordinate: each entry of a variable perturbed, one at a time."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from tfcheck.measure.directions import Array, generator
from tfcheck.measure.entries import Entries, one_by_one
from tfcheck.measure.measurement import Measurement, at_step
from tfcheck.measure.target import NOISE_MARGIN, Line, Target

_REFINED = 256
"""How many deviating entries of a sweep are measured again, each with a search for its step."""

_TRIED = 3
_TRIED_AT_RANDOM = 8
_SAME = 1e-13
_SAME_CHANGE = 1e-8
"""How far two ways to evaluate a loss may be apart, relative to the loss and to its change."""


def measure_every_coordinate(
    target: Target, epsilon: float | None, progress: Callable[[int], None]
) -> Measurement:
    """Perturb every entry of a variable, one at a time.

    Args:
        target: the variable.
        epsilon: a fixed absolute step; None to choose it by the entries with large gradients.
        progress: called with the number of entries done since the last call.
    """
    gradient = target.tape
    probes = [measure_coordinate(target, index) for index in loudest_entries(gradient, 2)]
    if epsilon is None:
        step = min(probe.slope.step for probe in probes) / 4 * target.scale
    else:
        step = epsilon
    numerical = _sweep(target, step, progress)
    bars = _sweep_bars(probes, numerical, step) + target.arithmetic.rounding / target.scale
    gaps = np.abs(numerical - gradient)
    excess = gaps - np.maximum(bars, target.resolution * np.abs(gradient))
    order = np.argsort(excess, axis=None)[::-1][:_REFINED]
    refined = []
    for index in (_unravel(flat, gaps.shape) for flat in order if not excess.flat[flat] <= 0):
        line = measure_coordinate(target, index)
        refined.append(
            dataclasses.replace(line, first_gap=max(line.first_gap, gaps[index] * target.scale))
        )
        numerical[index] = line.slope.value / target.scale
        bars[index] = line.slope.error_bar / target.scale
    return Measurement(
        lines=tuple(refined),
        gap_square=float(np.sum((numerical - gradient) ** 2)),
        numerical_square=float(np.sum(numerical**2)),
        analytic_square=float(np.sum(gradient**2)),
        bar_square=float(np.sum(bars**2)),
        analytic_norm=target.norm,
    )


def _sweep(target: Target, step: float, progress: Callable[[int], None]) -> Array:
    """The central difference of every entry, at an absolute step."""
    plain = one_by_one(target.displaced, target.value.shape)
    entries = target.entries
    if entries is None or not _agrees(target, entries, plain):
        entries = plain
    value = target.value.ravel()
    numerical = np.empty(value.size)
    for start in range(0, value.size, max(1, entries.at_once // 2)):
        index = np.arange(start, min(start + max(1, entries.at_once // 2), value.size))
        both, steps = np.tile(index, 2), np.repeat([step, -step], index.size)
        losses = entries.losses(both, steps)
        lost = ~np.isfinite(losses)
        if np.any(lost):  # where one point is refused, all others are with it
            losses[lost] = plain.losses(both[lost], steps[lost])
        realised = (value[index] + step) - (value[index] - step)
        # A step that a large entry does not feel says nothing of it: 0 / 0, which is nan.
        with np.errstate(divide="ignore", invalid="ignore"):
            numerical[index] = (losses[: index.size] - losses[index.size :]) / realised
        progress(index.size)
    return numerical.reshape(target.value.shape)


def _agrees(target: Target, entries: Entries, plain: Entries) -> bool:
    """Whether perturbing entries at once gives what perturbing them one by one does."""
    gradient = target.tape
    loudest = [np.ravel_multi_index(i, gradient.shape) for i in loudest_entries(gradient, _TRIED)]
    rng = generator(0, target.stream, "trial")
    others = rng.choice(gradient.size, min(_TRIED_AT_RANDOM, gradient.size), replace=False)
    index = np.array([*loudest, *others], np.int64)
    change = np.resize([target.scale, -target.scale], index.size)
    expected = plain.losses(index, change)
    found = entries.losses(index, change)
    noise = target.arithmetic.noise if math.isfinite(target.arithmetic.noise) else 0.0
    tolerance = _SAME * (abs(target.at_zero) + np.abs(expected)) + NOISE_MARGIN**2 * noise
    tolerance += _SAME_CHANGE * np.abs(expected - target.at_zero)
    same = (np.abs(found - expected) <= tolerance) | ~np.isfinite(expected)
    return bool(np.all(same))


def _sweep_bars(probes: list[Line], numerical: Array, step: float) -> Array:
    """Error bars of plain differences, from what the probes showed of noise and truncation."""
    roundoff = 6 * math.sqrt(2) * max(probe.slope.noise for probe in probes) / (2 * step)
    truncation = max(
        min(1.0, probe.slope.truncation / abs(probe.slope.value)) if probe.slope.value else 0.0
        for probe in probes
    )
    return np.asarray(roundoff + truncation * np.abs(numerical))


def measure_coordinate(target: Target, index: tuple[int, ...], *, search: bool = True) -> Line:
    """Measure one entry of a variable.

    Args:
        target: the variable.
        index: the entry.
        search: whether to look for its step, rather than to take the one the target knows.
            Defaults to True.
    """
    direction = np.zeros(target.value.shape)
    direction[index] = target.scale
    if not search and target.start is not None:
        return at_step(target, direction, target.start)
    gradient = 0.0 if target.gradient is None else float(target.gradient[index])
    reference = target.scale * max(
        abs(gradient), target.norm / math.sqrt(max(target.value.size, 1))
    )
    return target.line(direction, reference)


def loudest_entries(gradient: Array, count: int) -> list[tuple[int, ...]]:
    """Indices of the entries with the largest magnitude, largest first."""
    order = np.argsort(np.abs(gradient), axis=None)[::-1][:count]
    return [_unravel(flat, gradient.shape) for flat in order]


def _unravel(flat: np.intp, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(flat, shape))
