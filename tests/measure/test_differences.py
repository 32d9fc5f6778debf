"""Differences: bars that cover the error, kinks told from noise, steps that find their way."""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfcheck.measure.differences import (
    FIRST_STEP,
    LARGEST_STEP,
    SMALLEST_STEP,
    Slope,
    better,
    central_difference,
    confirm_slope,
    measure_noise,
    measure_slope,
)

Phi = Callable[[float], float]

# Functions of t and their derivatives at 0.
SMOOTH: dict[str, tuple[Phi, float]] = {
    "line": (lambda t: 2 * t + 1, 2.0),
    "parabola at its foot": (lambda t: 1 + t**2, 0.0),
    "cubic": (lambda t: (1 + t) ** 3, 3.0),
    "exponential": (math.exp, 1.0),
    "sine": (lambda t: math.sin(t + 0.3), math.cos(0.3)),
    "fast sine": (lambda t: math.sin(300 * t + 1), 300 * math.cos(1)),
    "sigmoid": (lambda t: 0.5 + 0.5 * math.tanh(2 * t + 1), 1 - math.tanh(1) ** 2),
    "logarithm": (lambda t: math.log(2 + t) if t > -2 else math.nan, 0.5),
    "narrow bell": (lambda t: math.exp(-((40 * t + 0.2) ** 2)), -16 * math.exp(-0.04)),
    "rational": (lambda t: 1 / (1 + 25 * (t + 0.1) ** 2), -5 / 1.25**2),
    "constant": (lambda t: 3.0, 0.0),
}  # fmt: skip
NOISES = (0.0, 1e-13, 1e-10, 1e-7, 1e-4)
SCALES = (1e-8, 1.0, 1e8)


def noisy(phi: Phi, level: float, seed: int = 0) -> Phi:
    """A function with Gaussian noise that depends on t alone, as round-off does."""
    if level == 0.0:
        return phi

    def evaluate(t: float) -> float:
        bits = struct.unpack("<Q", struct.pack("<d", t))[0]
        return phi(t) + level * float(np.random.default_rng([seed, bits]).standard_normal())

    return evaluate


def scaled(phi: Phi, scale: float, constant: float = 0.0) -> Phi:
    """A function times a scale plus a constant."""
    return lambda t: scale * phi(t) + constant


def searched(phi: Phi, wanted: float, noise: float = math.inf) -> Slope:
    """The slope that a search for a good step ends with, given how loud noise can be."""

    def measure(step: float) -> Slope:
        return central_difference(phi, phi(0.0), step, loudest_noise=noise)

    _, best = measure_slope(measure, wanted)
    return best


# -- error bars ------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", SMOOTH)
def test_bars_cover_the_error(name: str, scale: float) -> None:
    """Without noise the bar always covers the error, and the search makes it small."""
    phi, true = SMOOTH[name]
    phi = scaled(phi, scale)
    for exponent in range(-30, -4):
        slope = central_difference(phi, phi(0.0), 2.0**exponent)
        assert abs(slope.value - scale * true) <= slope.error_bar, exponent
    best = searched(phi, 1e-9 * scale)
    assert abs(best.value - scale * true) <= best.error_bar <= 1e-7 * scale * max(1, abs(true))


@pytest.mark.parametrize("level", NOISES[1:])
def test_bars_cover_noise(level: float) -> None:
    """With noise of any size the bar covers the error in all but a few of many cases."""
    covered = 0
    cases = list(itertools.product(SMOOTH.values(), SCALES, range(3)))
    for (phi, true), scale, seed in cases:
        best = searched(scaled(noisy(phi, level, seed), scale), 1e-9 * scale)
        covered += abs(best.value - scale * true) <= best.error_bar
        # A bar is no excuse either: it stays near the best that such noise allows.
        assert best.error_bar <= 1e3 * scale * max(level ** (2 / 3), 1e-9) * max(1, true**2)
    # Now and then three combinations of a few values all come out quiet.
    assert covered >= 0.95 * len(cases)


