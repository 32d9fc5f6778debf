"""Measuring a variable: by directions, entry by entry, by bisection, and many variables at once.

The losses here are NumPy functions; TensorFlow has no part in it but in the last tests.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfcheck.measure.dependence import depends
from tfcheck.measure.entries import Entries, Indices, one_by_one
from tfcheck.measure.measurement import Measurement, measure_directions
from tfcheck.measure.sweep import loudest_entries, measure_coordinate, measure_every_coordinate
from tfcheck.measure.target import Arithmetic, Target
from tfcheck.measure.wrong_entries import suspicious_entries, wrong_entries

Array = Any
QUIET = Arithmetic(noise=1e-13)
RNG = np.random.default_rng(12)


class Counted:
    """A loss of one variable that counts its evaluations."""

    def __init__(self, loss: Callable[[Array], float], value: Array) -> None:
        self.loss = loss
        self.value = value
        self.count = 0

    def __call__(self, displacement: Array) -> float:
        self.count += 1
        return float(self.loss(self.value + displacement))


def wavy(x: Array) -> float:
    """A smooth loss in which every entry matters."""
    return float(np.sum(np.sin(x) + 0.1 * x**2) + 0.01 * np.sum(x) ** 2)


def slopes_of_wavy(x: Array) -> Array:
    """The gradient of `wavy`."""
    return np.cos(x) + 0.2 * x + 0.02 * np.sum(x)


def target_of(
    shape: tuple[int, ...] = (5, 4),
    error: Array | None = None,
    loss: Callable[[Array], float] = wavy,
    slopes: Callable[[Array], Array] = slopes_of_wavy,
    seed: int = 0,
) -> Target:
    """A variable with a gradient that is off by `error`."""
    value = np.random.default_rng(seed).normal(size=shape)
    displaced = Counted(loss, value)
    gradient = slopes(value) + (0.0 if error is None else error)
    loudest = float(np.linalg.norm(gradient))
    at_zero = displaced(np.zeros(shape))
    displaced.count = 0
    return Target(
        displaced,
        value,
        gradient,
        stream=f"variable {seed}",
        at_zero=at_zero,
        resolution=1e-6,
        loudest=loudest,
        arithmetic=Arithmetic(1e-13),
    )


def exact_score(target: Target) -> float:
    """The similarity score with the true gradient."""
    true = slopes_of_wavy(target.value)
    assert target.gradient is not None
    gap = np.linalg.norm(true - target.gradient)
    return float(gap / (np.linalg.norm(true) + np.linalg.norm(target.gradient)))


def evaluations(target: Target) -> int:
    """How often the loss was evaluated."""
    assert isinstance(target.displaced, Counted)
    return target.displaced.count


def every_coordinate(target: Target, epsilon: float | None = None) -> Measurement:
    """All entries, and the number of them that was told to the progress."""
    done: list[int] = []
    measurement = measure_every_coordinate(target, epsilon, done.append)
    assert sum(done) == target.value.size
    return measurement


# -- directions ------------------------------------------------------------------------------


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), shape=st.sampled_from([(1,), (7,), (5, 4), (3, 2, 2, 4), ()]))
def test_a_right_gradient_scores_next_to_nothing(seed: int, shape: tuple[int, ...]) -> None:
    """A right gradient's score is far below the bands, and so is its bar."""
    measurement = measure_directions(target_of(shape, seed=seed), 4, None, 0)
    assert measurement.score < 1e-7
    assert measurement.score_bar < 1e-5


@pytest.mark.parametrize("size", [1e-4, 1e-2, 1.0, 30.0])
def test_directions_estimate_the_score(size: float) -> None:
    """Over many directions the score estimated is the exact one of all entries."""
    target = target_of((30, 20), size * RNG.normal(size=(30, 20)))
    measurement = measure_directions(target, 200, None, 0)
    assert measurement.score == pytest.approx(exact_score(target), rel=0.3)
    assert measurement.analytic_norm == pytest.approx(target.norm)
    assert measurement.score_bar < 0.01 * measurement.score


@pytest.mark.parametrize("size", [1e-4, 1e-2])
def test_four_directions_are_enough_to_see(size: float) -> None:
    """With the default number of directions no wrong gradient of some size is missed."""
    for seed in range(20):
        error = size * np.random.default_rng(seed).normal(size=(30, 20))
        target = target_of((30, 20), error, seed=seed)
        measurement = measure_directions(target, 4, None, 0)
        assert exact_score(target) / 5 < measurement.score < 5 * exact_score(target)


def test_one_wrong_entry_of_many_is_seen() -> None:
    """A single wrong entry among 100,000 shows in the score of a few directions."""
    for index in range(5):
        error = np.zeros(100_000)
        error[999 * index] = 300.0
        target = target_of((100_000,), error, seed=index)
        measurement = measure_directions(target, 4, None, 0)
        assert measurement.score > 0.05
        assert measurement.score > 100 * measurement.score_bar


