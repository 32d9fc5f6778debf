"""What a step computes itself and its tapes take for constant: told by layer, variable and line."""

from __future__ import annotations

from collections.abc import Iterator

from tfcheck.errors import some
from tfcheck.graph.division import LOSS, OUTSIDE
from tfcheck.objective.objective import Objective
from tfcheck.trace.source_lines import described, place_of


def notes_on_held(objective: Objective) -> list[str]:
    """Say what the losses of a step use as a constant, though it is computed within the step.

    Args:
        objective: the step.
    """
    notes = []
    if constants := list(dict.fromkeys(_constants(objective))):
        notes.append(
            "What the step computes while its tape does not record counts as constant, and was "
            f"held fixed: {some(constants)}."
        )
    if assigned := list(dict.fromkeys(_assigned(objective))):
        notes.append(
            "What the step assigns to a variable counts as constant from there on, and was held "
            f"fixed: {some(assigned)}."
        )
    return notes


def _constants(objective: Objective) -> Iterator[str]:
    """What tapes take for constant: the layer that makes it, and the line."""
    for loss, tensors in enumerate(objective.facts.constants):
        call = objective.traced.call(loss)
        for tensor in tensors:
            division = None if call is None else call.division
            unit = "" if division is None else division.path_of(tensor.op)
            name = described(tensor.op)
            in_a_layer = unit not in ("", OUTSIDE, LOSS)
            yield name.replace(f"`{tensor.op.type}`", unit) if in_a_layer else name


def _assigned(objective: Objective) -> Iterator[str]:
    """What the step assigns and a loss uses: the variable, and the line that assigns it."""
    for operation in objective.traced.assignments:
        if not operation.inputs[1].dtype.is_floating:
            continue  # counters, and the states of random generators
        place = place_of(operation)
        variable = objective.traced.variable_behind(operation.inputs[0])
        yield f"{variable} at {place.quoted}" if place else variable
