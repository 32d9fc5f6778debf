"""What the optimizer was given, against what the tape found.

A gradient that is right on the tape can still be handed over with the wrong variable or the wrong
sign. Clipping, scaling by a positive factor and whatever else keeps the sign of every entry is a
choice of the training step and no mistake.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tfcheck.directions import Array
from tfcheck.objective import Base, Objective

_SAME = 1e-6


def misapplied(objective: Objective, base: Base) -> dict[str, str]:
    """The variables that an optimizer was given a wrong gradient for, each with a sentence.

    Args:
        objective: the training step.
        base: the point.

    Returns:
        By path; empty where every gradient that was applied belongs to its variable.
    """
    tape = _by_path(objective, base)
    found = {}
    for path, gradient in objective.applied_at(base).items():
        own = tape.get(path)
        if own is None or gradient.shape != own.shape or not np.any(gradient):
            continue
        if np.all(gradient * own >= 0):
            continue
        other = _owner(gradient, path, tape)
        if other is not None:
            found[path] = f"The optimizer gets the gradient of {other} for this variable."
        elif own.ndim == 2 and own.shape == own.T.shape and _proportional(gradient, own.T, 1.0):
            found[path] = "The optimizer gets this variable's gradient transposed."
        elif _proportional(gradient, own, -1.0):
            found[path] = "The optimizer gets this variable's gradient with the opposite sign."
    return found


def _by_path(objective: Objective, base: Base) -> dict[str, Array]:
    """The tape's gradient of each variable that exactly one tape differentiates."""
    found: dict[str, Array] = {}
    several = set()
    for parameter, gradient in zip(objective.parameters, base.gradients, strict=True):
        if parameter.loss >= objective.steps or gradient is None:
            continue
        if parameter.path in found:
            several.add(parameter.path)
        found[parameter.path] = gradient
    return {path: gradient for path, gradient in found.items() if path not in several}


def _owner(gradient: Array, path: str, tape: Mapping[str, Array]) -> str | None:
    """The other variable whose gradient this is, if it is one's."""
    return next(
        (
            other
            for other, candidate in tape.items()
            if other != path
            and candidate.shape == gradient.shape
            and _proportional(gradient, candidate, 1.0)
        ),
        None,
    )


def _proportional(one: Array, other: Array, sign: float) -> bool:
    """Whether one gradient is a multiple of another, of the given sign."""
    norms = float(np.linalg.norm(one) * np.linalg.norm(other))
    return norms > 0 and sign * float(np.vdot(one, other)) > (1 - _SAME) * norms
