"""Weights that nobody tracks, and those that no tape is asked for: how they are told."""

# mypy: allow-subclassing-any

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcheck import GradientReport, Verdict, check_gradients, check_layer
from tfcheck.rendering.advice import advice

L = keras.layers
RNG = np.random.default_rng(3)
X, Y = RNG.normal(size=(6, 3)).astype("float32"), RNG.normal(size=(6, 2)).astype("float32")


def hidden(name: str = "hidden") -> keras.layers.Layer:
    """A built layer that no model holds."""
    layer = L.Dense(4, activation="tanh", name=name)
    layer.build((None, 3))
    return layer


def using(function: Callable[[Any], Any], **how: Any) -> keras.Model:
    """A network that begins with a lambda."""
    model = keras.Sequential([keras.Input((3,)), L.Lambda(function, name="user"), L.Dense(2)])
    model.compile(**{"optimizer": "sgd", "loss": "mse", **how})
    return model


def strangers(report: GradientReport) -> set[str]:
    """The untracked variables, without the model's name."""
    found = report.relative_to_model().variables
    return {v.path for v in found if v.reason == "untracked"}


@pytest.mark.parametrize("eagerly", [False, True])
def test_named_with_the_layer_that_uses_it(eagerly: bool) -> None:
    """A captured layer's weights are suspect, and stand with the layer that uses them."""
    dense = hidden()
    model = using(lambda x: 2 * dense(x), run_eagerly=eagerly)
    report = check_gradients(model, X, Y, verbose=0)
    assert report.verdict is Verdict.SUSPECT, str(report)
    assert strangers(report) == {"user/hidden/kernel", "user/hidden/bias"}
    assert report.relative_to_model().culprits == ("user",)
    assert {v.layer for v in report.relative_to_model().variables if v.reason} == {"user"}
    (told,) = advice(report)
    assert "`user`" in told.replace(f"{model.name}/", "")
    assert "add_weight" in told


def test_told_with_its_line() -> None:
    """The note says where the variable is used."""
    dense = hidden()

    def use(x: Any) -> Any:
        return 2 * dense(x)

    report = check_gradients(using(use), X, Y, verbose=0)
    line = use.__code__.co_firstlineno + 1
    notes = {v.note for v in report.variables if v.reason == "untracked"}
    file = f"{Path(__file__).name}:{line}"
    assert all(file in note for note in notes)


def test_a_layer_alone() -> None:
    """A layer that keeps its variables in a plain list is suspect by itself."""

    class Listed(keras.layers.Layer):
        def __init__(self) -> None:
            super().__init__(name="listed")
            self.parts = (tf.Variable(tf.ones((3, 2)), name="part"),)

        def call(self, x: Any) -> Any:
            return x @ self.parts[0]

    report = check_layer(Listed(), X, verbose=0)
    assert report.verdict is Verdict.SUSPECT, str(report)
    assert [v.path for v in report.variables if v.reason == "untracked"] == ["listed/part"]


@pytest.mark.parametrize("pattern", ["user", "user/hidden/*"])
def test_declared(pattern: str) -> None:
    """Weights that a layer is meant to borrow are declared with that layer, or by themselves."""
    dense = hidden()
    model = using(lambda x: 2 * dense(x))
    report = check_gradients(model, X, Y, verbose=0, expected_mismatch=[pattern])
    assert report.verdict is Verdict.PASS, str(report)
    assert report.culprits == ()


@pytest.mark.parametrize("frozen", [False, True])
def test_in_the_loss_alone(frozen: bool) -> None:
    """A network that only the loss uses is no more than a note."""
    judge = keras.Sequential([keras.Input((2,)), L.Dense(3, name="judging")])
    judge.trainable = not frozen
    loss = lambda y, p: tf.reduce_mean((judge(y) - judge(p)) ** 2)  # noqa: E731
    report = check_gradients(using(lambda x: 2 * x, loss=loss), X, Y, verbose=0)
    assert report.verdict is Verdict.PASS, str(report)
    (note,) = report.notes
    assert "2 variable(s) that are no weights of the model" in note
    assert "judging/kernel" in note


def test_nothing_to_tell() -> None:
    """What no gradient flows to, what is not trainable and what is frozen is not told."""
    dense, fixed = hidden(), tf.Variable(2.0, trainable=False)
    dense.trainable = False
    stopped = tf.Variable(tf.ones((3,)))
    model = using(lambda x: dense(x * tf.stop_gradient(stopped)) * fixed)
    report = check_gradients(model, X, Y, verbose=0)
    assert report.verdict is Verdict.PASS, str(report)
    assert report.notes == ()


def test_paths_that_print_alike() -> None:
    """Of two networks whose variables print alike, it is the one left out that is told."""

    class Twins(keras.Model):
        def __init__(self) -> None:
            super().__init__(name="twins")
            self.one, self.two = (
                keras.Sequential([keras.Input((3,)), *more, L.Dense(2, name="out")], name="twin")
                for more in ([], [L.Dense(5, name="more")])
            )
            self.built = True

        def train_step(self, data: Any) -> Any:
            x, y = data
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((self.one(x) * tf.sigmoid(self.two(x)) - y) ** 2)
            variables = self.one.trainable_variables
            self.optimizer.apply(tape.gradient(loss, variables), variables)
            return {"loss": loss}

    model = Twins()
    model.compile("sgd")
    report = check_gradients(model, X, Y, verbose=0)
    said = {v.path: v.reason for v in report.variables}
    trained = {"twin/out/kernel": "", "twin/out/bias": ""}
    left_out = ("twin/more/kernel", "twin/more/bias", "twin/out/kernel#2", "twin/out/bias#2")
    assert said == trained | dict.fromkeys(left_out, "untrained"), str(report)