def test_the_norm_follows_from_the_lines() -> None:
    """The measured norm is the tape's, corrected by what the lines show."""
    target = target_of()
    assert target.gradient is not None
    doubled = Target(**{**vars(target), "gradient": 2 * target.gradient})
    right = measure_directions(target, 50, None, 0)
    wrong = measure_directions(doubled, 50, None, 0)
    true = float(np.linalg.norm(slopes_of_wavy(target.value)))
    assert right.numerical_norm == pytest.approx(true, rel=1e-6)
    assert wrong.numerical_norm == pytest.approx(true, rel=0.8)
    assert wrong.score == pytest.approx(1 / 3, rel=1e-3)


def test_a_fixed_step_is_used_as_it_is() -> None:
    """With `epsilon` no step is searched for: six evaluations a direction, all within the step."""
    reached: list[float] = []
    target = target_of()

    def displaced(displacement: Array) -> float:
        reached.append(float(np.max(np.abs(displacement))))
        return wavy(target.value + displacement)

    fixed = Target(**{**vars(target), "displaced": displaced})
    measurement = measure_directions(fixed, 3, 1e-6, 0)
    assert len(reached) == 18
    assert max(reached) < 1e-5
    assert measurement.score < 1e-6


def test_measuring_is_repeatable() -> None:
    """The same seed measures the same numbers, another seed others."""
    numbers = [
        measure_directions(target_of(error=0.1), 4, None, seed).gap_square for seed in (0, 0, 1)
    ]
    assert numbers[0] == numbers[1] != numbers[2]


def test_directions_are_cheap() -> None:
    """A right gradient costs a few evaluations, however many entries the variable has."""
    target = target_of((1000, 10))
    measure_directions(target, 4, None, 0)
    assert evaluations(target) <= 40


# -- entries ---------------------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", [None, 1e-7, 1e-4])
def test_every_entry_right(epsilon: float | None) -> None:
    """Perturbing every entry of a right gradient gives a score within the bands."""
    measurement = every_coordinate(target_of(), epsilon)
    assert measurement.score < (1e-8 if epsilon is None else 1e-6)


@pytest.mark.parametrize("epsilon", [None, 1e-7])
def test_every_entry_gives_the_exact_score(epsilon: float | None) -> None:
    """Entry by entry the score is the exact one, and so are the norms."""
    target = target_of(error=0.05 * RNG.normal(size=(5, 4)))
    measurement = every_coordinate(target, epsilon)
    assert measurement.score == pytest.approx(exact_score(target), rel=1e-4)
    true = float(np.linalg.norm(slopes_of_wavy(target.value)))
    assert measurement.numerical_norm == pytest.approx(true, rel=1e-4)
    assert measurement.analytic_norm == pytest.approx(target.norm)
    assert measurement.lines


def at_once(target: Target, spoil: Callable[[Array, Array], Array]) -> tuple[Target, list[int]]:
    """The target with a way to perturb several entries at once, and how many it was asked for."""
    plain = one_by_one(target.displaced, target.value.shape).losses
    asked: list[int] = []

    def losses(index: Indices, change: Array) -> Array:
        asked.append(len(index))
        return spoil(plain(index, change), change)

    return replace(target, entries=Entries(losses, 8)), asked


def test_entries_at_once_measure_the_same() -> None:
    """Chunks of entries, the last of them shorter, give what a sweep one by one gives."""
    error = np.zeros((5, 5))
    error[2, 3] = 0.5
    target, asked = at_once(target_of((5, 5), error), lambda losses, _: losses)
    assert every_coordinate(target) == every_coordinate(target_of((5, 5), error))
    assert asked[-7:] == [8, 8, 8, 8, 8, 8, 2]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda losses, change: losses + 1e-3 * np.sign(change),  # another function
        lambda losses, _: np.full(losses.size, losses[0]),  # one that ignores what is perturbed
        lambda losses, _: np.full(losses.size, np.nan),  # one that refuses everything
    ],
)
def test_entries_at_once_are_not_believed_where_they_are_wrong(spoil: Any) -> None:
    """Where a trial shows another loss than one by one, the sweep is made one by one."""
    target, asked = at_once(target_of((5, 5)), spoil)
    assert every_coordinate(target) == every_coordinate(target_of((5, 5)))
    assert len(asked) == 1


def test_entries_that_are_refused_at_once_are_perturbed_one_by_one() -> None:
    """A chunk with a point that an operation refuses costs no other entry its derivative."""

    def refused(losses: Array, change: Array) -> Array:
        return np.full(losses.size, np.nan) if abs(change[0]) < 0.01 else losses

    target, asked = at_once(target_of((5, 5)), refused)
    assert every_coordinate(target) == every_coordinate(target_of((5, 5)))
    assert len(asked) == 8


