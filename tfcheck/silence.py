"""Dropout off, for the length of a trace: finite differences need a loss that does not flicker."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from tfcheck.internals import sublayers

_RATE_LAYERS = (
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
    keras.layers.AlphaDropout,
    keras.layers.GaussianDropout,
)
_RECURRENT = ("dropout", "recurrent_dropout")


@contextlib.contextmanager
def dropout_off(model: keras.Layer) -> Iterator[None]:
    """Trace with every dropout silent; all rates and functions are put back on the way out.

    Silenced are Keras's dropout layers, the dropout of recurrent and attention layers, and calls
    of `keras.random.dropout` and `tf.nn.dropout` by their module name.
    """
    with contextlib.ExitStack() as undo:
        for layer in sublayers(model):
            for name in _dropout_attributes(layer):
                _override(undo, vars(layer), name, 0.0)
        for module, name in (
            (keras.random, "dropout"),
            (tf.nn, "dropout"),
            (tf.nn.experimental, "stateless_dropout"),
            (tf.nn.experimental, "general_dropout"),
        ):
            _override(undo, vars(module), name, _keep_everything)
        yield


def _keep_everything(inputs: Any = None, *_args: Any, x: Any = None, **_options: Any) -> Any:
    return tf.convert_to_tensor(x if inputs is None else inputs)


def _dropout_attributes(layer: keras.Layer) -> list[str]:
    candidates: tuple[str, ...] = ()
    if isinstance(layer, _RATE_LAYERS):
        candidates = ("rate",)
    elif hasattr(layer, "get_dropout_mask"):
        candidates = _RECURRENT
    elif isinstance(layer, keras.layers.Attention):
        candidates = ("dropout",)
    return [name for name in candidates if isinstance(vars(layer).get(name), int | float)]


def _override(undo: contextlib.ExitStack, namespace: dict[str, Any], name: str, value: Any) -> None:
    if name in namespace:
        undo.callback(namespace.__setitem__, name, namespace[name])
        namespace[name] = value
