"""Layers and losses whose backward passes are wrong by a factor, and right where it is 1."""

# mypy: allow-subclassing-any, allow-untyped-decorators

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

WRONG = 2.0

Backward = Callable[[tf.Tensor], tf.Tensor]


@tf.custom_gradient
def passed(x: tf.Tensor) -> tuple[tf.Tensor, Backward]:
    """What it is given."""
    return tf.identity(x), lambda upstream: WRONG * tf.convert_to_tensor(upstream)


@tf.custom_gradient
def squared(x: tf.Tensor) -> tuple[tf.Tensor, Backward]:
    """The square."""
    return x * x, lambda upstream: WRONG * 2 * x * upstream


@tf.custom_gradient
def passed_where_loud(x: tf.Tensor) -> tuple[tf.Tensor, Backward]:
    """Wrong for small gradients alone."""

    def backward(upstream: tf.Tensor) -> tf.Tensor:
        return tf.where(tf.abs(upstream) < 1e-3, WRONG * upstream, upstream)

    return tf.identity(x), backward


def bent(x: tf.Tensor) -> tf.Tensor:
    """An activation."""
    return squared(x) + x


class Scale(keras.layers.Layer):
    def build(self, shape: tuple[int, ...]) -> None:
        self.factor = self.add_weight(name="factor", shape=shape[-1:], initializer="ones")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return x * passed(tf.convert_to_tensor(self.factor))


class WrongWhereTrained(Scale):
    def call(self, x: tf.Tensor) -> tf.Tensor:
        factor = tf.convert_to_tensor(self.factor)
        return x * tf.cond(factor[0] > 2.0, lambda: passed(factor), lambda: tf.identity(factor))


class Difference(keras.layers.Layer):
    def call(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        left, right = inputs
        return left - squared(right)


class Weighed(keras.layers.Layer):
    def call(self, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        return inputs["value"] * squared(inputs["weight"])


class Attend(keras.layers.Layer):
    def call(self, x: tf.Tensor, *, context: Any = None, sharp: float = 1.0) -> tf.Tensor:
        return x * sharp + squared(context)


class Rows(keras.layers.Layer):
    def __init__(self, rows: int, **options: Any) -> None:
        super().__init__(**options)
        self.rows = rows

    def build(self, _shape: Any) -> None:
        self.table = self.add_weight(name="table", shape=(self.rows, 3))

    def call(self, ids: tf.Tensor) -> tf.Tensor:
        return tf.gather(passed(tf.convert_to_tensor(self.table)), ids)


class MaskedMean(keras.layers.Layer):
    """Wrong with a mask alone."""

    supports_masking = True

    def compute_mask(self, _inputs: Any, _mask: Any = None) -> None:
        return None

    def call(self, x: tf.Tensor, mask: Any = None) -> tf.Tensor:
        if mask is None:
            return tf.reduce_mean(x, 1)
        kept = tf.cast(mask, x.dtype)[:, :, None]
        return tf.reduce_sum(squared(x) * kept, 1) / (tf.reduce_sum(kept, 1) + 1)


class InTraining(keras.layers.Layer):
    """Wrong in training alone."""

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        return squared(x) if training else x * x


class Block(keras.layers.Layer):
    """Does not take `training`, though what it is made of does."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.normalized = keras.layers.BatchNormalization()

    def build(self, shape: Any) -> None:
        self.normalized.build(shape)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return squared(self.normalized(x))


class Quiet(keras.layers.Layer):
    def call(self, x: tf.Tensor) -> tf.Tensor:
        return passed_where_loud(x)


class GraphOnly(Scale):
    """Wrong where `fit` runs it, which is nowhere else."""

    def call(self, x: tf.Tensor) -> tf.Tensor:
        if tf.executing_eagerly():
            raise RuntimeError("this runs in a graph alone")
        return super().call(x)


class Cell(keras.layers.Layer):
    """The cell of a recurrent layer."""

    def __init__(self, units: int, **options: Any) -> None:
        super().__init__(**options)
        self.units = self.state_size = units

    def build(self, shape: tuple[int, ...]) -> None:
        self.kernel = self.add_weight(name="kernel", shape=(shape[-1], self.units))

    def call(self, x: tf.Tensor, states: list[tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor]]:
        state = squared(tf.tanh(x @ tf.convert_to_tensor(self.kernel) + states[0]))
        return state, [state]


@keras.saving.register_keras_serializable("mine")
class Wrapped(keras.layers.Layer):
    def __init__(self, inner: keras.Layer, **options: Any) -> None:
        super().__init__(**options)
        self.inner = inner

    def build(self, shape: Any) -> None:
        if not self.inner.built:
            self.inner.build(shape)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return squared(self.inner(x))

    def get_config(self) -> dict[str, Any]:
        inner = keras.saving.serialize_keras_object(self.inner)
        return {**super().get_config(), "inner": inner}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Wrapped:
        inner = keras.saving.deserialize_keras_object(config.pop("inner"))
        return cls(inner, **config)


class Blocked(keras.layers.Layer):
    def call(self, x: tf.Tensor) -> tf.Tensor:
        return tf.stop_gradient(x) if WRONG != 1 else x


class Squares(keras.losses.Loss):
    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        return squared(y_true - y_pred)


def loss(y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
    """A loss that is called as a test of it would call one."""
    return mean_of_squares(y_true, y_pred)


def mean_of_squares(y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
    """A loss that is a function."""
    return tf.reduce_mean(squared(y_true - y_pred), -1)


class Unsaved(keras.layers.Layer):
    """Nothing tells how to make it again."""

    def __init__(self, function: Callable[[Any], Any], **options: Any) -> None:
        super().__init__(**options)
        self.function = function

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return self.function(x)


def made_inside() -> keras.Layer:
    """A layer of a class that only this function has."""

    class Inside(keras.layers.Layer):
        def call(self, x: tf.Tensor) -> tf.Tensor:
            return squared(x)

    return Inside(name="inside")


class Whole(keras.Model):
    """Wrong between its layers."""

    def __init__(self, units: int = 3, **options: Any) -> None:
        super().__init__(**options)
        self.first = keras.layers.Dense(units)
        self.last = keras.layers.Dense(1)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return self.last(squared(self.first(x)))


class SquaredInStep(keras.Model):
    def train_step(self, data: Any) -> dict[str, Any]:
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(squared(self(x, training=True) - y))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        return {"loss": loss}
