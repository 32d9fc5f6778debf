"""What a training step chooses to do that is no wrong derivative: told in a note, with its line."""

# mypy: allow-subclassing-any

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcheck import Verdict, check_gradients
from tfcheck.trace.batch import first_batch
from tfcheck.trace.choices import Choices
from tfcheck.trace.steps import model_step
from tfcheck.trace.tracing import trace

L = keras.layers
RNG = np.random.default_rng(3)
X, Y = RNG.normal(size=(8, 3)).astype("float32"), RNG.normal(size=(8, 2)).astype("float32")
Call = Callable[..., Any]


class Choosing(keras.Sequential):
    """A network whose step calls it in some way, and changes its loss and its gradients."""

    mode: Any = True

    def train_step(self, data: Any) -> Any:
        x, y = data
        with tf.GradientTape() as tape:
            how = {} if self.mode is None else {"training": self.mode}
            predicted = self(x, **how)  # called
            loss = self.loss_of(self, x, y, predicted)
        variables = self.trainable_variables
        gradients = self.change(tape.gradient(loss, variables))
        self.optimizer.apply(gradients, variables)
        return {"loss": loss}


def as_compiled(model: Any, x: Any, y: Any, predicted: Any) -> Any:
    """The loss that the model is compiled with."""
    return model.compute_loss(x, y, predicted)


def network(
    *middle: Any, mode: Any = True, trains: Call = as_compiled, change: Call = list, **how: Any
) -> keras.Model:
    """A network with some layers in the middle."""
    keras.utils.set_random_seed(3)
    model = Choosing([keras.Input((3,)), L.Dense(4), *middle, L.Dense(2)], name="net")
    model.mode, model.loss_of, model.change = mode, trains, change
    model.compile(**{"optimizer": "sgd", "loss": "mse", **how})
    return model


def told_of(model: keras.Model) -> tuple[str, ...]:
    """What there is to tell of a model's step, from its trace alone."""
    return Choices(trace(model_step(model), first_batch(X, Y)).recording).notes


def notes_on(model: keras.Model) -> tuple[str, ...]:
    """The notes of the report on a model that passes."""
    report = check_gradients(model, X, Y, verbose=0)
    assert report.verdict is Verdict.PASS, str(report)
    return report.notes


def line_of(text: str) -> int:
    """The number of the line in this file that ends with a text."""
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    return next(number for number, line in enumerate(lines, 1) if line.endswith(text))


ACTING: dict[str, Call] = {
    "dropout": lambda: L.Dropout(0.3, name="acting"),
    "batch normalisation": lambda: L.BatchNormalization(name="acting"),
    "noise": lambda: L.GaussianNoise(0.1, name="acting"),
    "a layer of one's own": lambda: Louder(name="acting"),
}


class Louder(keras.layers.Layer):
    """A layer that doubles what it is given, in training."""

    def call(self, x: Any, training: bool = False) -> Any:
        return 2 * x if training else x


@pytest.mark.parametrize("kind", ACTING)
def test_trained_as_at_inference(kind: str) -> None:
    """What trains without its layers' training behaviour is told, with the line of the call."""
    (note,) = told_of(network(ACTING[kind](), mode=False))
    said = f"calls net with training=False at test_choices.py:{line_of('# called')}"
    assert said in note.replace("tests/", "")
    assert note.endswith("acting.")


@pytest.mark.parametrize("eagerly", [False, True])
def test_training_was_forgotten(eagerly: bool) -> None:
    """The report says so, in a graph as in a step that runs eagerly, and the verdict stands."""
    notes = notes_on(network(L.Dropout(0.3), mode=None, run_eagerly=eagerly))
    assert "calls net without training=True at" in notes[-1]


@pytest.mark.parametrize(
    "middle",
    [[], [L.Dropout(0.0)], [L.BatchNormalization(trainable=False)], [L.LayerNormalization()]],
    ids=["plain", "no dropout", "frozen", "layer normalisation"],
)
def test_what_acts_alike_may_be_called_as_at_inference(middle: list[Any]) -> None:
    """A network that does the same in training needs no `training=True`."""
    assert told_of(network(*middle, mode=False)) == ()