def test_a_single_entry() -> None:
    """One entry is measured within its bar, with the tape's value beside it."""
    target = target_of(error=0.5)
    for index in ((0, 0), (4, 3), (2, 1)):
        line = measure_coordinate(target, index)
        true = slopes_of_wavy(target.value)[index] * target.scale
        assert abs(line.slope.value - true) <= line.slope.error_bar < 1e-6
        assert line.analytic == pytest.approx(true + 0.5 * target.scale)
        assert line.deviates


def test_loudest_entries() -> None:
    """The entries with the largest magnitude come first, as indices."""
    gradient = np.array([[1.0, -9.0, 0.0], [3.0, 0.5, -2.0]])
    assert loudest_entries(gradient, 3) == [(0, 1), (1, 0), (1, 2)]
    assert len(loudest_entries(gradient, 99)) == 6


@pytest.mark.parametrize(
    ("loss", "dependent"),
    [
        (lambda _x: 3.0, False),
        (lambda x: float(np.sum(np.round(3 * x))), True),
        (lambda x: float(np.argmax(x)), True),
        (lambda x: float(np.sum(x)), True),
    ],
)
def test_dependence(loss: Callable[[Array], float], dependent: bool) -> None:
    """A loss that changes only in leaps depends on its variable; a constant one does not."""
    target = target_of(loss=loss, slopes=np.zeros_like)
    assert depends(target, seed=0) is dependent


# -- bisection -------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [0, 31_415, 99_999])
def test_bisection_finds_one_of_many(where: int) -> None:
    """One wrong entry among 100,000 is found with some dozens of evaluations."""
    error = np.zeros((1000, 100))
    error.flat[where] = 2.0
    target = target_of((1000, 100), error)
    (first, *others) = suspicious_entries(target, 1)
    assert first == (where // 100, where % 100)
    assert others == []
    assert evaluations(target) <= 60


def test_bisection_finds_one_of_a_million() -> None:
    """One wrong entry among 10⁶ takes about 2·log₂(n) = 40 evaluations."""
    where = 654_321
    error = np.zeros(1_000_000)
    error[where] = 2.0
    weights = np.random.default_rng(2).normal(size=1_000_000)
    target = target_of(
        (1_000_000,), error, loss=lambda x: float(weights @ x), slopes=lambda _x: weights
    )
    assert wrong_entries(target, 1) == [where]
    assert evaluations(target) <= 2 * 20 + 4


def test_bisection_stops_when_all_are_found() -> None:
    """K wrong entries are all that is found, with about 2·k·log₂(n) evaluations."""
    wrong = {70: 3.0, 4_000: -2.0, 4_001: 4.0, 9_999: 2.5}
    error = np.zeros(10_000)
    error[list(wrong)] = list(wrong.values())
    target = target_of((10_000,), error)
    assert set(wrong_entries(target, 12)) == set(wrong)
    assert evaluations(target) <= 2 * len(wrong) * 14 + 4


def test_bisection_finds_several() -> None:
    """Of two wrong entries both are among the suspicious ones, which are all different."""
    error = np.zeros((50, 40))
    error[3, 7], error[44, 1] = 2.0, -3.0
    found = suspicious_entries(target_of((50, 40), error), 5)
    assert {(3, 7), (44, 1)} <= set(found[:2])
    assert len(found) == len(set(found)) == 5


def test_small_variables_are_listed_whole() -> None:
    """Where there are no more entries than wanted, all are given."""
    assert suspicious_entries(target_of((2, 2)), 5) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert suspicious_entries(target_of(()), 5) == [()]


def test_bisection_without_a_gradient() -> None:
    """Where the tape gave none, the entries that the loss depends on are found."""
    weights = np.zeros(500)
    weights[321] = 1.0
    target = target_of((500,), loss=lambda x: float(weights @ x), slopes=np.zeros_like)
    missing = Target(**{**vars(target), "gradient": None})
    assert suspicious_entries(missing, 2)[0] == (321,)


# -- measurements ----------------------------------------------------------------------------


def test_two_zeros_score_zero() -> None:
    """Gradients that are both zero have the score zero, and an unknown one has none."""
    zeros = Measurement((), 0.0, 0.0, 0.0, 0.0, 0.0)
    unknown = Measurement((), math.nan, math.nan, 1.0, 1.0, 1.0)
    assert zeros.score == 0.0
    assert math.isnan(unknown.score)


@given(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6))
def test_the_score_is_between_zero_and_one(numerical: float, analytic: float) -> None:
    """The score of two parallel gradients is their difference over their sum."""
    gap = abs(numerical - analytic)
    measurement = Measurement((), gap**2, numerical**2, analytic**2, 0.0, analytic)
    assert measurement.score == pytest.approx(gap / (numerical + analytic))
    assert 0 <= measurement.score <= 1
