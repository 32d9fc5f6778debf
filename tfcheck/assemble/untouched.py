"""What of a model no tape differentiates: frozen, missed, overwritten, or no weight of it."""

from __future__ import annotations

import keras

from tfcheck.errors import some
from tfcheck.examine.unasked import differentiated
from tfcheck.objective.objective import Objective
from tfcheck.variables import is_overwritten, unique_paths


def frozen_paths(model: keras.Model) -> tuple[str, ...]:
    """The paths of a model's variables that are not trainable, counters and seeds aside."""
    return tuple(
        variable.path
        for variable in model.non_trainable_variables
        if keras.backend.is_float_dtype(variable.dtype)
    )


def untouched_notes(model: keras.Model, objective: Objective) -> tuple[str, ...]:
    """Say which trainable variables no tape differentiates, and which are no weights at all."""
    seen = differentiated(objective)
    paths = unique_paths([*seen, *model.trainable_variables])
    told = {id(variable) for variable in (*seen, *objective.facts.left_out)}
    unseen = [variable for variable in model.trainable_variables if id(variable) not in told]
    missed = [paths[id(variable)] for variable in unseen if not is_overwritten(variable)]
    overwritten = [paths[id(variable)] for variable in unseen if is_overwritten(variable)]
    foreign = [found.name for found in objective.facts.untracked if not found.layer]
    notes = []
    if missed:
        notes.append(f"No tape differentiates {len(missed)} trainable variable(s): {some(missed)}.")
    if overwritten:
        notes.append(
            f"Keras overwrites {len(overwritten)} variable(s) with what the tape gives for them, "
            f"which is no gradient: {some(overwritten)}."
        )
    if foreign:
        notes.append(
            f"The loss reads {len(foreign)} variable(s) that are no weights of the model, so that "
            f"they are not trained: {some(foreign)}. Where they should be, create them with "
            "add_weight, or keep their layer in an attribute."
        )
    return tuple(notes)
