"""Error bars cover the true error, in every precision: a table of functions, measured as a check
measures them.

Each function is evaluated in the arithmetic of a precision, rounding included, and its slope is
measured by the `Target` that `LossFacts` make of it: the same noise, rounding, bits and first
step as for a step of that precision. Its exact gradient is a formula in float64.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from types import SimpleNamespace
from typing import Any, cast

import ml_dtypes
import numpy as np
import pytest

from tfcheck.evaluate.around import Around
from tfcheck.examine.point_facts import PointFacts
from tfcheck.formats import FORMATS
from tfcheck.measure.differences import Slope, measure_noise
from tfcheck.measure.directions import NUDGE, gaussian, generator, representable
from tfcheck.measure.target import Arithmetic, Target
from tfcheck.objective.facts import StepFacts
from tfcheck.objective.objective import Objective
from tfcheck.objective.point import Base, Parameter
from tfcheck.settings import Settings
from tfcheck.trace.choices import Choices
from tfcheck.trace.recording import Recording

Array = Any
Loss = Callable[[Array, Any], Array]

DTYPES: dict[str, Any] = {
    "float64": np.float64,
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
}
POINTS, DIRECTIONS = 24, 3
CLAIMED = 0.999
MOST_UNKNOWN = 0.02
TYPICAL = {"float64": 2e-9, "float32": 2e-4, "float16": 0.25, "bfloat16": 2.0}
"""The most that the median bar may be, relative to a slope along a random direction: a few times
what rounding of the tape is allowed, which leaves bfloat16 little more than the order of size."""


def total(x: Array) -> Array:
    """A sum in the array's own precision, in pairs, as reductions are made."""
    while len(x) > 1:
        half = len(x) // 2
        pairs = x[:half] + x[half : 2 * half]
        x = np.concatenate([pairs, x[2 * half :]])
    return x[0]


# -- the table -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Function:
    """A function of a vector, in any arithmetic, with its exact gradient.

    Attributes:
        loss: its value for a vector and the type of its entries, whose arithmetic is used.
        slopes: its gradient, in float64. Constants are exact in all precisions.
        size: number of entries of the vector.
        scale: typical size of these.
        positive: whether they are positive.
        centre: what they lie around.
        bits: how many bits a precision needs to have any step that is small beside the structure of
            the function and large beside the spacing of its numbers.
    """

    loss: Loss
    slopes: Callable[[Array], Array]
    size: int
    scale: float = 1.0
    positive: bool = False
    centre: float = 0.0
    bits: int = 0

    def point(self, number: int, dtype: Any, name: str) -> Array:
        """One of many points, exact in a precision."""
        rng = generator(number, name)
        drawn = rng.standard_normal(self.size) * self.scale * rng.choice([0.25, 1.0, 2.0])
        drawn = np.abs(drawn) if self.positive else drawn
        return (self.centre + drawn).astype(dtype).astype(np.float64)


W = np.array([0.5, -1.25, 2.0, 0.75, -0.375, 1.0, -0.125, 3.0])
A = np.round(np.random.default_rng(3).normal(size=(64, 3)) * 8) / 8
B = np.round(np.random.default_rng(4).normal(size=64) * 8) / 8
HIDDEN = np.round(np.random.default_rng(5).normal(size=(5, 6)) * 8) / 16
OUT = np.array([1.0, -0.5, 0.75, -1.5, 0.25])


def limits(dtype: Any) -> Any:
    """The limits of a floating-point type."""
    return cast(Any, ml_dtypes.finfo)(dtype)


