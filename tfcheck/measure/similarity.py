"""The similarity score, from norms."""

from __future__ import annotations

import math


def similarity(gap: float, norms: float) -> float:
    """‖a − b‖ / (‖a‖ + ‖b‖): 0 for equal vectors, 1 for unrelated ones.

    Args:
        gap: ‖a − b‖.
        norms: ‖a‖ + ‖b‖.

    Returns:
        The score; 0 where both vectors are zero, `nan` where a norm is unknown.

    Example:
        >>> similarity(1.0, 4.0), similarity(0.0, 0.0)
        (0.25, 0.0)
    """
    if math.isnan(gap) or math.isnan(norms):
        return math.nan
    if norms == 0.0:
        return 0.0 if gap == 0.0 else math.inf
    return gap / norms
