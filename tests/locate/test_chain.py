"""The layers in a row: each once, in the order of the loss, with those that a culprit corrupts."""

# mypy: allow-subclassing-any

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from wrong_sine import WrongSine, wrong_sine

from tfcheck import GradientReport, check_gradients, check_layer

L = keras.layers
RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 4)).astype("float32")
Y = RNG.normal(size=(8, 1)).astype("float32")


def chain(report: GradientReport) -> list[str]:
    """The layers, with a star where the gradient is corrupted."""
    links = report.relative_to_model().chain
    return [f"{link.path}{'*' if link.corrupted else ''}" for link in links]


@pytest.mark.parametrize("eager", [False, True])
def test_what_is_before_the_culprit_is_corrupted(eager: bool) -> None:
    """And nothing else: neither what has no variable before it, nor what comes after."""
    keras.utils.set_random_seed(1)
    layers = [
        L.Rescaling(0.5, name="half"),
        L.Dense(4, name="first"),
        WrongSine(name="sine"),
        L.Dense(1, name="last"),
    ]
    model = keras.Sequential([keras.Input((4,)), *layers])
    model.compile("sgd", "mse", run_eagerly=eager)
    report = check_gradients(model, X, Y, directions=1)
    assert report.relative_to_model().culprits == ("sine",)
    assert chain(report) == ["half", "first*", "sine", "last", "loss"]


def test_a_branch_beside_the_culprit_is_not() -> None:
    """Only the layers whose gradient comes through the culprit."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4,))
    one = L.Lambda(wrong_sine, name="sine")(L.Dense(3, name="one")(inputs))
    other = L.Activation("tanh", name="bend")(L.Dense(3, name="other")(inputs))
    model = keras.Model(inputs, L.Dense(1, name="last")(L.Add(name="sum")([one, other])))
    model.compile("sgd", "mse")
    found = chain(check_gradients(model, X, Y))
    assert {name for name in found if name.endswith("*")} == {"one*"}
    assert {"other", "bend", "sine", "sum", "last"} <= set(found)
    assert found[-1] == "loss"


def wrong_loss(y: Any, prediction: Any) -> Any:
    """A loss that is wrong by itself."""
    return keras.ops.mean(wrong_sine(prediction - y), axis=-1)


def test_a_wrong_loss_corrupts_all() -> None:
    """The loss is the last of the row."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), L.Dense(3, name="first"), L.Dense(1, name="last")])
    model.compile("sgd", wrong_loss)
    report = check_gradients(model, X, Y)
    assert report.culprits == ("loss",)
    assert chain(report) == ["first*", "last*", "loss"]


class OwnStep(keras.Model):
    """A step that is wrong outside of its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = L.Dense(3, name="first"), L.Dense(1, name="last")

    def call(self, x: Any) -> Any:
        return self.last(self.first(x))

    def train_step(self, data: Any) -> dict[str, Any]:
        import tensorflow as tf

        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(wrong_sine(self(x, training=True) - y))
        variables = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return {"loss": loss}


def test_a_wrong_step_corrupts_all() -> None:
    """What is outside of all layers is at the end."""
    keras.utils.set_random_seed(1)
    model = OwnStep()
    model.compile("sgd")
    model(X)
    report = check_gradients(model, X, Y)
    assert report.culprits == ("train_step",)
    assert chain(report) == ["first*", "last*", "loss", "train_step"]


def test_without_a_culprit_there_is_none() -> None:
    """A right model has nothing to show."""
    model = keras.Sequential([keras.Input((4,)), L.Dense(1)])
    model.compile("sgd", "mse")
    assert check_gradients(model, X, Y).chain == ()


def test_a_layer_by_itself_has_no_loss() -> None:
    """The row of one layer is that layer."""
    assert chain(check_layer(WrongSine(name="sine"), X)) == ["sine"]