def test_called_as_in_training() -> None:
    """Of a step that does as Keras does there is nothing to tell."""
    assert notes_on(network(L.Dropout(0.3), L.BatchNormalization())) == ()


def test_a_model_that_takes_no_training() -> None:
    """Keras's own step cannot hand `training` to a call that does not take it: that is told."""

    class Silent(keras.Model):
        def __init__(self) -> None:
            super().__init__(name="silent")
            self.dense, self.drop = L.Dense(2), L.Dropout(0.3, name="acting")

        def call(self, x: Any) -> Any:
            return self.drop(self.dense(x))

    model = Silent()
    model(X)
    model.compile("sgd", "mse")
    (note,) = told_of(model)
    assert "calls silent without training=True, which its call does not take, so that" in note


CHANGES: dict[str, tuple[Call, str]] = {
    "by value": (lambda g: [tf.clip_by_value(x, -0.01, 0.01) for x in g], "clips"),
    "by Keras": (lambda g: [keras.ops.clip(x, -0.01, 0.01) for x in g], "clips"),
    "by norm": (lambda g: [tf.clip_by_norm(x, 0.1) for x in g], "clips"),
    "far off": (lambda g: [tf.clip_by_norm(x, 1e6) for x in g], "clips"),
    "together": (lambda g: tf.clip_by_global_norm(g, 0.1)[0], "clips"),
    "unit": (lambda g: [tf.math.l2_normalize(x) for x in g], "normalises"),
    "by hand": (lambda g: [x / (tf.norm(x) + 1e-8) for x in g], "normalises"),
    "signs": (lambda g: [tf.sign(x) for x in g], "normalises"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_gradients_changed_on_their_way(name: str) -> None:
    """Clipping and normalising are told with their line, whether or not they do anything here."""
    change, verb = CHANGES[name]
    (note,) = told_of(network(change=change))
    line = change.__code__.co_firstlineno
    said = f"The training step {verb} 4 gradient(s) on their way to the optimizer at "
    assert note.replace("tests/", "").startswith(f"{said}test_choices.py:{line}"), note


@pytest.mark.parametrize(
    "change",
    [list, lambda g: [tf.identity(x) for x in g], lambda g: [tf.convert_to_tensor(x) for x in g]],
)
def test_gradients_left_alone(change: Call) -> None:
    """Of gradients that arrive as they were found there is nothing to tell."""
    assert told_of(network(change=change)) == ()


def absolute(_model: Any, _x: Any, y: Any, predicted: Any) -> Any:
    """Another loss than the compiled one."""
    return tf.reduce_mean(tf.abs(y - predicted))  # another


@pytest.mark.parametrize(
    ("loss", "named"), [("mse", "mse"), (keras.losses.MeanSquaredError(), "mean_squared_error")]
)
def test_a_compiled_loss_that_is_not_used(loss: Any, named: str) -> None:
    """The line that computes what trains in its place is told."""
    (note,) = notes_on(network(trains=absolute, loss=loss))
    assert note.startswith(f"The model is compiled with a loss ({named}) that its training step")
    assert f"test_choices.py:{line_of('# another')}" in note


@pytest.mark.parametrize(
    "trains",
    [
        as_compiled,
        lambda _m, _x, y, p: tf.reduce_mean((y - p) ** 2),
        lambda m, x, y, p: m.compute_loss(x, y, p) + 0.1 * tf.reduce_mean(tf.abs(p)),
        lambda m, _x, y, p: m.loss(y, p) + 0.1 * tf.reduce_mean(tf.abs(p)),
        lambda m, x, y, p: tf.function(m.compute_loss)(x, y, p) + tf.reduce_mean(p**2),
    ],
    ids=["by compute_loss", "by hand", "with more", "called", "in a function"],
)
def test_a_compiled_loss_that_is_used(trains: Call) -> None:
    """A step that trains the compiled loss, or that and more, is not told that it does not."""
    assert notes_on(network(trains=trains, loss=keras.losses.MeanSquaredError())) == ()
