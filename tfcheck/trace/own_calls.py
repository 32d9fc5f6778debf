"""The calls of layers in a step: which of them it makes itself, and who reads which variable.

In a graph the operations tell who reads a variable. In an eager run it is the innermost layer after
whose call a tape has seen it.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from tfcheck.internals import sublayers
from tfcheck.trace.source_lines import SourceLine, place_here
from tfcheck.variables import path_of


@dataclass(frozen=True, eq=False)
class OwnCall:
    """A call of a layer that the step makes itself, rather than another layer.

    Attributes:
        layer: the layer.
        training: what it was called with as `training`; None for nothing.
        place: the line of the call; None where that is unknown.
    """

    layer: keras.Layer
    training: Any
    place: SourceLine | None


class OwnCalls:
    """What is heard of calls of layers.

    Args:
        owner: the model or layer that the step belongs to. Defaults to None, for none.

    Attributes:
        made: the calls that the step itself makes.
        users: in an eager run, for each variable by identity the innermost layer of the model that
            reads it first, `""` for none.
    """

    def __init__(self, owner: keras.Layer | None = None) -> None:
        self.made: list[OwnCall] = []
        self.users: dict[int, str] = {}
        self._layers = frozenset() if owner is None else frozenset(map(id, sublayers(owner)))
        self._depth = 0
        self._recording: list[tf.GradientTape] = []

    def knows(self, layer: keras.Layer) -> bool:
        """Whether a layer is one of the model's, or the model."""
        return id(layer) in self._layers

    def tape(self, tape: tf.GradientTape, *, records: bool) -> None:
        """Note that a tape begins or ceases to record."""
        if records:
            self._recording.append(tape)
        elif tape in self._recording:
            self._recording.remove(tape)

    @contextlib.contextmanager
    def within(self, layer: keras.Layer, args: Any, kwargs: Any) -> Iterator[None]:
        """Note that a layer is called in the block, with these arguments."""
        eagerly = tf.executing_eagerly()
        if not self._depth:
            if eagerly:
                self._note_users("")
            self.made.append(OwnCall(layer, _training_of(layer, args, kwargs), place_here()))
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
        if eagerly and self.knows(layer):
            self._note_users(path_of(layer))

    def _note_users(self, path: str) -> None:
        """Note who has read the variables that tapes see by now, and did not before."""
        for tape in self._recording:
            for variable in tape.watched_variables():
                self.users.setdefault(id(variable), path)


def _training_of(layer: keras.Layer, args: Any, kwargs: Any) -> Any:
    """What a layer is called with as `training`; None for nothing."""
    try:
        given = inspect.signature(layer.call).bind_partial(*args, **kwargs).arguments
    except TypeError:
        return kwargs.get("training")
    return given.get("training")
