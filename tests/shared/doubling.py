"""A training step of one's own that is not the compiled one's: it trains twice the loss."""

# mypy: allow-subclassing-any

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

L = keras.layers


class Doubling(keras.Model):
    """Trains twice the compiled loss: suspect, if that is compared."""

    call_form: Any = None

    def __init__(self) -> None:
        super().__init__()
        self.dense = L.Dense(4)
        self.last = L.Dense(1)

    def call(self, x: Any) -> Any:
        return self.last(tf.tanh(self.dense(x)))

    def train_step(self, data: Any) -> Any:
        x, y = data
        with tf.GradientTape() as tape:
            loss = 2 * self.compute_loss(y=y, y_pred=self(x))
        variables = self.trainable_variables
        gradients = (self.call_form or default_form)(tape, loss, variables)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return {"loss": loss}


def default_form(tape: tf.GradientTape, loss: Any, variables: Any) -> Any:
    """The plain call."""
    return tape.gradient(loss, variables)
