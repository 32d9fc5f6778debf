"""What must hold before any work begins: backend, model, layer, loss; one clear sentence each."""

from __future__ import annotations

from typing import Any

import keras

from tfcheck.errors import ArgumentTypeError, BackendError, ModelError
from tfcheck.trace.steps import LossFunction


def require_backend() -> None:
    """Raise a `BackendError` unless Keras runs on TensorFlow."""
    if keras.backend.backend() != "tensorflow":
        raise BackendError(
            "tfcheck checks Keras models on the TensorFlow backend. Received: "
            f"backend={keras.backend.backend()!r}. Set the environment variable "
            "KERAS_BACKEND=tensorflow before the first import of keras."
        )


def require_checkable(model: Any, loss_fn: LossFunction | None) -> None:
    """Raise unless the model is a built Keras model with a loss and something to train."""
    if not isinstance(model, keras.Model):
        raise ArgumentTypeError(
            f"model must be a keras.Model. Received: {type(model).__name__}. Give the model itself."
        )
    name = model.name
    # A model that only has a train_step is never called, and so never marked as built.
    if not model.weights:
        raise ModelError(
            f"A model must be built before it is checked. Received: unbuilt model {name!r}. "
            "Call it on a batch, or give it an Input."
        )
    if not model.trainable_variables:
        raise ModelError(
            f"A model must have something to train. Received: model {name!r}, whose "
            f"{len(model.weights)} weights are all frozen. Set trainable = True where gradients "
            "are to be checked."
        )
    if loss_fn is None and not model.compiled:
        raise ModelError(
            f"A model must be compiled before it is checked. Received: uncompiled model {name!r}. "
            "Call model.compile(...), or give loss_fn."
        )
    if loss_fn is not None and not callable(loss_fn):
        raise ArgumentTypeError(
            f"loss_fn must be callable as loss_fn(model, x, y, sample_weight). Received: "
            f"{type(loss_fn).__name__}. Give a function."
        )


def require_layer(layer: Any) -> None:
    """Raise unless this is a Keras layer."""
    if not isinstance(layer, keras.Layer):
        what = layer.__name__ if isinstance(layer, type) else type(layer).__name__
        raise ArgumentTypeError(
            f"layer must be a keras.Layer. Received: {what}. Give the layer itself, and then the "
            "inputs it is called with."
        )