@pytest.mark.parametrize("level", NOISES[1:])
def test_bars_cover_known_noise(level: float) -> None:
    """Where the noise is known beforehand, the bar always covers the error."""
    for (phi, true), seed in itertools.product(SMOOTH.values(), range(6)):
        loss = noisy(phi, level, seed)
        noise = measure_noise(loss, 2.0**-36)

        def measure(step: float, loss: Phi = loss, noise: float = noise) -> Slope:
            at_zero = loss(0.0)
            return central_difference(
                loss, at_zero, step, loudest_noise=4 * noise, least_noise=noise
            )

        _, best = measure_slope(measure, 1e-9)
        assert abs(best.value - true) <= best.error_bar


@pytest.mark.parametrize("constant", [1e3, 1e6, 1e9, -1e12])
@pytest.mark.parametrize("name", SMOOTH)
def test_a_large_constant(name: str, constant: float) -> None:
    """A loss that drowns in a constant is measured with the bar that its rounding asks for."""
    phi, true = SMOOTH[name]
    best = searched(scaled(phi, 1.0, constant), 1e-9)
    assert abs(best.value - true) <= best.error_bar
    assert best.error_bar >= 1e-20 * abs(constant)


@given(
    coefficients=st.lists(st.floats(-10, 10), min_size=2, max_size=6),
    exponent=st.integers(-24, -4),
)
def test_bars_cover_polynomials(coefficients: list[float], exponent: int) -> None:
    """For any polynomial and step the bar covers the error."""

    def phi(t: float) -> float:
        return sum(c * t**power for power, c in enumerate(coefficients))

    slope = central_difference(phi, phi(0.0), 2.0**exponent)
    assert abs(slope.value - coefficients[1]) <= slope.error_bar + 1e-300


def test_bars_can_be_exceeded() -> None:
    """A wrong derivative lies outside of the bar: covering is not for free."""
    for name, (phi, true) in SMOOTH.items():
        best = searched(phi, 1e-9)
        assert abs(best.value - (true + 1e-5 * max(1, abs(true)))) > best.error_bar, name


def test_a_looser_wish_is_met_sooner() -> None:
    """The search stops at a bar that is good enough."""
    steps: list[float] = []

    def measure(step: float) -> Slope:
        steps.append(step)
        return central_difference(math.exp, 1.0, step)

    first, best = measure_slope(measure, wanted=1.0)
    assert first is best
    assert steps == [FIRST_STEP]


# -- kinks -----------------------------------------------------------------------------------

KINKS: dict[str, tuple[Phi, float, float]] = {
    "absolute": (abs, -1.0, 1.0),
    "rectifier": (lambda t: max(t, 0.0), 0.0, 1.0),
    "leaky rectifier": (lambda t: 1 + max(t, 0.2 * t), 0.2, 1.0),
    "on a curve": (lambda t: math.exp(t) + abs(t), 0.0, 2.0),
    "falling": (lambda t: 5 - 3 * abs(t) + math.sin(t), 4.0, -2.0),
    "two at once": (lambda t: abs(t) + max(3 * t, 0.0), -1.0, 4.0),
}


@pytest.mark.parametrize("step", [2.0**-10, FIRST_STEP, 2.0**-24])
@pytest.mark.parametrize("name", KINKS)
def test_one_sided_slopes_on_a_kink(name: str, step: float) -> None:
    """On a kink both one-sided slopes are found within their bar, and said to differ."""
    phi, left, right = KINKS[name]
    slope = central_difference(phi, phi(0.0), step)
    assert abs(slope.backward - left) <= slope.one_sided_bar
    assert abs(slope.forward - right) <= slope.one_sided_bar
    assert slope.has_kink
    assert slope.value == pytest.approx((left + right) / 2, abs=1e-5)


@pytest.mark.parametrize("level", NOISES)
@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_functions_have_no_kink(name: str, level: float) -> None:
    """However noisy, a smooth function is not said to have a kink."""
    phi = noisy(SMOOTH[name][0], level)
    for exponent in (-10, -16, -24, -32):
        slope = central_difference(phi, phi(0.0), 2.0**exponent)
        assert not slope.has_kink, exponent


