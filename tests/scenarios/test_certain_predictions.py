"""Predictions that are certain: the loss is a tiny difference of large numbers."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcheck import GradientReport, Verdict, check_gradients

L = keras.layers


@tf.custom_gradient
def doubled(logits: Any) -> Any:
    """The logits, with twice their gradient."""
    return tf.identity(logits), lambda upstream: 2 * upstream


def certain(name: str, certainty: float, *, eagerly: bool, wrong: bool = False) -> GradientReport:
    """The check of a model whose predictions of the right answer a constant makes certain."""
    classes, loss = {
        "sparse": (3, keras.losses.SparseCategoricalCrossentropy(from_logits=True)),
        "binary": (1, keras.losses.BinaryCrossentropy(from_logits=True)),
        "focal": (1, keras.losses.BinaryFocalCrossentropy(from_logits=True)),
    }[name]

    def surely(z: Any) -> Any:
        if eagerly:
            z = tf.py_function(lambda t: t * 1.0, [z], z.dtype)
        if wrong:
            z = doubled(z)
        return tf.reshape(z, (3, classes)) + certainty * tf.eye(3, classes, dtype=z.dtype)

    keras.utils.set_random_seed(2)
    model = keras.Sequential([keras.Input((4,)), L.Dense(classes), L.Lambda(surely)])
    model.compile("sgd", loss, run_eagerly=eagerly)
    y = np.arange(3) if classes > 1 else np.eye(3, 1)
    x = np.random.default_rng(7).standard_normal((3, 4)).astype("float32")
    # Only the first sample of two classes is certain, where the loss is that of it alone.
    return check_gradients(model, x, y, None if classes > 1 else np.eye(3, 1)[:, 0])


@pytest.mark.parametrize(
    ("certainty", "eagerly"),
    [*((certainty, False) for certainty in (12.0, 20.0, 31.0, 36.0, 45.0)), (31.0, True)],
)
@pytest.mark.parametrize("name", ["sparse", "binary", "focal"])
def test_certain_predictions_are_not_accused(name: str, certainty: float, eagerly: bool) -> None:
    """A loss that is a tiny difference of large numbers moves in steps, or not at all.

    In the float32 of a step that runs eagerly, that may leave nothing to measure.
    """
    report = certain(name, certainty, eagerly=eagerly)
    may_be = {Verdict.PASS, Verdict.INCONCLUSIVE} if eagerly else {Verdict.PASS}
    assert report.verdict in may_be, str(report)


@pytest.mark.parametrize(
    ("name", "eagerly"), [("sparse", False), ("binary", False), ("binary", True)]
)
def test_wrong_gradients_of_certain_predictions_fail(name: str, eagerly: bool) -> None:
    """A loss of a hundred-thousandth is small, not gone."""
    report = certain(name, 12.0, eagerly=eagerly, wrong=True)
    assert report.verdict is Verdict.FAIL, str(report)
