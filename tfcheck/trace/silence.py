"""Dropout held still, for the length of a trace: differences need a loss that does not flicker."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from tfcheck.internals import drawing_of_dropout
from tfcheck.unchanged.patching import put_in_place
from tfcheck.unchanged.unchanged import OWN_SEED


@contextlib.contextmanager
def dropout_held(dropout: str) -> Iterator[None]:
    """Trace, or run, with dropout held still in this thread.

    Args:
        dropout: `"off"` silences it. `"frozen"` leaves it on, with the masks that follow from the
            seeds at hand: Keras's seed generators are put back after every run, and stand still in
            a graph, which holds raw random numbers fixed. Only raw ones that are drawn eagerly
            must be given seeds here.
    """
    with _dropout_off() if dropout == "off" else _raw_dropout_seeded():
        yield


@contextlib.contextmanager
def _raw_dropout_seeded() -> Iterator[None]:
    """Let `tf.nn.dropout` draw the same in every run, where it runs eagerly."""
    numbers = itertools.count()

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        # The names and the order of the arguments are those of `tf.nn.dropout`.
        def drop(
            x: Any, rate: Any, noise_shape: Any = None, seed: Any = None, name: Any = None
        ) -> Any:
            if not tf.executing_eagerly():
                return original(x, rate, noise_shape, seed, name)
            own = (OWN_SEED, next(numbers))
            return tf.nn.experimental.stateless_dropout(x, rate, own, noise_shape=noise_shape)

        return drop

    with contextlib.ExitStack() as undo:
        put_in_place(undo, tf.nn, "dropout", make)
        yield


@contextlib.contextmanager
def _dropout_off() -> Iterator[None]:
    """Silence every dropout.

    What is silenced are draws, not rates: layers take the path that they take in training, and a
    mask that is asked for is one that keeps everything. Those are the draws of Keras's dropout
    layers, of the dropout of recurrent and attention layers, and of calls of `keras.random.dropout`
    and `tf.nn.dropout` by their module's name.
    """
    with contextlib.ExitStack() as undo:
        for owner, name in (
            drawing_of_dropout(),
            (keras.random, "dropout"),
            (tf.nn, "dropout"),
            (tf.nn.experimental, "stateless_dropout"),
            (tf.nn.experimental, "general_dropout"),
        ):
            put_in_place(undo, owner, name, lambda _: _keep_everything)
        for layer in (keras.layers.AlphaDropout, keras.layers.GaussianDropout):
            put_in_place(undo, layer, "call", lambda _: _call_that_keeps_everything)
        yield


def _keep_everything(inputs: Any = None, *_args: Any, x: Any = None, **_options: Any) -> Any:
    return tf.convert_to_tensor(x if inputs is None else inputs)


def _call_that_keeps_everything(
    _layer: keras.Layer,
    inputs: Any,
    training: bool = False,  # noqa: ARG001 - as Keras's own
) -> Any:
    return inputs
