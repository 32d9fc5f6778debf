"""How long something may take: seconds, or a number with a unit."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from numbers import Real

from tfcheck.errors import ArgumentError, rule

_UNITS = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600)}
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h)\s*", re.IGNORECASE | re.ASCII)


def seconds_of(name: str, duration: float | str) -> float:
    """The seconds of a duration.

    Args:
        name: the option that it is given for.
        duration: a number of seconds, or a string such as `"30s"`, `"500ms"`, `"2m"` or `"1.5h"`.

    Returns:
        A number of seconds, more than 0.

    Raises:
        ArgumentError: for anything else.

    Example:
        >>> seconds_of("time_limit", "500ms"), seconds_of("time_limit", "2 m")
        (0.5, 120.0)
    """
    seconds = 0.0
    if isinstance(duration, str):
        if found := _DURATION.fullmatch(duration):
            seconds = float(Decimal(found[1]) * _UNITS[found[2].lower()])
    elif isinstance(duration, Real) and not isinstance(duration, bool):
        seconds = _as_float(duration)
    if not 0 < seconds < math.inf:
        raise ArgumentError(
            rule(
                f"{name} must be None, a positive number of seconds, or a number with one of the "
                "units ms, s, m and h",
                name,
                duration,
                'Try "30s"',
            )
        )
    return seconds


def _as_float(number: Real) -> float:
    """The number as a float; infinite where it is too large for one."""
    try:
        return float(number)
    except OverflowError:
        return math.inf
