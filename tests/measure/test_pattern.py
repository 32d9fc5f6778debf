"""The pattern of a wrong gradient, told from a few slopes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tfcheck.measure.directions import Array
from tfcheck.measure.pattern import pattern_of
from tfcheck.measure.target import Target

RNG = np.random.default_rng(7)
STEP = 2.0**-18


def slopes_of(value: Array) -> Array:
    """The gradient of the loss `sum(sin(x) + 0.1 x²)`."""
    return np.asarray(np.cos(value) + 0.2 * value)


def target_with(gradient: Array, value: Array) -> Target:
    """A variable with this gradient on the tape."""

    def displaced(displacement: Array) -> float:
        x = value + displacement
        return float(np.sum(np.sin(x) + 0.1 * x**2))

    at_zero = displaced(np.zeros(value.shape))
    return Target(
        displaced,
        value,
        gradient,
        stream="variable",
        at_zero=at_zero,
        resolution=1e-6,
        loudest=1.0,
    )


def pattern(change: Any, shape: tuple[int, ...] = (4, 4), **others: Array) -> str:
    """The pattern found where the tape gives the right gradient, changed."""
    value = RNG.normal(size=shape)
    return pattern_of(target_with(change(slopes_of(value), value), value), STEP, others)


@pytest.mark.parametrize(
    ("change", "shape", "said"),
    [
        (lambda g, _x: g / 2, (4, 4), "is 2 times the tape's"),
        (lambda g, _x: 8 * g, (7,), "is 0.125 times the tape's"),
        (lambda g, _x: -g, (4, 4), "with the opposite sign"),
        (lambda g, _x: 0 * g, (4, 4), "is zero throughout"),
        (lambda g, _x: g.T, (4, 4), "transposed"),
        (lambda g, _x: g[::-1], (9,), "reversed"),
        (lambda g, _x: g[::-1, ::-1], (3, 3, 2, 5), "flipped in space"),
        (lambda g, x: g - 0.02 * x, (4, 4), "lacks 0.02 times itself"),
        (lambda g, x: g + 0.5 * x, (4, 4), "has too much 0.5 times itself"),
        (lambda g, x: g - 0.01 * np.sign(x), (4, 4), "lacks 0.01 times its sign"),
    ],
)
def test_a_pattern_is_named(change: Any, shape: tuple[int, ...], said: str) -> None:
    """Each mistake is told by what it does to the slopes."""
    assert said in pattern(change, shape)


def test_another_variables_gradient_is_named() -> None:
    """Where the slopes are those of another variable, that one is named."""
    value = RNG.normal(size=(4, 4))
    wrong = target_with(RNG.normal(size=(4, 4)), value)
    assert pattern_of(wrong, STEP, {"one/kernel": slopes_of(value)}).endswith("of one/kernel.")


@pytest.mark.parametrize(
    "change",
    [
        lambda g, _x: g + RNG.normal(size=g.shape),
        lambda g, _x: np.where(np.arange(g.size).reshape(g.shape) < 3, 0.0, g),
        lambda g, _x: g + 0.3,
    ],
    ids=["noise", "some entries missing", "offset"],
)
def test_what_follows_no_pattern_gets_none(change: Any) -> None:
    """A gradient that is wrong in a way of its own is not explained away."""
    assert pattern(change, other=RNG.normal(size=(4, 4))) == ""


def test_a_missing_gradient_has_no_pattern() -> None:
    """Where the tape gave none there is nothing to compare."""
    value = RNG.normal(size=(3,))
    missing = Target(**{**vars(target_with(slopes_of(value), value)), "gradient": None})
    assert pattern_of(missing, STEP, {}) == ""