@pytest.mark.parametrize("where", [1e-3, 1e-5, 1e-6, -1e-7, 3e-8])
def test_steps_shrink_below_a_kink_nearby(where: float) -> None:
    """A kink beside the point is stepped under: the slope is that of the near side."""
    phi = lambda t: max(t - where, 0.0) + 0.5 * math.sin(t)  # noqa: E731
    true = 0.5 + (1.0 if where < 0 else 0.0)
    best = searched(phi, 1e-7, noise=1e-15)
    assert best.step < abs(where)
    assert abs(best.value - true) <= best.error_bar < 1e-5


def test_a_crossed_kink_is_not_smooth() -> None:
    """Truncation that does not shrink as it should is noticed."""
    crossed = central_difference(lambda t: abs(t - 0.4e-5), 0.4e-5, FIRST_STEP, loudest_noise=1e-18)
    assert not crossed.smooth
    assert central_difference(math.exp, 1.0, 2.0**-6).smooth


# -- noise -----------------------------------------------------------------------------------


def test_steps_grow_on_noise() -> None:
    """The noisier the loss, the larger the step, and still the bar covers."""
    steps = []
    for level in (0.0, 1e-10, 1e-7, 1e-4):
        best = searched(noisy(math.exp, level), 1e-9)
        steps.append(best.step)
        assert abs(best.value - 1.0) <= best.error_bar
    assert steps == sorted(steps)
    assert steps[-1] > FIRST_STEP


@settings(max_examples=40)
@given(exponent=st.integers(-40, 3), seed=st.integers(0, 10**6))
def test_noise_is_estimated_within_a_factor(exponent: int, seed: int) -> None:
    """The noise level of values close together is found to within a factor of three."""
    level = 10.0 ** (exponent / 4)
    found = measure_noise(noisy(math.cos, level, seed), 2.0**-30)
    assert level / 3 <= found <= 3 * level


def test_without_noise_there_is_rounding() -> None:
    """A function without noise is found as quiet as float64 allows."""
    assert measure_noise(lambda t: 7 + math.sin(t), 2.0**-36) < 1e-14
    assert measure_noise(lambda _t: 1.0, 2.0**-36) == 0.0


def test_noise_of_what_is_not_finite_is_unknown() -> None:
    """Noise that cannot be measured is not zero."""
    assert not math.isfinite(measure_noise(lambda _t: math.nan, 2.0**-36))


def test_noise_is_never_none_at_all() -> None:
    """Values that agree to the last bit by luck leave a bar of their rounding."""
    slope = central_difference(lambda _t: 5.0, 5.0, 2.0**-20)
    assert slope.noise >= 5 * 2.0**-52
    assert slope.error_bar > 0


def test_known_noise_limits_what_looks_like_noise() -> None:
    """What exceeds the known noise is shape, and does not widen the round-off."""
    jagged = lambda t: abs(math.sin(1e6 * t)) + t  # noqa: E731
    free = central_difference(jagged, 0.0, FIRST_STEP)
    bound = central_difference(jagged, 0.0, FIRST_STEP, loudest_noise=1e-15)
    assert bound.noise == pytest.approx(1e-15, rel=1)
    assert free.noise > 100 * bound.noise
    assert bound.truncation == free.truncation


# -- what is not finite ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "phi",
    [
        lambda _t: math.nan,
        lambda _t: math.inf,
        lambda t: math.nan if t > 0 else t,
        lambda t: -math.inf if t < 0 else t,
        lambda t: math.inf if t == 0 else t,
    ],
)
def test_unknown_is_nan(phi: Phi) -> None:
    """Where the loss is not finite around the point, the slope and its bar are unknown."""
    slope = central_difference(phi, phi(0.0), 2.0**-16)
    assert math.isnan(slope.value)
    assert math.isnan(slope.error_bar)
    assert math.isnan(slope.roundoff)
    assert not slope.has_kink
    assert not slope.smooth


def test_the_search_leaves_what_is_not_finite() -> None:
    """Where a step reaches past the end of the domain, smaller ones are tried."""
    phi = lambda t: math.log(1e-7 + t) if t > -1e-7 else math.nan  # noqa: E731
    best = searched(phi, 1.0)
    assert best.step < 1e-7
    assert abs(best.value - 1e7) <= best.error_bar


