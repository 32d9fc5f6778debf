"""Leaving everything as it was: what a trace or a run of a step changes is put back."""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfcheck.errors import ModelError
from tfcheck.internals import (
    VARIABLE_KIND,
    global_state_of_keras,
    live_variable,
    seeds_of_draws,
    sublayers,
)
from tfcheck.unchanged.kept import kept_state
from tfcheck.unchanged.patching import put_in_place
from tfcheck.unchanged.snapshot import Snapshot
from tfcheck.unchanged.taking import nothing_taken, stand_in
from tfcheck.variables import is_variable


@contextlib.contextmanager
def unchanged(owner: keras.Layer, *roots: Any) -> Iterator[list[tf.Variable]]:
    """Put back what a step changes in Python: attributes, containers, random states.

    It gains no weights, and nothing is taken that would be gone.

    Args:
        owner: the model or layer.
        roots: what else all that a step changes can be reached from: see `Snapshot`.

    Yields:
        The variables that the block makes, such as state that a step makes when it first runs.
        They must be kept as long as its graph is.

    Raises:
        ModelError: if the block makes weights of the owner.
    """
    with _python_unchanged(owner, *roots), _no_weights(owner), _made() as made, nothing_taken():
        yield made


@contextlib.contextmanager
def all_unchanged(*roots: Any) -> Iterator[None]:
    """Put back what any code changes in Python, and in variables that it assigns to.

    Args:
        roots: as for `unchanged`.
    """
    with _python_unchanged(*roots), variables_kept():
        yield


@contextlib.contextmanager
def _python_unchanged(*roots: Any) -> Iterator[None]:
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
            attributes[name] = stand_in(attributes[name])
        with _own_draws():
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
            return OWN_SEED, next(_draws) if op_seed is None else op_seed

        return get_seed

    with contextlib.ExitStack() as undo:
        put_in_place(undo, *seeds_of_draws(), make)
        yield


OWN_SEED = 1_610_612_741
"""Of raw random operations that run eagerly within a check."""

_draws = itertools.count(1)


@contextlib.contextmanager
def _no_weights(owner: keras.Layer) -> Iterator[None]:
    """Refuse that a model or layer gains weights to train, as where one in it builds itself."""
    before = list(owner.trainable_variables)
    known = set(map(id, before))

    def refuse() -> None:
        gained = [v.path for v in owner.trainable_variables if id(v) not in known]
        if gained:
            raise ModelError(
                "All layers must be built before a check. Received: one that makes its weight "
                f"{gained[0]!r} in the step that is checked. Call it once before."
            ) from None

    try:
        yield
    except Exception:
        refuse()  # what else went wrong may come of it
        raise
    refuse()


@contextlib.contextmanager
def _made() -> Iterator[list[tf.Variable]]:
    """Let variables be made as `fit` does, in a graph as well, and note which.

    One whose first value a graph computes begins at zero, and the graph assigns that value to it.
    """
    made: list[tf.Variable] = []

    def creator(create: Callable[..., Any], **options: Any) -> Any:
        first: Any = options.get("initial_value")
        computed = tf.is_tensor(first) and tf.is_symbolic_tensor(first)
        if computed and first.shape.is_fully_defined():
            options["initial_value"] = np.zeros(first.shape, first.dtype.as_numpy_dtype)
            variable = create(**options)
            variable.assign(first)
        else:
            variable = create(**options)
        made.append(variable)
        return variable

    with tf.variable_creator_scope(creator):
        yield made


@contextlib.contextmanager
def variables_kept(variables: Iterable[tf.Variable] = ()) -> Iterator[set[int]]:
    """Put back the values of variables, and of any others that Python assigns to in this thread.

    Args:
        variables: those that operations alone may change. Defaults to none.

    Returns:
        What Python has assigned to by the end, by the identities of the variables' handles.
    """
    assigned: set[int] = set()
    before = [(variable, tf.identity(variable)) for variable in variables]
    held = {id(variable) for variable, _ in before}

    def note(variable: Any) -> None:
        assigned.add(id(variable.handle))
        if tf.executing_eagerly() and id(variable) not in held:
            held.add(id(variable))
            before.append((variable, tf.identity(variable)))

    def put_back() -> None:
        for variable, value in before:
            variable.assign(value)

    try:
        with contextlib.ExitStack() as undo:
            for name in _ASSIGNING:
                put_in_place(undo, VARIABLE_KIND, name, _noted(note))
            of_state = _noted(lambda generator: note(generator.state))
            put_in_place(undo, tf.random.Generator, "skip", of_state)
            yield assigned
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
