"""All variables of a loss at once: whether what was found of each composes to the loss's slopes.

Random directions in everything do not conspire: where the loss's slopes along a few of them are
what the gradients of all variables together say, the gradients are the loss's. Variables are
weighted so that each is heard.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tfcheck.evaluate.around import Around
from tfcheck.judge.judgement import settled
from tfcheck.measure.differences import Along
from tfcheck.measure.directions import Array, balanced, generator, norm, representable
from tfcheck.measure.lines import Direction, Factors, slope_along
from tfcheck.measure.target import Arithmetic, Line, Movable
from tfcheck.objective.point import Base, Parameter
from tfcheck.settings import Settings

_DIRECTIONS = 2


@dataclass(frozen=True)
class Member:
    """A variable that takes part.

    Attributes:
        gradient: its gradient.
        scale: size of a natural change of it.
    """

    gradient: Array
    scale: float

    @property
    def loudness(self) -> float:
        """How much a natural change of the variable changes the loss."""
        return self.scale * norm(self.gradient)


def disagrees(
    around: Around,
    base: Base,
    members: Mapping[Parameter, Member],
    settings: Settings,
    arithmetic: Arithmetic,
) -> bool:
    """Whether the loss's slopes along directions in everything are surely not the gradients'.

    Args:
        around: the losses around the point.
        base: the point.
        members: the variables of one loss, each with its gradient.
        settings: the options of the check.
        arithmetic: what is known of the loss's rounding.
    """
    loudest = max((member.loudness for member in members.values()), default=0.0)
    if not loudest:
        return False
    units = balanced(
        [member.loudness for member in members.values()],
        [member.scale for member in members.values()],
    )
    (loss,) = {parameter.loss for parameter in members}
    everything = _Everything(
        stream=f"composed {loss}",
        at_zero=base.losses[loss],
        resolution=settings.thresholds.concerning / 10,
        loudest=loudest,
        arithmetic=arithmetic,
        start=around.objective.facts.first_step,
        around=around,
        base=base,
        members=members,
        units=dict(zip(members, units, strict=True)),
    )
    rng = generator(settings.seed, everything.stream)
    for direction in (everything.drawn(rng) for _ in range(_DIRECTIONS)):
        if not everything.agrees(direction):
            return _surely_off(everything, direction)
    return False


def _surely_off(everything: _Everything, direction: dict[Parameter, Direction]) -> bool:
    """Whether the slope along a direction is off, by more than its bar and not by kinks.

    Few steps are tried: where the loss is chaotic or full of kinks, no step would tell.
    """
    first = everything.first_step(everything.norm)
    lines = []
    for step in (first / part for part in _STEPS):
        analytic, slope = everything.slope_at(direction, step)
        line = Line(analytic, slope, abs(slope.value - analytic), slope.smooth)
        if not (line.plainly_off and settled(line)) or slope.has_kink:
            return False
        lines.append(line)
    gaps = [line.slope.value - line.analytic for line in lines]
    bars = [line.slope.error_bar for line in lines]
    return abs(gaps[-1] - gaps[-2]) <= sum(bars[-2:])


_STEPS = (1.0, 64.0, 4096.0)
_SHORT = 2.0**-26
_CLOSE = 1e-6
"""A gap of so small a part of the gradient is none, whatever the error bar of a difference."""


@dataclass(frozen=True)
class _Everything(Movable):
    """Variables of one loss that move together; its other attributes are `Movable`'s.

    Attributes:
        around: the losses around the point.
        base: the point.
        members: the variables.
        units: how far each moves where a direction is 1.
    """

    around: Around
    base: Base
    members: Mapping[Parameter, Member]
    units: Mapping[Parameter, float]

    @property
    def scale(self) -> float:
        """One: directions have the scale of each variable."""
        return 1.0

    @cached_property
    def norm(self) -> float:
        """The norm of all gradients together, in the units of the variables."""
        return math.hypot(*(norm(m.gradient) * self.units[p] for p, m in self.members.items()))

    def drawn(self, rng: np.random.Generator) -> dict[Parameter, Direction]:
        """A random direction in all of them."""
        return self.around.drawn(rng, self.units.items())

    def agrees(self, direction: dict[Parameter, Direction]) -> bool:
        """Whether one difference along a direction, over a short step, is what gradients say."""
        step = _SHORT if self.start is None else self.start / 4
        analytic, phi = self.along(direction, step)
        ahead, behind = phi.at([step, -step])
        return abs((ahead - behind) / (2 * step) - analytic) <= _CLOSE * self.norm

    def along(
        self, direction: dict[Parameter, Direction], smallest_step: float
    ) -> tuple[float, Along]:
        """The slope that the gradients say, and the loss, where `smallest_step` is exact."""
        exact: dict[Parameter, Direction] = {}
        for parameter, move in direction.items():
            exact[parameter] = (
                move
                if isinstance(move, Factors)
                else representable(
                    move,
                    self.around.objective.value(self.base, parameter),
                    smallest_step,
                    self.around.objective.facts.bits,
                )
            )
        slope = math.fsum(
            slope_along(move, self.members[parameter].gradient) for parameter, move in exact.items()
        )
        return slope, Along(self.around.line(self.base, exact))
