"""The names that callbacks go by in a log."""

from __future__ import annotations

import math
import re

import numpy as np

from tfcheck.errors import ArgumentError, rule
from tfcheck.settings import Settings
from tfcheck.trace.steps import LossFunction

FIRST = "gradcheck"
"""The name of a callback that is given none and is the first in its training."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,49}")


def about(settings: Settings, loss_fn: LossFunction | None) -> str:
    """What a callback checks, in a word that can be its name.

    Example:
        >>> about(Settings(phase="inference"), None), about(Settings(), None)
        ('inference', 'train')
    """
    if loss_fn is not None:
        word = re.sub(r"[^A-Za-z0-9_.\-]+", "", getattr(loss_fn, "__name__", ""))[:50]
        return word if _NAME.fullmatch(word) else "loss_fn"
    return settings.phase


def require_name(name: object) -> None:
    """Raise an `ArgumentError` unless this is a name for a log, or None."""
    if name is not None and not (isinstance(name, str) and _NAME.fullmatch(name)):
        raise ArgumentError(
            rule(
                "name must be at most 50 letters, digits, '_', '-' and '.'",
                "name",
                name,
                "Try name='generator'",
            )
        )


def require_seconds(name: str, value: object) -> None:
    """Raise an `ArgumentError` unless this is a time to wait."""
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not number or not 0 <= float(value) < math.inf:  # type: ignore[arg-type]
        raise ArgumentError(
            rule(f"{name} must be a number of seconds, 0 or more", name, value, f"Try {name}=10")
        )
