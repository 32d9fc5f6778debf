"""What a report notes of the loss is true of the loss, and not of what else a step computes."""

# mypy: allow-subclassing-any

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcheck import GradientReport, Verdict, check_gradients

L = keras.layers
RNG = np.random.default_rng(4)
X = RNG.normal(size=(6, 3)).astype("float32")
Y = RNG.normal(size=(6, 2)).astype("float32")


@tf.function
def bits(x: Any) -> Any:
    """How many floats are odd: an operation without a float64 form."""
    return tf.reduce_sum(tf.cast(tf.bitcast(x, tf.int32) % 2, tf.float32))


@tf.function
def noise(x: Any) -> Any:
    """Noise, of an operation that has no stateless form."""
    return tf.reduce_sum(tf.random.gamma(tf.shape(x), 2.0))


class Measuring(keras.Model):
    """A step that also assigns what a function makes of its predictions."""

    def __init__(self, function: Any) -> None:
        super().__init__(name="net")
        self.dense = L.Dense(2, name="dense")
        self.dense.build((None, 3))
        self.function = function
        self.total = tf.Variable(0.0, trainable=False)

    def call(self, x: Any) -> Any:
        return self.dense(x)

    def train_step(self, data: Any) -> Any:
        x, y = data
        with tf.GradientTape() as tape:
            y_pred = self(x)
            loss = self.compute_loss(x, y, y_pred)
        variables = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        self.total.assign_add(self.function(y_pred))
        return {"loss": loss}


def report_of(model: keras.Model) -> GradientReport:
    """The report of a check."""
    return check_gradients(model, X, Y)


@pytest.mark.parametrize("function", [bits, noise, bits.python_function, noise.python_function])
def test_a_metric_is_no_part_of_the_loss(function: Any) -> None:
    """Neither its precision nor its randomness is said to be the loss's."""
    model = Measuring(function)
    model.compile("sgd", "mse")
    report = report_of(model)
    assert report.verdict is Verdict.PASS, str(report)
    assert {variable.reason for variable in report.variables} == {""}
    assert report.objective.islands == report.objective.random_ops == report.notes == ()


@pytest.mark.parametrize(
    ("function", "named"), [(bits, "islands"), (noise, "random_ops")], ids=["bits", "noise"]
)
def test_a_part_of_the_loss_is_told(function: Any, named: str) -> None:
    """The same functions in the loss are noted, though they are called."""
    model = keras.Sequential([keras.Input((3,)), L.Dense(2)])
    little = 1e-7  # less than what float32 and float64 may differ in
    model.compile(
        "sgd", lambda y, y_pred: tf.reduce_mean((y - y_pred) ** 2) + little * function(y_pred)
    )
    report = report_of(model)
    assert report.objective.precision == "float64"
    assert getattr(report.objective, named)


class Scaled(keras.layers.Layer):
    """A factor that Keras does not know of."""

    def build(self, _shape: Any) -> None:
        self.factor = tf.Variable(2.0)

    def call(self, x: Any) -> Any:
        return self.factor * x


def test_a_raw_variable_of_the_loss_is_told() -> None:
    """One that the loss is computed from, and that is no weight, is not trained: a finding."""
    model = keras.Sequential([keras.Input((3,)), L.Dense(2), Scaled()])
    model.compile("sgd", "mse")
    (untracked,) = [v for v in report_of(model).variables if v.reason == "untracked"]
    assert untracked.verdict is Verdict.SUSPECT
