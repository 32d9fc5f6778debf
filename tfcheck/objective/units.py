"""The units of each loss by themselves, where they can be told apart in the float64 graph."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tfcheck.objective.float64_step import Float64Step
from tfcheck.objective.point import Parameter
from tfcheck.objective.traced_losses import TracedLosses
from tfcheck.units.apart import Apart
from tfcheck.units.sources import Leaves, UndividedError


def told_apart(
    step: Float64Step, losses: TracedLosses, parameters: Sequence[Parameter]
) -> list[Apart | None]:
    """For each loss its units by themselves; None where they cannot be told apart.

    Args:
        step: the step in float64.
        losses: its losses.
        parameters: what they are differentiated for.
    """
    found: list[Apart | None] = []
    for loss, (call, constants) in enumerate(zip(losses.calls, losses.constants, strict=True)):
        own = [parameter for parameter in parameters if parameter.loss == loss]
        try:
            found.append(Apart(call, step.promoted, _leaves(step, own, constants)))
        except UndividedError:
            found.append(None)
    return found


def _leaves(
    step: Float64Step, parameters: Sequence[Parameter], constants: Sequence[tf.Tensor]
) -> Leaves:
    """What a loss is differentiated for, complex numbers aside, and what it takes for constant."""
    totals: dict[str, str | None] = {}
    variables: dict[str, int | None] = {}
    for parameter in parameters:
        if not tf.as_dtype(parameter.variable.dtype).is_complex:
            which = None if parameter.within else id(parameter.variable)
            totals |= dict.fromkeys(parameter.held_by, parameter.total)
            variables |= dict.fromkeys(parameter.held_by, which)
    fixed = {step.promoted.names[tensor.name] for tensor in constants}
    fixed |= {cut.tensor for cut in step.pure.cuts} - totals.keys()
    return Leaves(totals, variables, frozenset(fixed))
