"""Weights that nobody tracks: a step computes with them, and Keras neither lists nor trains them.

A layer that a lambda captures, layers in a plain object, variables in a list: the traced graph
knows them all. In one of the model's layers they were meant to be weights of it; in the loss alone
they may be those of a network that judges, and is not trained.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

import keras

from tfcheck.internals import live_variable
from tfcheck.trace.recording import Recording
from tfcheck.trace.source_lines import place_of
from tfcheck.trace.tracing import TracedStep
from tfcheck.unchanged.snapshot import Snapshot


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


User = tuple[str, Any]
"""Path of a layer that uses a variable, `""` for none, and the line, None for an unknown one."""


def untracked_in(
    recording: Recording, assigned: Set[int], users: Mapping[int, User]
) -> tuple[Untracked, ...]:
    """The untracked variables that the tapes of a step reach.

    Those that the step assigns to are state, and those that a layer uses and that are frozen are as
    they are meant to be.

    Args:
        recording: what was heard of the step.
        assigned: what it assigns to, by the identities of the variables' handles.
        users: for each variable, by identity, who uses it.
    """
    found = []
    for variable, known in _behind(reached_untracked(recording), recording.owner):
        layer, place = users.get(id(variable), ("", None))
        frozen = known is not None and not known.trainable
        if id(variable.handle) not in assigned and not (layer and frozen):
            name = variable.name.split(":")[0] if known is None else known.path
            found.append(Untracked(name, tuple(variable.shape), layer, place))
    return tuple(found)


def users_in(traced: TracedStep) -> dict[int, User]:
    """For each untracked variable of a traced step, by identity, the layer that uses it first."""
    placeholder_of = {id(outside): p.op.name for outside, p in traced.captures}
    named = {
        placeholder_of[id(variable.handle)]: id(variable)
        for variable in reached_untracked(traced.recording)
        if id(variable.handle) in placeholder_of
    }
    calls = [call for call in traced.recording.calls if call.tracked]
    found: dict[int, User] = {}
    for position, operation in enumerate(traced.function.graph.get_operations() if named else ()):
        for name in named.keys() & {tensor.op.name for tensor in operation.inputs}:
            within = [call.path for call in calls if call.makes(position)]
            known = found.get(named[name])
            if known is None or (within and not known[0]):
                found[named[name]] = (within[-1] if within else "", place_of(operation))
    return found


def reached_untracked(recording: Recording) -> list[Any]:
    """The variables of TensorFlow's that tapes reach, and that are no weights of the model."""
    tracked = {id(variable) for variable in recording.known.values()}
    used = {id(source) for call in recording.tape_calls for source in call.sources}
    used |= {id(applied.variable) for applied in recording.applied}
    return [v for key, v in recording.reached.items() if key not in tracked | used]


def _behind(
    variables: Iterable[Any], owner: keras.Layer
) -> Iterator[tuple[Any, keras.Variable | None]]:
    """Variables of TensorFlow's, each with the Keras variable that it is behind."""
    variables = list(variables)
    if not variables:
        return
    # Keras tells nobody which of its variables a `tf.Variable` is behind.
    reachable = Snapshot([owner]).instances(keras.Variable)
    behind = {id(live_variable(variable)): variable for variable in reachable}
    for variable in variables:
        yield variable, behind.get(id(variable))
