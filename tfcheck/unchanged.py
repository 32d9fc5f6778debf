"""Leaving everything as it was: what a trace or a run of a step changes is put back."""

from __future__ import annotations

import contextlib
import functools
import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfcheck.errors import ModelError
from tfcheck.internals import global_state_of_keras, live_variable, seeds_of_draws, sublayers
from tfcheck.kept import kept_state
from tfcheck.listening import is_variable
from tfcheck.patching import put_in_place
from tfcheck.snapshot import Snapshot
from tfcheck.taking import OneWay, nothing_taken


@contextlib.contextmanager
def unchanged(*roots: Any) -> Iterator[None]:
    """Put back what the block changes in Python: attributes, containers, random states.

    Args:
        roots: the model or layer, and what else code in the block may reach: see `Snapshot`.
    """
    snapshot = Snapshot([*roots, *global_state_of_keras()])
    generators = (
        kept_state(random.getstate, random.setstate),
        kept_state(np.random.get_state, np.random.set_state),
    )

    def put_back() -> None:
        snapshot.put_back()
        for generator in generators:
            generator.put_back()

    try:
        for attributes, name in snapshot.iterators:
            attributes[name] = OneWay(attributes[name])
        with tf.variable_creator_scope(_no_weights), _own_draws(), nothing_taken():
            yield
    finally:
        _to_the_end(put_back)


def _to_the_end(action: Callable[[], None]) -> None:
    """Do something that can be done twice, and wholly, even where Ctrl-C comes in between."""
    try:
        action()
    except KeyboardInterrupt:
        action()
        raise


@contextlib.contextmanager
def _own_draws() -> Iterator[None]:
    """Give random operations that run eagerly seeds of their own.

    Each draws its seed from a generator of TensorFlow's, and moves on a kernel that it shares with
    all operations of the same seed; those of the training must find both as they were.
    """

    def make(original: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def get_seed(op_seed: Any) -> tuple[Any, Any]:
            if not tf.executing_eagerly():
                return original(op_seed)
            return _OWN_SEED, next(_draws) if op_seed is None else op_seed

        return get_seed

    with contextlib.ExitStack() as undo:
        put_in_place(undo, *seeds_of_draws(), make)
        yield


_OWN_SEED = 1_610_612_741
_draws = itertools.count(1)


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

    def put_back() -> None:
        for variable, value in before:
            variable.assign(value)

    try:
        with contextlib.ExitStack() as undo:
            for name in _ASSIGNING:
                put_in_place(undo, _kind_of_variables(), name, _noted(note))
            of_state = _noted(lambda generator: note(generator.state))
            put_in_place(undo, tf.random.Generator, "skip", of_state)
            yield
    finally:
        _to_the_end(put_back)


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


def _noted(note: Callable[[Any], None]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def changing(self: Any, *args: Any, **options: Any) -> Any:
            note(self)
            return original(self, *args, **options)

        return changing

    return make


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
