"""The options of a check: what each may be, so that a slip of the pen costs one sentence.

Every option is looked at before any work begins. Bounds keep out what can only be a mistake: a
step larger than the weights, a million directions, a memory limit of a few bytes.
"""

from __future__ import annotations

import itertools
import numbers
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from tfcheck._version import __version__
from tfcheck.duration import seconds_of
from tfcheck.errors import ArgumentError, ArgumentTypeError, rule
from tfcheck.judge.verdict import PRECISION, Thresholds
from tfcheck.memory import bytes_of

DROPOUT = ("off", "frozen")
"""Silenced; or on, with its masks held fixed."""

MOST_DIRECTIONS = 1000
"""They know the norm of a difference to within 3 %, which more would not make more telling."""

SMALLEST_EPSILON, LARGEST_EPSILON = 1e-15, 1.0
"""A weight of size 1 is not moved by less in float64, and lost from sight by more."""

LARGEST_SEED = 2**32 - 1
"""NumPy's and Keras's own seeds end here."""

LEAST_MEMORY = 1_000_000
"""With less, not even one batch of a small model can be measured."""

MOST_PATTERNS = 1000
"""Each is matched with every variable; `"block/*"` stands for thousands of paths at once."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The options a check ran with, as given to `tfcheck.check_gradients`.

    `time_limit` is in seconds. `batch_size` and `batch_fingerprint` say on which batch: the same
    fingerprint, the same values.
    """

    phase: str = "train"
    method: str = "directions"
    directions: int = 4
    epsilon: float | str = "auto"
    thresholds: Thresholds = field(default_factory=Thresholds)
    expected_mismatch: tuple[str, ...] = ()
    seed: int = 0
    precision: float = PRECISION
    dropout: str = "off"
    memory_limit: int | str = "auto"
    time_limit: float | None = None
    batch_size: int | None = None
    version: str = ""
    batch_fingerprint: str = ""


def make_settings(
    *,
    phase: str,
    method: str,
    directions: int,
    epsilon: float | str,
    thresholds: Thresholds,
    expected_mismatch: Sequence[str],
    seed: int,
    precision: float = PRECISION,
    dropout: str = "off",
    memory_limit: int | str = "auto",
    time_limit: float | str | None = None,
) -> Settings:
    """Check the options of a gradient check, before any work, and freeze them.

    Raises:
        ArgumentError: for a value that is out of range.
        ArgumentTypeError: for a value of a wrong type.
    """
    require_choice("phase", phase, ("train", "inference"))
    require_choice("method", method, ("directions", "full"))
    require_choice("dropout", dropout, DROPOUT)
    if not isinstance(thresholds, Thresholds):
        raise ArgumentTypeError(
            rule(
                "thresholds must be a tfcheck.Thresholds",
                "thresholds",
                thresholds,
                "Write Thresholds(okay=…)",
            )
        )
    return Settings(
        phase=phase,
        method=method,
        directions=whole_number("directions", directions, 1, MOST_DIRECTIONS),
        epsilon=step(epsilon),
        thresholds=thresholds,
        expected_mismatch=_patterns(expected_mismatch),
        seed=whole_number("seed", seed, 0, LARGEST_SEED),
        precision=_precision(precision),
        dropout=dropout,
        memory_limit=memory(memory_limit),
        time_limit=duration(time_limit),
        version=__version__,
    )


def require_choice(name: str, value: object, allowed: Sequence[object]) -> None:
    """Raise an `ArgumentError` unless `value` is one of `allowed`."""
    if not (value is None or isinstance(value, str)) or value not in allowed:
        listed = " or ".join(repr(choice) for choice in allowed)
        raise ArgumentError(rule(f"{name} must be {listed}", name, value, f"Choose {listed}"))


def require_verbose(verbose: object) -> None:
    """Raise an `ArgumentError` unless this is 0 or 1."""
    if not isinstance(verbose, numbers.Integral) or verbose not in (0, 1):
        raise ArgumentError(
            rule("verbose must be 0 or 1", "verbose", verbose, "Choose 0 to show no progress")
        )


def whole_number(name: str, value: Any, least: int, most: int) -> int:
    """The value, if it is a whole number within these bounds; raises an `ArgumentError` else."""
    number = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not number or not least <= value <= most:
        raise ArgumentError(
            rule(
                f"{name} must be a whole number from {least:,} to {most:,}",
                name,
                value,
                "Give such a number",
            )
        )
    return int(value)


def step(epsilon: object) -> float | str:
    """The step, if it is `"auto"` or one that can tell anything; raises an `ArgumentError` else."""
    if isinstance(epsilon, str) and epsilon == "auto":
        return epsilon
    if not _is_number(epsilon) or not SMALLEST_EPSILON <= epsilon <= LARGEST_EPSILON:
        raise ArgumentError(
            rule(
                f'epsilon must be "auto" or a number from {SMALLEST_EPSILON:g} to '
                f"{LARGEST_EPSILON:g}",
                "epsilon",
                epsilon,
                "Try 1e-7",
            )
        )
    return float(epsilon)


def memory(limit: int | str) -> int | str:
    """The limit as it was given, if it allows any work; raises an `ArgumentError` else."""
    if limit != "auto" and bytes_of(limit) < LEAST_MEMORY:
        raise ArgumentError(
            rule("memory_limit must be at least 1MB", "memory_limit", limit, 'Try "2GB"')
        )
    return limit if isinstance(limit, str) else int(limit)


def duration(limit: float | str | None) -> float | None:
    """The seconds of a time limit, None for none; raises an `ArgumentError` for anything else."""
    return None if limit is None else seconds_of("time_limit", limit)


def _precision(precision: object) -> float:
    if not _is_number(precision) or not 0 < precision <= 1:
        raise ArgumentError(
            rule(
                "precision must be a number above 0 and at most 1",
                "precision",
                precision,
                f"Try {PRECISION:g}",
            )
        )
    return float(precision)


def _patterns(expected_mismatch: object) -> tuple[str, ...]:
    if isinstance(expected_mismatch, str):
        return (expected_mismatch,)
    patterns: tuple[object, ...] = (None,)
    if isinstance(expected_mismatch, Iterable):
        patterns = tuple(itertools.islice(expected_mismatch, MOST_PATTERNS + 1))
    if len(patterns) > MOST_PATTERNS:
        raise ArgumentError(
            f"expected_mismatch must hold at most {MOST_PATTERNS:,} patterns. Received: more. "
            'Name whole layers, such as "block/*".'
        )
    strings = tuple(pattern for pattern in patterns if isinstance(pattern, str))
    if len(strings) < len(patterns):
        raise ArgumentTypeError(
            rule(
                "expected_mismatch must hold strings",
                "expected_mismatch",
                expected_mismatch,
                "Give path patterns",
            )
        )
    return strings


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
