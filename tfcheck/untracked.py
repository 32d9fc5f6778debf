"""Weights that nobody tracks: a step computes with them, and Keras neither lists nor trains them.

A layer that a lambda captures, layers in a plain object, variables in a list: the traced graph
knows them all. In one of the model's layers they were meant to be weights of it; in the loss alone
they may be those of a network that judges, and is not trained.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras

from tfcheck.internals import live_variable
from tfcheck.listening import Recording
from tfcheck.places import place_of
from tfcheck.snapshot import Snapshot
from tfcheck.tracing import TracedStep


@dataclass(frozen=True)
class Untracked:
    """A variable that is no weight of the model, though a loss has a gradient for it.

    Attributes:
        name: its path, as far as Keras knows one.
        shape: its shape.
        layer: path of the model's layer that uses it; `""` where none does.
        place: the line that uses it; None where that is unknown.
    """

    name: str
    shape: tuple[int, ...]
    layer: str = ""
    place: Any = None


def untracked_by(recording: Recording) -> tuple[Untracked, ...]:
    """The untracked variables that the tapes of a step reach, wherever they are used.

    Args:
        recording: what was heard of the step.
    """
    return tuple(_untracked(variable, known) for variable, known in _reached(recording))


def untracked_in(traced: TracedStep, assigned: set[str]) -> tuple[Untracked, ...]:
    """The untracked variables that the tapes of a traced step reach, with where they are used.

    Those that a layer uses and that are frozen are left out: they are as they are meant to be.

    Args:
        traced: the step.
        assigned: names of the placeholders of variables that the step assigns to, which are state.
    """
    placeholder_of = {id(outside): p.op.name for outside, p in traced.captures}
    reached = [
        (variable, known, placeholder_of.get(id(live_variable(variable).handle), ""))
        for variable, known in _reached(traced.recording)
    ]
    users = _users(traced, {name for _, _, name in reached} - assigned) if reached else {}
    found = []
    for variable, known, name in reached:
        layer, place = users.get(name, ("", None))
        frozen = known is not None and not known.trainable
        if name not in assigned and not (layer and frozen):
            found.append(_untracked(variable, known, layer, place))
    return tuple(found)


def _untracked(
    variable: Any, known: keras.Variable | None, layer: str = "", place: Any = None
) -> Untracked:
    name = variable.name.split(":")[0] if known is None else known.path
    return Untracked(name, tuple(variable.shape), layer, place)


def _users(traced: TracedStep, names: set[str]) -> dict[str, tuple[str, Any]]:
    """For each placeholder of a variable, the model's layer that uses it first, and the line."""
    calls = [c for c in traced.recording.calls if c.tracked]
    found: dict[str, tuple[str, Any]] = {}
    for position, operation in enumerate(traced.function.graph.get_operations()):
        for name in names.intersection(tensor.op.name for tensor in operation.inputs):
            within = [c.path for c in calls if c.start <= position < (c.end or position + 1)]
            if name not in found or (within and not found[name][0]):
                found[name] = (within[-1] if within else "", place_of(operation))
    return found


def _reached(recording: Recording) -> Iterator[tuple[Any, keras.Variable | None]]:
    """The untracked variables that are reached, each with the Keras variable that it is behind."""
    tracked = {id(variable) for variable in recording.known.values()}
    used = {id(source) for call in recording.tape_calls for source in call.sources}
    used |= {id(applied.variable) for applied in recording.applied}
    found = [v for key, v in recording.reached.items() if key not in tracked | used]
    if not found:
        return
    # Keras tells nobody which of its variables a `tf.Variable` is behind.
    reachable = Snapshot([recording.owner]).instances(keras.Variable)
    behind = {id(live_variable(variable)): variable for variable in reachable}
    for variable in found:
        yield variable, behind.get(id(variable))
