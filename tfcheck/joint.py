"""Measuring many variables at once: a direction in all of them costs what one in a single one does.

Along a joint direction the gaps of all variables add up. Variables are weighted so that each
contributes alike, and where the sum of the tape's slopes agrees with the measured one, each of
them does: a wrong gradient would stand out, since random directions do not conspire. What the
joint gap would be if a single variable made it is taken for each, so scores are upper bounds.
Only agreement is concluded jointly; everything else is measured variable by variable.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tfcheck.around import MANY
from tfcheck.differences import Along
from tfcheck.directions import Array, norm, representable
from tfcheck.lines import Direction, Factors, slope_along
from tfcheck.measure import Measurement, measure_directions
from tfcheck.objective import Objective
from tfcheck.point import Base, Parameter
from tfcheck.report import Settings
from tfcheck.target import Arithmetic, Movable

JOINT_FROM = MANY
"""With more variables than this, they are screened jointly first."""

_LARGEST_WEIGHT = 64.0
_SILENT = 1e-12


@dataclass(frozen=True)
class Member:
    """A variable that takes part.

    Attributes:
        position: its position among the objective's parameters.
        parameter: the variable.
        gradient: the tape's gradient.
        scale: size of a natural change of the variable.
    """

    position: int
    parameter: Parameter
    gradient: Array
    scale: float

    @cached_property
    def norm(self) -> float:
        """‖g‖."""
        return norm(self.gradient)

    @property
    def loudness(self) -> float:
        """How much a natural change of the variable changes the loss."""
        return self.scale * self.norm


@dataclass(frozen=True)
class Joined:
    """What the measurement of its group says of one variable.

    Attributes:
        position: the variable's position among the objective's parameters.
        measurement: what would have been measured if all of the group's gap were its own.
        step: the step that suited the group, relative to the variable's scale.
    """

    position: int
    measurement: Measurement
    step: float


def measure_jointly(
    members: Sequence[Member],
    measure: Callable[[str, Sequence[Member]], list[Joined]],
    disagrees: Callable[[Joined], bool],
    *,
    loudest: float,
) -> Iterator[Joined]:
    """Measure variables of one loss in groups of similar loudness.

    A group that disagrees is halved, in the order of the model, as long as that tells halves that
    agree from halves that do not.

    Args:
        members: the variables, all of one loss.
        measure: measures a group, under a name that seeds its directions.
        disagrees: whether a variable's measurement accuses it.
        loudest: the largest scaled gradient norm among the variables of the loss.

    Yields:
        For each variable what the last measurement of it says.
    """

    def halved(name: str, group: Sequence[Member], found: list[Joined], row: int) -> list[Joined]:
        if len(group) < _SMALLEST_SPLIT or row >= _FUTILE or not any(map(disagrees, found)):
            return found
        ordered = sorted(group, key=lambda member: member.position)
        middle = len(ordered) // 2
        halves = [(f"{name}.0", ordered[:middle]), (f"{name}.1", ordered[middle:])]
        measured = [measure(*half) for half in halves]
        futile = all(any(map(disagrees, joined)) for joined in measured)
        return [
            joined
            for half, of_half in zip(halves, measured, strict=True)
            for joined in halved(*half, of_half, row + 1 if futile else 0)
        ]

    for number, group in enumerate(_groups(members, loudest)):
        name = f"joint {number}"
        yield from halved(name, group, measure(name, group), 0)


_SMALLEST_SPLIT = 8
_FUTILE = 2
"""After so many halvings in a row that told nothing apart, the variables are measured singly."""


def measure_group(
    objective: Objective,
    base: Base,
    group: Sequence[Member],
    settings: Settings,
    *,
    name: str,
    loudest: float,
    arithmetic: Arithmetic,
) -> list[Joined]:
    """Measure variables of one loss along directions in all of them at once.

    Args:
        objective: the objective.
        base: the point.
        group: the variables.
        settings: the options of the check.
        name: seeds the directions.
        loudest: the largest scaled gradient norm among the variables of the loss.
        arithmetic: what is known of the loss's noise and rounding.
    """
    largest = max(member.loudness for member in group)
    weights = [
        min(_LARGEST_WEIGHT, largest / member.loudness) if member.loudness else 1.0
        for member in group
    ]
    # Powers of two, so that what is exact in these units is exact in the variables' own.
    units = [
        2.0 ** round(math.log2(weight * member.scale))
        for weight, member in zip(weights, group, strict=True)
    ]
    target = _Together(
        stream=name,
        at_zero=base.losses[group[0].parameter.loss],
        resolution=settings.thresholds.okay / 30 / math.sqrt(len(group)),
        loudest=loudest,
        arithmetic=arithmetic,
        start=objective.first_step,
        objective=objective,
        base=base,
        members=tuple(zip(group, units, strict=True)),
    )
    joint = measure_directions(target, settings.directions, None, settings.seed, brief=True)
    found = []
    for member, unit in zip(group, units, strict=True):
        measurement = Measurement(
            lines=(),
            gap_square=joint.gap_square / unit**2,
            numerical_square=member.norm**2,
            analytic_square=member.norm**2,
            bar_square=joint.bar_square / unit**2,
            analytic_norm=member.norm,
        )
        step = joint.lines[0].slope.step * unit / member.scale
        found.append(Joined(member.position, measurement, step))
    return found


@dataclass(frozen=True)
class _Together(Movable):
    """Variables of one loss that are measured as one; its other attributes are `Movable`'s.

    Attributes:
        objective: the objective.
        base: the point.
        members: the variables, with how far each moves where a direction is 1.
    """

    objective: Objective
    base: Base
    members: tuple[tuple[Member, float], ...]

    @property
    def scale(self) -> float:
        """One: directions have the scale of each variable."""
        return 1.0

    @property
    def norm(self) -> float:
        """The norm of all gradients together, in the units of the variables."""
        return math.hypot(*(member.norm * unit for member, unit in self.members))

    def drawn(self, rng: np.random.Generator) -> dict[Parameter, Direction]:
        """A random direction in all of them."""
        moves = ((member.parameter, unit) for member, unit in self.members)
        return self.objective.around.drawn(rng, moves)

    def along(
        self, direction: dict[Parameter, Direction], smallest_step: float
    ) -> tuple[float, Along]:
        """The tape's slope along a direction, and the loss, where `smallest_step` is exact."""
        exact: dict[Parameter, Direction] = {}
        analytic = []
        for member, _ in self.members:
            move = direction[member.parameter]
            if not isinstance(move, Factors):
                value = self.objective.value(self.base, member.parameter)
                move = representable(move, value, smallest_step, self.objective.bits)
            analytic.append(slope_along(move, member.gradient))
            exact[member.parameter] = move
        return math.fsum(analytic), Along(self.objective.around.line(self.base, exact))


def _groups(members: Sequence[Member], loudest: float) -> Iterator[list[Member]]:
    """Groups in which the loudest and the quietest are within the largest weight of each other."""
    heard = [member for member in members if member.loudness > _SILENT * loudest]
    silent = [member for member in members if member.loudness <= _SILENT * loudest]
    group: list[Member] = []
    for member in sorted(heard, key=lambda member: member.loudness, reverse=True):
        if group and member.loudness * _LARGEST_WEIGHT < group[0].loudness:
            yield group
            group = []
        group.append(member)
    if group:
        yield group
    if silent:
        yield sorted(silent, key=lambda member: member.loudness, reverse=True)
