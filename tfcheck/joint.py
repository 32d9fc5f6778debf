"""Measuring many variables at once: a direction in all of them costs what one in a single one does.

Along a joint direction the gaps of all variables add up. Variables are weighted so that each
contributes alike, and where the sum of the tape's slopes agrees with the measured one, each of
them does: a wrong gradient would stand out, since random directions do not conspire. What the
joint gap would be if a single variable made it is taken for each, so scores are upper bounds.
Only agreement is concluded jointly; everything else is measured variable by variable.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tfcheck.directions import Array
from tfcheck.measure import Measurement, Target, measure_directions
from tfcheck.objective import Base, Objective, Parameter
from tfcheck.report import Settings

JOINT_FROM = 32
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

    @property
    def loudness(self) -> float:
        """How much a natural change of the variable changes the loss."""
        return self.scale * float(np.linalg.norm(self.gradient))


def measure_jointly(
    objective: Objective,
    base: Base,
    members: Sequence[Member],
    settings: Settings,
    *,
    loudest: float,
    noise: float,
    rounding: float,
    tape_rounding: float,
) -> Iterator[tuple[int, Measurement, float]]:
    """Measure variables of one loss in groups of similar loudness.

    Args:
        objective: the objective.
        base: the point.
        members: the variables, all of one loss.
        settings: the options of the check.
        loudest: the largest scaled gradient norm among the variables of the loss.
        noise: the loss's noise when everything moves.
        rounding: how far the tape's own rounding may move a slope.
        tape_rounding: the same, relative to the size the loss has far from here.

    Yields:
        For each variable its position, what the measurement of its group says of it, and the step
        that suited the group, relative to the variable's scale.
    """
    for number, group in enumerate(_groups(members, loudest)):
        largest = group[0].loudness
        weights = [
            min(_LARGEST_WEIGHT, largest / member.loudness) if member.loudness else 1.0
            for member in group
        ]
        # Powers of two, so that what is exact in these units is exact in the variables' own.
        units = [
            2.0 ** round(math.log2(weight * member.scale))
            for weight, member in zip(weights, group, strict=True)
        ]
        gradient = np.concatenate(
            [unit * member.gradient.ravel() for unit, member in zip(units, group, strict=True)]
        )
        loss = group[0].parameter.loss
        target = Target(
            path=f"joint {number}",
            displaced=objective.along_many(base, [m.parameter for m in group], units),
            value=np.concatenate(
                [
                    objective.value(base, member.parameter).ravel() / unit
                    for unit, member in zip(units, group, strict=True)
                ]
            ),
            gradient=gradient,
            at_zero=base.losses[loss],
            resolution=settings.thresholds.okay / 30 / math.sqrt(len(group)),
            loudest=loudest,
            noise=noise,
            rounding=rounding,
            tape_rounding=tape_rounding,
            bits=objective.bits,
            start=objective.first_step,
            unit=1.0,
        )
        joint = measure_directions(target, settings.directions, None, settings.seed)
        for member, unit in zip(group, units, strict=True):
            norm = float(np.linalg.norm(member.gradient))
            yield (
                member.position,
                Measurement(
                    lines=(),
                    gap_square=joint.gap_square / unit**2,
                    numerical_square=norm**2,
                    analytic_square=norm**2,
                    bar_square=joint.bar_square / unit**2,
                    analytic_norm=norm,
                ),
                joint.lines[0].slope.step * unit / member.scale,
            )


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