def large(c: Any) -> Any:
    """A number beside which a third of a precision's bits are lost."""
    return c(2 ** (limits(c).nmant // 3))


def softplus(x: Array, c: Any) -> Array:
    """log(1 + exp(x)), for large x as well."""
    return np.maximum(x, c(0)) + np.log1p(np.exp(-np.abs(x)))


def log_sum_exp(x: Array, _c: Any = None) -> Array:
    """Logarithm of Σ exp(x), shifted by the largest."""
    largest = np.max(x)
    return largest + np.log(total(np.exp(x - largest)))


def softmax(x: Array) -> Array:
    """The gradient of `log_sum_exp`."""
    weights = np.exp(x - np.max(x))
    return weights / np.sum(weights)


def times(matrix: Array, x: Array, c: Any) -> Array:
    """A matrix times a vector, its products summed in the vector's precision."""
    return np.array([total(row * x) for row in matrix.astype(c)])


def fitted(x: Array, c: Any) -> Array:
    """Mean square of the residuals of a fit to many samples."""
    left = total((A.astype(c) * x).T) - B.astype(c)
    return total(left * left) / c(64)


def variance(x: Array, c: Any) -> Array:
    """Mean of squares less square of the mean, which cancels."""
    mean = total(x) / c(8)
    return total(x * x) / c(8) - mean * mean


def product_but(x: Array, index: int) -> float:
    """Product of all entries but one."""
    return float(np.prod(np.delete(x, index)))


FUNCTIONS: dict[str, Function] = {
    "line": Function(lambda x, c: total(W.astype(c) * x) + c(1), lambda x: W, 8),
    "constant": Function(lambda x, c: total(c(0) * x) + c(3), np.zeros_like, 4),
    "parabola": Function(lambda x, c: total(x * x), lambda x: 2 * x, 5),
    "quartic": Function(
        lambda x, c: total(x * x * x * x) - total(x * x), lambda x: 4 * x**3 - 2 * x, 4
    ),
    "Horner": Function(
        lambda x, c: (((x * c(0.5) - c(1)) * x + c(3)) * x - c(2))[0],
        lambda x: 1.5 * x**2 - 2 * x + 3,
        1,
    ),
    "product": Function(
        lambda x, c: x[0] * x[1] * x[2] * x[3],
        lambda x: np.array([product_but(x, i) for i in range(4)]),
        4,
    ),
    "ratio": Function(
        lambda x, c: x[0] / (c(1) + x[1] * x[1]),
        lambda x: np.array([1 / (1 + x[1] ** 2), -2 * x[0] * x[1] / (1 + x[1] ** 2) ** 2]),
        2,
    ),
    "exponential": Function(lambda x, c: total(np.exp(x)), np.exp, 6),
    "logarithm": Function(lambda x, c: total(np.log(x)), lambda x: 1 / x, 4, positive=True),
    "sine": Function(lambda x, c: total(np.sin(x)), np.cos, 10),
    "quick sine": Function(lambda x, c: np.sin(c(4) * x)[0], lambda x: 4 * np.cos(4 * x), 1),
    "fast sine": Function(
        lambda x, c: np.sin(c(32) * x)[0], lambda x: 32 * np.cos(32 * x), 1, bits=24
    ),
    "faster sine": Function(
        lambda x, c: np.sin(c(256) * x)[0],
        lambda x: 256 * np.cos(256 * x),
        1,
        scale=0.0625,
        bits=24,
    ),
    "wave": Function(lambda x, c: np.cos(total(x)), lambda x: np.full(20, -np.sin(np.sum(x))), 20),
    "saturated": Function(
        lambda x, c: total(np.tanh(c(3) * x)), lambda x: 3 / np.cosh(3 * x) ** 2, 4
    ),
    "network": Function(
        lambda x, c: total(OUT.astype(c) * np.tanh(times(HIDDEN, np.tanh(x), c))),
        lambda x: (OUT / np.cosh(HIDDEN @ np.tanh(x)) ** 2) @ HIDDEN / np.cosh(x) ** 2,
        6,
    ),
    "softplus": Function(
        lambda x, c: total(softplus(x, c)), lambda x: 1 / (1 + np.exp(-x)), 5, scale=10.0
    ),
    "log-sum-exp": Function(log_sum_exp, softmax, 12),
    "cross-entropy": Function(
        lambda x, c: log_sum_exp(x) - x[3], lambda x: softmax(x) - np.eye(12)[3], 12, scale=2.0
    ),
    "bell": Function(
        lambda x, c: np.exp(-total(x * x)), lambda x: -2 * x * np.exp(-np.sum(x**2)), 3
    ),
    "Runge": Function(
        lambda x, c: (c(1) / (c(1) + c(25) * x * x))[0],
        lambda x: -50 * x / (1 + 25 * x**2) ** 2,
        1,
    ),
    "cube of the size": Function(
        lambda x, c: total(np.abs(x) * x * x), lambda x: 3 * np.abs(x) * x, 4
    ),
    "root": Function(
        lambda x, c: total(np.sqrt(x)), lambda x: 0.5 / np.sqrt(x), 3, scale=0.01, positive=True
    ),
    "norm": Function(
        lambda x, c: np.sqrt(total(x * x)), lambda x: x / np.linalg.norm(x), 5, scale=0.1
    ),
    "soft size": Function(
        lambda x, c: total(np.sqrt(c(1) + x * x)), lambda x: x / np.sqrt(1 + x**2), 6
    ),
    "mean of many": Function(fitted, lambda x: 2 * (A @ x - B) @ A / 64, 3),
    "variance": Function(variance, lambda x: (x - np.mean(x)) / 4, 8, centre=4.0),
    "large constant": Function(lambda x, c: total(np.sin(x)) + c(1000), np.cos, 5),
    "cancelled line": Function(
        lambda x, c: total(x * x + large(c) * x) - total(large(c) * x), lambda x: 2 * x, 4
    ),
    "cancelled constant": Function(
        lambda x, c: total((np.sin(x) + large(c)) - large(c)), np.cos, 3
    ),
    "cosine from one": Function(lambda x, c: total(c(1) - np.cos(x)), np.sin, 3),
    "tiny loss": Function(lambda x, c: c(2**-12) * total(x * x), lambda x: 2**-11 * x, 4),
    "huge loss": Function(lambda x, c: c(1024) * total(np.sin(x)), lambda x: 1024 * np.cos(x), 4),
    "tiny variable": Function(
        lambda x, c: total(np.exp(c(1024) * x)), lambda x: 1024 * np.exp(1024 * x), 3, scale=2**-10
    ),
    "huge variable": Function(
        lambda x, c: total(np.sin(x / c(256))), lambda x: np.cos(x / 256) / 256, 3, scale=256.0
    ),
}  # fmt: skip


# -- measuring as a check does ---------------------------------------------------------------


class Plain(Objective):
    """A loss of one variable, in some precision, around a single point."""

    def __init__(self, function: Function, point: Array, precision: str) -> None:
        format_ = FORMATS[precision]
        facts = StepFacts(
            source="loss_fn",
            precision=precision,
            bits=format_.bits,
            lowest=precision,
            choices=Choices(Recording()),
            first_step=format_.first_step,
        )
        parameter = Parameter(SimpleNamespace(shape=point.shape), "x", 0, (0,))
        super().__init__(facts, [parameter], 1)
        self.function = function
        self.point = point
        self.precision = precision

    def moved(self, displacement: Array) -> float:
        """The loss, all of its arithmetic in the precision."""
        c = DTYPES[self.precision]
        with np.errstate(all="ignore"):
            value = self.function.loss((self.point + displacement).astype(c), c)
        assert value.dtype == c, "The arithmetic must stay in its precision."
        return float(value)

    def along(self, *_: Any, **_options: Any) -> Callable[[Array], float]:
        return self.moved

    def loss(self, index: int, inputs: Any) -> float:
        assert index == 0
        return self.moved(np.asarray(inputs[0]) - self.point)

    # Abstract in the base; what is measured along lines asks for none of these three.
    def at(self, batch: Any) -> Base:
        raise NotImplementedError

    def aside(self, base: Base, seed: int) -> Base | None:
        raise NotImplementedError

    def nudged(self, base: Base, loss: int, seed: int, size: float = NUDGE) -> Base:
        raise NotImplementedError


def target_of(function: Function, point: Array, precision: str, tape: float) -> Target:
    """The target that an examination makes of a function at a point.

    Args:
        function: the function.
        point: the point.
        precision: the precision of its arithmetic.
        tape: what the exact gradient is multiplied with before the tape gives it.
    """
    plain = Plain(function, point, precision)
    losses = (plain.moved(np.zeros(point.shape)),)
    gradient = tape * function.slopes(point)
    base = Base((point,), losses, losses, (1.0,), (gradient,), ("",))
    point = PointFacts(Around(plain), base, Settings())
    return point.losses[0].target(plain.parameters[0], gradient)


@dataclass(frozen=True)
class Case:
    """One slope measured, and the exact one.

    Attributes:
        name: the function's name.
        slope: what was measured.
        exact: the exact derivative along the direction that was measured.
        size: the size a slope has along such directions.
        vacuous: whether the direction was rounded to nothing.
        right: whether the tape's slope is the exact one; where it is plainly off, a coarse
            measurement is enough.
    """

    name: str
    slope: Slope
    exact: float
    size: float
    vacuous: bool
    right: bool

    @property
    def known(self) -> bool:
        """Whether the slope was measured at all."""
        return not math.isnan(self.slope.error_bar) and not self.vacuous

    def covered(self, part: float = 1.0) -> bool:
        """Whether the bar, or a part of it, covers the error."""
        return abs(self.slope.value - self.exact) <= part * self.slope.error_bar


def cases_of(name: str, number: int, precision: str) -> Iterator[Case]:
    """A function at one of its points, along several directions, with a right and wrong tape."""
    function = FUNCTIONS[name]
    point = function.point(number, DTYPES[precision], name)
    slopes = function.slopes(point)
    # Below its smallest normal number a precision has no digits left.
    tiny = float(limits(DTYPES[precision]).tiny)
    for tape in (1.0, 1.5):
        target = target_of(function, point, precision, tape)
        if not tiny <= abs(target.at_zero) < math.inf:
            continue
        rng = generator(number, name, "directions")
        reference = target.scale * target.norm
        for _ in range(DIRECTIONS):
            direction = gaussian(rng, point.shape, target.scale)
            slope = target.line(direction, reference).slope
            exact = representable(direction, target.value, slope.step / 4, target.bits)
            size = target.scale * float(np.linalg.norm(slopes))
            along = float(np.vdot(exact, slopes))
            yield Case(name, slope, along, size, not np.any(exact), right=tape == 1.0)


@cache
def measured(precision: str) -> tuple[Case, ...]:
    """All functions at all points, along all directions."""
    return tuple(
        case
        for name, function in FUNCTIONS.items()
        if function.bits <= FORMATS[precision].bits
        for number in range(POINTS)
        for case in cases_of(name, number, precision)
    )


def coverage(cases: Sequence[Case], part: float = 1.0) -> float:
    """The share of measured slopes that a part of their error bar covers."""
    known = [case for case in cases if case.known]
    return sum(case.covered(part) for case in known) / len(known)


@pytest.mark.parametrize("precision", DTYPES)
def test_bars_cover_the_error(precision: str) -> None:
    """At least 999 of 1,000 error bars cover the true error, and nearly all slopes have one."""
    cases = measured(precision)
    missed = Counter(case.name for case in cases if case.known and not case.covered())
    unknown = Counter(case.name for case in cases if not case.known)
    assert len(cases) > 4000
    assert sum(unknown.values()) <= MOST_UNKNOWN * len(cases), unknown
    assert coverage(cases) >= CLAIMED, missed
    # Nor are the misses all of one kind.
    of_each = Counter(case.name for case in cases)
    assert all(missed[name] <= 0.03 * count for name, count in of_each.items()), missed
    assert all(unknown[name] <= 0.25 * count for name, count in of_each.items()), unknown


@pytest.mark.parametrize(("precision", "largest"), TYPICAL.items())
def test_bars_are_small(precision: str, largest: float) -> None:
    """Covering is not for free: the typical bar is small beside the slope."""
    bars = [
        case.slope.error_bar / case.size
        for case in measured(precision)
        if case.known and case.right and case.size
    ]
    assert float(np.median(bars)) <= largest


@pytest.mark.parametrize("precision", DTYPES)
def test_coverage_can_be_missed(precision: str) -> None:
    """Bars that were a thousand times smaller would leave out a good part of the errors."""
    cases = measured(precision)
    assert coverage(cases, 1 / 1000) < 0.9
    assert coverage(cases, 1 / 1000) < coverage(cases, 1 / 30) < coverage(cases)


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_a_wrong_derivative_is_not_covered(precision: str) -> None:
    """The bars leave no room for derivatives that are wrong by a few per cent."""
    wrong = [replace(case, exact=1.05 * case.exact) for case in measured(precision)]
    assert coverage(wrong) < 0.1


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_of_the_table(name: str) -> None:
    """What the table takes for exact is: plain differences in float64 agree."""
    function = FUNCTIONS[name]
    for number in range(3):
        point = function.point(number, np.float64, name)
        slopes = function.slopes(point)
        step = 2.0**-18 * float(np.max(np.abs(point)))
        for index, unit in enumerate(step * np.eye(function.size)):
            ahead = function.loss(point + unit, np.float64)
            behind = function.loss(point - unit, np.float64)
            difference = float(ahead - behind) / (2 * step)
            largest = float(np.max(np.abs(slopes)))
            assert difference == pytest.approx(float(slopes[index]), rel=1e-4, abs=1e-4 * largest)


# -- noise that a small change does not show -------------------------------------------------


@pytest.mark.parametrize("quantum", [2.0**-40, 2.0**-20, 2.0**-10])
def test_noise_is_found_where_neighbours_tie(quantum: float) -> None:
    """Where a small change is lost in rounding, the noise is still that of the rounding."""
    spacing = quantum / 500
    found = measure_noise(lambda t: quantum * round((t + math.sin(t + 1)) / quantum), spacing)
    assert quantum / 10 < found < quantum


def test_ties_do_not_pass_for_silence() -> None:
    """Where the loss is known to be noisy, seven values that agree by luck are no silence."""
    point = np.array([1.0])

    def lucky(displacement: Array) -> float:
        t = float(displacement[0]) * 2.0**12
        return 5.0 if t in (0.0, 1.0, 2.0, 4.0, -1.0, -2.0, -4.0) else 5.0 + 1e-4 * math.sin(99 * t)

    known = Target(
        lucky,
        point,
        np.array([0.5]),
        stream="x",
        at_zero=5.0,
        resolution=1e-6,
        loudest=0.5,
        arithmetic=Arithmetic(1e-4),
    )
    unknown = replace(known, arithmetic=Arithmetic())
    quiet, noisy = (t.slope_at(point, 2.0**-10, 0.0)[1].error_bar for t in (unknown, known))
    assert quiet < 1e-9
    assert noisy > 0.1


def test_quiet_variables_of_noisy_losses_keep_small_bars() -> None:
    """What other variables make noisy is measured as well as ever where this one is quiet."""
    point = np.array([1.0])
    target = Target(
        lambda d: math.exp(float(d[0])),
        point,
        np.ones(1),
        stream="x",
        at_zero=1.0,
        resolution=1e-9,
        loudest=1.0,
        arithmetic=Arithmetic(1e-4),
    )
    line = target.line(point, 1.0)
    assert abs(line.slope.value - 1.0) <= line.slope.error_bar < 1e-7
