"""How a gradient is wrong, where that follows a pattern: a factor, a sign, a transpose, a penalty.

Along a few random directions the numerical slopes are compared with those of gradients that a
mistake would give. A wrong one agrees along all of them only by chance.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from tfcheck.measure.directions import Array, gaussian, generator
from tfcheck.measure.target import Target

_DIRECTIONS = 6
_AGREEMENT = 1e-4
_FEWEST = 3
"""With fewer entries than this, everything follows a pattern."""


def pattern_of(target: Target, step: float, others: Mapping[str, Array]) -> str:
    """How the numerical gradient follows from something at hand, in one sentence.

    Args:
        target: the variable, with the tape's gradient.
        step: a step that suits the loss around this point.
        others: the gradients of other variables, by path.

    Returns:
        The sentence; `""` where there is no pattern.
    """
    gradient = target.gradient
    if gradient is None:
        return ""
    if not np.any(gradient):
        return "The tape's gradient is zero throughout."
    rng = generator(0, target.stream, "pattern")
    directions = [gaussian(rng, target.value.shape, target.scale) for _ in range(_DIRECTIONS)]
    numerical = np.array([_slope(target, direction, step) for direction in directions])
    if not np.all(np.isfinite(numerical)):
        return ""

    def ratio(slopes: Array, candidate: Array) -> float:
        """What the candidate must be multiplied with to give the slopes; `nan` for nothing."""
        own = np.array([np.vdot(direction, candidate) for direction in directions])
        square = float(own @ own)
        factor = float(slopes @ own) / square if square else math.nan
        fits = np.linalg.norm(slopes - factor * own) <= _AGREEMENT * np.linalg.norm(slopes)
        return factor if fits else math.nan

    factor = ratio(numerical, gradient)
    if math.isclose(factor, -1, rel_tol=_AGREEMENT):
        return "The numerical gradient is the tape's with the opposite sign."
    if not math.isnan(factor):
        return f"The numerical gradient is {factor:.4g} times the tape's."
    if gradient.size < _FEWEST:
        return ""
    for name, candidate in _arranged(gradient):
        if math.isclose(ratio(numerical, candidate), 1, rel_tol=_AGREEMENT):
            return f"The numerical gradient is the tape's, {name}."
    for path, candidate in others.items():
        if candidate.shape == gradient.shape and not math.isnan(ratio(numerical, candidate)):
            return f"The tape's gradient belongs elsewhere: the numerical one is that of {path}."
    rest = numerical - np.array([np.vdot(direction, gradient) for direction in directions])
    for name, penalty in (("itself", target.value), ("its sign", np.sign(target.value))):
        factor = ratio(rest, penalty)
        if not math.isnan(factor):
            verb = "lacks" if factor > 0 else "has too much"
            return f"The tape's gradient {verb} {abs(factor):.4g} times {name}, as of a penalty."
    return ""


def _slope(target: Target, direction: Array, step: float) -> float:
    """The right slope along a direction."""
    if target.known is not None:
        return float(np.vdot(target.known, direction))
    return target.slope(direction, step)


def _arranged(gradient: Array) -> Iterator[tuple[str, Array]]:
    """The gradient with its entries in the order that a mistake would put them in."""
    if gradient.ndim >= 2 and gradient.shape[-1] == gradient.shape[-2]:
        yield "transposed", np.swapaxes(gradient, -1, -2)
    if gradient.ndim > 2:
        yield "flipped in space", np.flip(gradient, tuple(range(gradient.ndim - 2)))
    if gradient.ndim == 1:
        yield "reversed", gradient[::-1]
