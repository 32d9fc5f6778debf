"""Dropout off, for the length of a trace: finite differences need a loss that does not flicker."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from tfcheck.internals import drawing_of_dropout
from tfcheck.patching import put_in_place


@contextlib.contextmanager
def dropout_off() -> Iterator[None]:
    """Trace with every dropout silent, in this thread.

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