def test_nothing_finite_ends_unknown() -> None:
    """A loss that is nowhere finite ends the search with an unknown slope."""
    assert math.isnan(searched(lambda _t: math.nan, 1.0).value)


# -- choosing --------------------------------------------------------------------------------


def slope_of(value: float, bar: float, step: float) -> Slope:
    """A slope with its bar in the truncation."""
    return Slope(value, bar, 0.0, 0.0, step, value, value, bar, smooth=True)


@pytest.mark.parametrize(
    ("one", "other", "first_wins"),
    [
        (slope_of(1.0, 0.1, 1e-3), slope_of(1.05, 0.2, 1e-4), True),
        (slope_of(1.0, 0.2, 1e-3), slope_of(1.05, 0.1, 1e-4), False),
        (slope_of(1.0, 0.1, 1e-3), slope_of(1.0, 0.1, 1e-4), True),
        (slope_of(1.0, 0.001, 1e-3), slope_of(2.0, 0.1, 1e-4), False),
        (slope_of(1.0, 0.5, 1e-5), slope_of(2.0, 0.1, 1e-4), True),
        (slope_of(math.nan, math.nan, 1e-5), slope_of(2.0, 0.1, 1e-4), False),
        (slope_of(2.0, 0.1, 1e-4), slope_of(math.nan, math.nan, 1e-5), True),
    ],
)
def test_better(one: Slope, other: Slope, first_wins: bool) -> None:
    """Slopes that agree: the smaller bar; that contradict: the smaller step; never an unknown."""
    assert better(one, other) is (one if first_wins else other)


@given(
    st.floats(-1, 1), st.floats(1e-6, 1), st.floats(-1, 1), st.floats(1e-6, 1),
    st.sampled_from([(1e-3, 1e-4), (1e-4, 1e-3)]),
)  # fmt: skip
def test_better_does_not_depend_on_the_order(
    a: float, a_bar: float, b: float, b_bar: float, steps: tuple[float, float]
) -> None:
    """Which slope to believe does not depend on which was measured first, ties aside."""
    one, other = slope_of(a, a_bar, steps[0]), slope_of(b, b_bar, steps[1])
    if a_bar != b_bar:
        assert better(one, other) is better(other, one)


def test_confirmation_finds_hidden_structure() -> None:
    """A loss that looks straight at a large step is not believed before a smaller one agrees."""

    def wavy(t: float) -> float:
        return t + 2.0**-19 * math.sin(2.0**19 * t)

    def measure(step: float) -> Slope:
        return central_difference(wavy, 0.0, step)

    confirmed = confirm_slope(measure, slope_of(1.0, 1e-3, 2.0**-16))
    assert abs(confirmed.value - 2.0) <= confirmed.error_bar < 0.01
    assert confirmed.step < 2.0**-19


def test_confirmation_of_a_smooth_function_changes_little() -> None:
    """A smaller step that agrees ends it."""
    steps: list[float] = []

    def measure(step: float) -> Slope:
        steps.append(step)
        return central_difference(math.exp, 1.0, step)

    best = measure(2.0**-10)
    confirmed = confirm_slope(measure, best)
    assert abs(confirmed.value - 1.0) <= confirmed.error_bar
    assert len(steps) <= 3


def test_steps_stay_within_their_range() -> None:
    """No search leaves the range of steps that make sense."""
    steps: list[float] = []

    def measure(step: float, *, noise: bool) -> Slope:
        steps.append(step)
        nan = math.nan
        if noise:
            return Slope(1.0, 0.0, 1.0 / step, 1.0, step, 1.0, 1.0, 1.0, smooth=True)
        return Slope(nan, nan, nan, nan, step, nan, nan, nan, smooth=False)

    for noise in (True, False):
        measure_slope(lambda step, noise=noise: measure(step, noise=noise), 0.0)  # type: ignore[misc]
    assert SMALLEST_STEP <= min(steps) < 1e-10
    assert 1e-3 < max(steps) <= LARGEST_STEP
