"""Clearing many layers at once: which of them are right when each is differentiated by itself.

Every layer is cut off at its inputs, so that one evaluation moves all of them at once, and each
loss answers for its own layer alone. Only agreement is concluded here: what is not cleared is
examined by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import tensorflow as tf

from tfcheck.differences import Slope, central_difference, measure_slope
from tfcheck.directions import Array, gaussian, generator, scale_of
from tfcheck.objective import Objective
from tfcheck.point import Base, Parameter

_DIRECTIONS = 2
_AGREEMENT = 1e-6
"""How far the slopes of a right layer may be apart, relative to their size."""

_LARGEST_WEIGHT = 64.0


@dataclass(frozen=True)
class _Layer:
    """A layer's loss, what it is differentiated for, and the gradients."""

    loss: int
    members: tuple[tuple[Parameter, Array], ...]


def cleared(objective: Objective, base: Base, losses: Sequence[int], seed: int) -> frozenset[int]:
    """Those of the losses whose gradients agree with differences.

    Args:
        objective: the objective; none of the losses may be computed through the inputs of another.
        base: the point.
        losses: the losses of layer calls that make no calls of other layers.
        seed: seeds the directions.
    """
    layers = [layer for loss in losses if (layer := _layer(objective, base, loss)) is not None]
    together = objective.losses_together(tuple(layer.loss for layer in layers))
    clear = set(range(len(layers)))
    for number in range(_DIRECTIONS):
        if clear:
            moves = _moves(base, layers, f"screen {number}", seed)
            clear &= _agreeing(together, base, layers, moves)
    return frozenset(layers[position].loss for position in clear)


def _layer(objective: Objective, base: Base, loss: int) -> _Layer | None:
    """A layer that can be screened: all it gives is finite and of the right shape."""
    members = []
    for parameter, gradient in zip(objective.parameters, base.gradients, strict=True):
        if parameter.loss != loss or not parameter.inputs:
            continue
        if gradient is None or not np.all(np.isfinite(gradient)):
            return None
        if gradient.shape != objective.value(base, parameter).shape:
            return None
        members.append((parameter, gradient))
    if not members or not math.isfinite(base.losses[loss]):
        return None
    return _Layer(loss, tuple(members))


def _moves(base: Base, layers: Sequence[_Layer], purpose: str, seed: int) -> dict[int, Array]:
    """A direction for each input that any of the layers is differentiated for."""
    moves: dict[int, Array] = {}
    for layer in layers:
        loudness = [
            float(np.linalg.norm(gradient)) * scale_of(np.asarray(base.inputs[parameter.inputs[0]]))
            for parameter, gradient in layer.members
        ]
        for (parameter, _), loud in zip(layer.members, loudness, strict=True):
            position = parameter.inputs[0]
            if position not in moves:
                value = np.asarray(base.inputs[position], np.float64)
                rng = generator(seed, f"{purpose} {position}")
                weight = min(_LARGEST_WEIGHT, max(loudness) / loud) if loud else 1.0
                moves[position] = gaussian(rng, value.shape, scale_of(value) * weight)
            moves |= dict.fromkeys(parameter.inputs[1:], moves[position])
    return moves


def _agreeing(
    together: Callable[[Sequence[tf.Tensor]], Array],
    base: Base,
    layers: Sequence[_Layer],
    moves: dict[int, Array],
) -> set[int]:
    """The layers, by position, whose slopes along the moves agree."""
    known: dict[float, Array] = {}

    def losses(t: float) -> Array:
        if t not in known:
            inputs = list(base.inputs)
            for position, direction in moves.items():
                inputs[position] = tf.constant(np.asarray(inputs[position]) + t * direction)
            known[t] = together(inputs)
        return known[t]

    found = set()
    for position, layer in enumerate(layers):
        parts = [
            float(np.vdot(gradient, moves[parameter.inputs[0]]))
            for parameter, gradient in layer.members
        ]
        reference = max(map(abs, parts))
        at_zero = base.losses[layer.loss]
        measure = partial(_slope, losses, position, at_zero)
        _, slope = measure_slope(measure, 0.1 * _AGREEMENT * reference)
        if abs(slope.value - sum(parts)) <= _AGREEMENT * reference >= slope.error_bar:
            found.add(position)
    return found


def _slope(losses: Callable[[float], Array], position: int, at_zero: float, step: float) -> Slope:
    return central_difference(lambda t: float(losses(t)[position]), at_zero, step)
