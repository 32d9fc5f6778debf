"""The smallest wrong layer: a sine whose gradient lacks the cosine."""

# mypy: allow-subclassing-any

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


@tf.custom_gradient
def wrong_sine(x: Any) -> Any:
    """A sine whose gradient lacks the cosine."""
    return tf.sin(x), lambda upstream: upstream


class WrongSine(keras.layers.Layer):
    def call(self, x: Any) -> Any:
        return wrong_sine(x)
