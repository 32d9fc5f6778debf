"""How far one gradient is from another."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from tfcheck.measure.similarity import similarity


def distance(found: npt.NDArray[Any] | None, reference: npt.NDArray[Any] | None) -> float:
    """‖found − reference‖ / (‖found‖ + ‖reference‖): the similarity score of two gradients.

    Args:
        found: the gradient in question; None where it is unknown.
        reference: the gradient to compare it with; None where it is unknown.

    Returns:
        0 for equal gradients, 1 for unrelated ones and where `found` alone is not finite; `nan`
        where the two cannot be compared.

    Example:
        >>> distance(np.array([3.0, 0.0]), np.array([3.0, 1.0])).__round__(3)
        0.162
    """
    if found is None or reference is None or found.shape != reference.shape:
        return math.nan
    if not np.all(np.isfinite(reference)):
        return math.nan
    if not np.all(np.isfinite(found)):
        return 1.0
    found, reference = found.astype(np.float64), reference.astype(np.float64)
    norms = float(np.linalg.norm(found)) + float(np.linalg.norm(reference))
    return similarity(float(np.linalg.norm(found - reference)), norms)
