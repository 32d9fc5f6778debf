"""Directions: exact in float64, the same everywhere, and what they estimate."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfcheck.measure.directions import Draws, gaussian, generator, representable, scale_of


@given(
    scale=st.floats(1e-6, 1e6),
    exponent=st.integers(-44, -1),
    seed=st.integers(0, 10**6),
)
def test_steps_are_exact(scale: float, exponent: int, seed: int) -> None:
    """Float32 values ± step·direction lose no bit, for the smallest step, twice and four times."""
    rng = np.random.default_rng(seed)
    value = (scale * rng.standard_normal(5)).astype("float32").astype("float64")
    step = 2.0**exponent
    direction = representable(gaussian(rng, (5,), scale_of(value)), value, step)
    for factor, sign in itertools.product((1, 2, 4), (1, -1)):
        moved = value + sign * factor * step * direction
        for v, d, m in zip(value, direction, moved, strict=True):
            exact = Fraction(float(v)) + sign * factor * Fraction(step) * Fraction(float(d))
            assert Fraction(float(m)) == exact


@given(exponent=st.integers(-30, -1), seed=st.integers(0, 10**6))
def test_rounding_is_small(exponent: int, seed: int) -> None:
    """A direction is rounded by no more than the spacing of numbers makes necessary."""
    rng = np.random.default_rng(seed)
    value, raw = rng.standard_normal(50), rng.standard_normal(50)
    step = 2.0**exponent
    rounded = representable(raw, value, step)
    largest = np.max(np.abs(value)) + 8 * step * np.max(np.abs(raw))
    assert np.max(np.abs(rounded - raw)) * step <= 2 * np.spacing(largest)


def test_without_rounding_steps_are_not_exact() -> None:
    """An unrounded direction does lose bits: the rounding is needed."""
    rng = np.random.default_rng(0)
    value, direction = rng.standard_normal(50), rng.standard_normal(50)
    step = 2.0**-30
    realised = (value + step * direction) - value
    assert np.any(realised != step * direction)
    rounded = representable(direction, value, step)
    np.testing.assert_array_equal((value + step * rounded) - value, step * rounded)


@pytest.mark.parametrize("value", [np.zeros(3), np.zeros(0), np.zeros((2, 0, 3))])
def test_nothing_to_round(value: np.ndarray) -> None:
    """A zero direction at a zero value, or no entry at all, comes back as it is."""
    np.testing.assert_array_equal(representable(value, value, 2.0**-16), value)


def test_what_is_not_finite_stays() -> None:
    """A value that is not finite has no spacing; the direction is left alone."""
    direction = np.array([1.0, 2.0])
    found = representable(direction, np.array([np.inf, 1.0]), 2.0**-16)
    np.testing.assert_array_equal(found, direction)


def test_generators_are_repeatable() -> None:
    """The same seed, path and purpose draw the same numbers; another of any draws others."""
    drawn = {
        key: tuple(generator(*key).standard_normal(4))
        for key in itertools.product((0, 1), ("net/a/kernel", "net/b/kernel"), ("", "nudge"))
    }
    assert len(set(drawn.values())) == len(drawn)
    for key, numbers in drawn.items():
        assert tuple(generator(*key).standard_normal(4)) == numbers


def test_generators_are_the_same_on_every_machine() -> None:
    """The numbers are fixed for good: reports can be compared between machines and runs."""
    np.testing.assert_allclose(
        generator(0, "dense/kernel").standard_normal(2),
        [-1.7813351771138202, -1.097208146998636],
        rtol=1e-12,
    )


@given(st.text(max_size=20), st.integers(0, 2**40))
def test_any_path_and_seed_will_do(path: str, seed: int) -> None:
    """Paths in any script and large seeds make generators."""
    assert generator(seed, path).random() == generator(seed, path).random()


@pytest.mark.parametrize("size", [1, 10, 100, 1000])
def test_directions_estimate_a_norm(size: int) -> None:
    """The mean of (z·e)² is ‖e‖² times the squared scale, whatever the number of entries."""
    rng = generator(0, "estimate", str(size))
    error = rng.standard_normal(size)
    squares = [np.vdot(gaussian(rng, (size,), 0.5), error) ** 2 for _ in range(4000)]
    expected = 0.25 * np.vdot(error, error)
    # The variance of (z·e)² is twice the square of its mean.
    assert np.mean(squares) == pytest.approx(expected, abs=5 * expected * np.sqrt(2 / 4000))


def test_a_single_wrong_entry_shows_in_every_direction() -> None:
    """One wrong entry among many is seen by nearly every direction, however many there are."""
    error = np.zeros(10**5)
    error[777] = 1.0
    rng = generator(0, "single")
    seen = [abs(np.vdot(gaussian(rng, (10**5,), 1.0), error)) > 0.01 for _ in range(20)]
    assert sum(seen) >= 19


@given(
    values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20),
    factor=st.floats(0.5, 100),
)
def test_scale_is_the_root_mean_square(values: list[float], factor: float) -> None:
    """The scale is the root mean square, grows with the value, and is never zero."""
    value = np.array(values)
    rms = float(np.sqrt(np.mean(value**2)))
    scale = scale_of(value)
    assert scale > 0
    if rms > 1e-6:
        assert scale == pytest.approx(rms)
        assert scale_of(factor * value) == pytest.approx(factor * scale)


@pytest.mark.parametrize(
    "value",
    [np.zeros(4), np.zeros(0), np.full(3, 1e-12), np.array([np.nan]), np.full(2, 1e200)],
)
def test_what_has_no_scale_gets_one(value: np.ndarray) -> None:
    """Zero, nothing, next to nothing and what has no finite square get the scale 0.1."""
    assert scale_of(value) == 0.1


def test_what_is_not_finite_has_no_part_in_the_scale() -> None:
    """NaN that stands for something missing, and infinite masks, leave the scale of the others."""
    assert scale_of(np.array([np.inf, 3.0, np.nan, -3.0])) == 3.0


@given(st.tuples(st.integers(1, 4), st.integers(1, 4)), st.floats(1e-3, 1e3))
def test_gaussian_shape_and_scale(shape: tuple[int, int], scale: float) -> None:
    """A direction has the variable's shape, and its scale scales it."""
    one = gaussian(np.random.default_rng(3), shape, 1.0)
    other = gaussian(np.random.default_rng(3), shape, scale)
    assert other.shape == shape
    np.testing.assert_allclose(other, scale * one)


@given(st.integers(0, 5), st.lists(st.integers(0, 40), min_size=1, max_size=4))
def test_draws_are_remembered_as_they_were(seed: int, sizes: list[int]) -> None:
    """What is drawn again, and what comes after it, is what a new generator gives."""
    draws = Draws(kept=60)
    for _ in range(3):
        fresh, replayed = generator(seed, "x"), generator(seed, "x")
        for size in sizes:
            np.testing.assert_array_equal(
                draws.normal(replayed, (size,)), fresh.standard_normal((size,))
            )
        assert replayed.standard_normal() == fresh.standard_normal()


def test_as_many_draws_as_allowed_are_remembered() -> None:
    """The same array is given again only within the limit."""
    draws = Draws(kept=100)
    for size, known in ((60, True), (60, False), (40, True)):
        first, second = (draws.normal(generator(size, "y" * known), (size,)) for _ in range(2))
        assert (first is second) == known
