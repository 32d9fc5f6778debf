"""Whether and how a loss depends on a variable at all, far from the point too."""

from __future__ import annotations

from collections.abc import Callable

from tfcheck.measure.directions import gaussian, generator
from tfcheck.measure.target import Target

_STEPS = (0.01, 0.3, 3.0, 100.0)
"""How far to go, in units of the variable's scale."""

_CHANGE = 1e-6
"""The part of itself by which a loss must change to depend on a variable, rather than to round."""

_NEARBY = (1e-6, -1e-6)
_HALVINGS = 40
_JUMP_LEFT = 1e-3


def depends(target: Target, seed: int) -> bool:
    """Whether the loss changes at all when the variable moves far along a random direction."""
    rng = generator(seed, target.stream, "dependence")
    direction = gaussian(rng, target.value.shape, target.scale)
    return any(
        target.displaced(sign * step * direction) != target.at_zero
        for step in _STEPS
        for sign in (1.0, -1.0)
    )


def only_jumps(target: Target, seed: int) -> bool:
    """Whether the loss depends on a variable in jumps alone, so that no slope says where to go.

    A unit that is switched off, such as a ReLU's, has no slope here either, but some elsewhere.
    """
    rng = generator(seed, target.stream, "dependence")
    direction = gaussian(rng, target.value.shape, target.scale)
    changed = [
        t
        for step in _STEPS
        for t in (step, -step)
        if abs(target.displaced(t * direction) - target.at_zero) > _CHANGE * abs(target.at_zero)
    ]
    if not changed:
        return False
    for t in changed:
        here = target.displaced(t * direction)
        if any(target.displaced(t * (1 + nearby) * direction) != here for nearby in _NEARBY):
            return False
    return _jump(lambda t: target.displaced(t * direction), changed[0]) > 0


def _jump(phi: Callable[[float], float], end: float) -> float:
    """The size of a jump of φ between 0 and `end`, 0 where it gets there without one."""
    low, high = 0.0, end
    at_low, at_high = phi(low), phi(high)
    whole = abs(at_high - at_low)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        at_middle = phi(middle)
        if abs(at_middle - at_low) >= abs(at_high - at_middle):
            high, at_high = middle, at_middle
        else:
            low, at_low = middle, at_middle
    left = abs(at_high - at_low)
    return left if left > _JUMP_LEFT * whole else 0.0
