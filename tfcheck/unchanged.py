"""Leaving everything as it was: what a trace or a run of a step changes is put back."""

from __future__ import annotations

import contextlib
import copy
import functools
import random
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfcheck.errors import ModelError
from tfcheck.internals import (
    lazily_built_parts,
    live_variable,
    recorded_losses,
    sublayers,
)
from tfcheck.listening import is_variable, put_in_place


@contextlib.contextmanager
def unchanged(model: keras.Layer) -> Iterator[None]:
    """Put back what a step changes in Python: attributes, recorded losses, random states."""
    layers = list(sublayers(model))
    built = [layer for layer in layers if layer.built]
    unbuilt = [layer for layer in layers if not layer.built]
    growing = [*lazily_built_parts(model), *getattr(model, "metrics", ()), *unbuilt]
    losses = [part for layer in layers for part in recorded_losses(layer)]
    contents: list[tuple[Any, Any]] = [(part, copy.copy(part)) for part in losses]
    contents += [
        (value, copy.copy(value))
        for part in growing
        for value in vars(part).values()
        if isinstance(value, list | dict | set)
    ]
    # A built layer's tracked containers refuse changes, in the step as well as here.
    contents += [
        (value, copy.copy(value))
        for part in built
        for value in vars(part).values()
        if type(value) in (list, dict, set)
    ]
    attributes = [(part, dict(vars(part))) for part in (*growing, *built)]
    python_state = random.getstate()
    numpy_state = np.random.get_state()  # noqa: NPY002 - users draw from it
    try:
        with tf.variable_creator_scope(_no_weights):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
        for part, before in attributes:
            vars(part).clear()
            vars(part).update(before)
        for container, content in contents:
            container.clear()
            if isinstance(container, list):
                container.extend(content)
            else:
                container.update(content)


def _no_weights(create: Callable[..., Any], **options: Any) -> Any:
    """Refuse to create weights during a trace: a layer that builds itself changes the model."""
    if options.get("trainable", True):
        raise ModelError(
            "A model must be built before it is checked. Received: a layer that creates the "
            f"variable {options.get('name')!r} in the training step. Call the layer once, or train "
            "for a step, before the check."
        )
    return create(**options)


@contextlib.contextmanager
def variables_kept(model: keras.Layer) -> Iterator[None]:
    """Put back the values of all variables that a model holds, and of any others assigned to."""
    before = [(variable, tf.identity(variable)) for variable in held_variables(model)]
    held = {id(variable) for variable, _ in before}

    def note(variable: Any) -> None:
        if tf.executing_eagerly() and id(variable) not in held:
            held.add(id(variable))
            before.append((variable, tf.identity(variable)))

    kind, generator = _kind_of_variables(), tf.random.Generator
    try:
        with contextlib.ExitStack() as undo:
            for name in _ASSIGNING:
                put_in_place(undo, kind, name, _noted(note, getattr(kind, name)))
            skip = _noted(lambda source: note(source.state), generator.skip)
            put_in_place(undo, generator, "skip", skip)
            yield
    finally:
        for variable, value in before:
            variable.assign(value)


_ASSIGNING = (
    "assign",
    "assign_add",
    "assign_sub",
    "scatter_add",
    "scatter_sub",
    "scatter_update",
    "scatter_nd_add",
    "scatter_nd_sub",
    "scatter_nd_update",
)
"""The methods of a `tf.Variable` that change it."""


@functools.cache
def _kind_of_variables() -> type:
    """The class of what `tf.Variable(...)` makes."""
    return type(tf.Variable(0.0, trainable=False))


def _noted(note: Callable[[Any], None], original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def changing(self: Any, *args: Any, **options: Any) -> Any:
        note(self)
        return original(self, *args, **options)

    return changing


def held_variables(model: keras.Layer) -> list[tf.Variable]:
    """All variables that a model and its layers hold, once each.

    Beside those that Keras knows these are the states of recurrent layers, counters of metrics,
    and any `tf.Variable` kept as an attribute or in a list, tuple or dict.
    """
    found = [*model.variables, *getattr(model, "metrics_variables", ())]
    for layer in sublayers(model):
        for value in vars(layer).values():
            found += [item for item in _items(value) if is_variable(item)]
    live = [live_variable(variable) for variable in found]
    return list({id(variable): variable for variable in live}.values())


def _items(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return list(value) if isinstance(value, list | tuple) else [value]
