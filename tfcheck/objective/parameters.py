"""What the tapes of a step differentiate for, found where its values are in a point."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tfcheck.internals import live_variable
from tfcheck.objective.float64_step import Float64Step
from tfcheck.objective.point import Parameter
from tfcheck.objective.step_inputs import StepInputs
from tfcheck.objective.traced_losses import TracedLosses
from tfcheck.trace.recording import TapeCall
from tfcheck.variables import is_variable, unique_paths


def parameters_of_graph(
    step: Float64Step, inputs: StepInputs, losses: TracedLosses
) -> Iterator[Parameter]:
    """The parameters of a traced step, in the order of its tapes' calls.

    Args:
        step: the step in float64.
        inputs: what goes into it.
        losses: its losses.
    """
    paths = unique_paths(variables_of(losses.calls))
    for loss, call in enumerate(losses.calls):
        for number, source in enumerate(call.sources):
            if is_variable(source):
                positions = step.feeds.of_variable(inputs.holding(source))
                path = paths[id(source)]
            else:
                positions = (step.feeds.of_tensor(source),)
                path = call.names[number] if call.names else source.name
            yield Parameter(
                source,
                path,
                loss,
                positions,
                number,
                held_by=tuple(step.feeds.tensors[position].name for position in positions),
                total=step.name_of(call.gradients[number]),
            )


def parameters_of_run(
    calls: Sequence[TapeCall], moved: Sequence[Any], floats: Sequence[int], count: int
) -> Iterator[Parameter]:
    """The parameters of a step that is run: variables, or for a layer its float inputs.

    Args:
        calls: the calls of its tapes, in one run.
        moved: the variables that are moved; in a point they follow the batch.
        floats: the positions of the float tensors of the batch.
        count: how many tensors the batch has.
    """
    paths = unique_paths(variables_of(calls))
    position_of = {id(variable): count + number for number, variable in enumerate(moved)}
    for loss, call in enumerate(calls):
        inputs = iter(floats)
        for number, source in enumerate(call.sources):
            if is_variable(source):
                position, path = position_of[id(live_variable(source))], paths[id(source)]
            else:
                position, path = next(inputs), call.names[number]
            alike = len(calls) > 1
            yield Parameter(source, path, loss, (position,), number, moves_alike=alike)


def variables_of(calls: Sequence[TapeCall]) -> list[Any]:
    """The variables that tapes differentiate for, in the order of their calls."""
    return [source for call in calls for source in call.sources if is_variable(source)]
