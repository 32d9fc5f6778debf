"""What must hold before any work begins: options, backend, model; one clear sentence each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np

from tfcheck._version import __version__
from tfcheck.errors import ArgumentError, ArgumentTypeError, BackendError, ModelError, rule
from tfcheck.memory import bytes_of
from tfcheck.report import Settings
from tfcheck.steps import LossFunction
from tfcheck.verdict import PRECISION, Thresholds


def make_settings(
    *,
    phase: str,
    method: str,
    directions: int,
    epsilon: float | str,
    thresholds: Thresholds,
    expected_mismatch: Sequence[str],
    seed: int,
    precision: float = PRECISION,
    memory_limit: int | str = "auto",
) -> Settings:
    """Check the options of a gradient check, before any work, and freeze them.

    Raises:
        ArgumentError: for a value that is out of range.
        ArgumentTypeError: for a value of a wrong type.
    """
    require_choice("phase", phase, ("train", "inference"))
    require_choice("method", method, ("directions", "full"))
    for name, value, least in (("directions", directions, 1), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise ArgumentError(
                rule(
                    f"{name} must be a whole number of at least {least}",
                    name,
                    value,
                    "Give such a number",
                )
            )
    if not (isinstance(epsilon, str) and epsilon == "auto"):
        number = isinstance(epsilon, int | float | np.number) and not isinstance(epsilon, bool)
        if not number or not 0 < float(epsilon) < math.inf:
            raise ArgumentError(
                rule('epsilon must be "auto" or a positive number', "epsilon", epsilon, "Try 1e-7")
            )
        epsilon = float(epsilon)
    number = isinstance(precision, int | float | np.number) and not isinstance(precision, bool)
    if not number or not 0 < float(precision) <= 1:
        raise ArgumentError(
            rule(
                "precision must be a number above 0 and at most 1",
                "precision",
                precision,
                f"Try {PRECISION:g}",
            )
        )
    if memory_limit != "auto":
        bytes_of(memory_limit)
    if not isinstance(thresholds, Thresholds):
        raise ArgumentTypeError(
            rule(
                "thresholds must be a tfcheck.Thresholds",
                "thresholds",
                thresholds,
                "Write Thresholds(okay=…)",
            )
        )
    if isinstance(expected_mismatch, str):
        expected_mismatch = (expected_mismatch,)
    if not isinstance(expected_mismatch, Iterable) or not all(
        isinstance(pattern, str) for pattern in expected_mismatch
    ):
        raise ArgumentTypeError(
            rule(
                "expected_mismatch must hold strings",
                "expected_mismatch",
                expected_mismatch,
                "Give path patterns",
            )
        )
    return Settings(
        phase=phase,
        method=method,
        directions=int(directions),
        epsilon=epsilon,
        thresholds=thresholds,
        expected_mismatch=tuple(expected_mismatch),
        seed=int(seed),
        precision=float(precision),
        memory_limit=memory_limit if isinstance(memory_limit, str) else int(memory_limit),
        version=__version__,
    )


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


def require_verbose(verbose: object) -> None:
    """Raise an `ArgumentError` unless this is 0 or 1."""
    if not isinstance(verbose, int | np.integer) or verbose not in (0, 1):
        raise ArgumentError(
            rule("verbose must be 0 or 1", "verbose", verbose, "Choose 0 to show no progress")
        )


def require_choice(name: str, value: object, allowed: Sequence[object]) -> None:
    """Raise an `ArgumentError` unless `value` is one of `allowed`."""
    if not (value is None or isinstance(value, str)) or value not in allowed:
        listed = " or ".join(repr(choice) for choice in allowed)
        raise ArgumentError(rule(f"{name} must be {listed}", name, value, f"Choose {listed}"))
