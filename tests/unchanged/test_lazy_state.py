"""State that a step makes when it first runs, as `fit` allows: checked as it is, and not kept."""

# mypy: allow-subclassing-any

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from fingerprint import nothing_changes

from tfcheck import Verdict, check_gradients
from tfcheck.callbacks import GradientCheck
from tfcheck.errors import ModelError

L = keras.layers
RNG = np.random.default_rng(7)
X = RNG.normal(size=(6, 3)).astype("float32")
Y = RNG.normal(size=(6, 2)).astype("float32")


class Lazy(keras.Model):
    """A step that hands its gradients to `state`, which makes what it needs."""

    def __init__(self, state: Callable[..., Any]) -> None:
        super().__init__(name="lazy")
        self.dense = L.Dense(2, name="dense")
        self.dense.build((None, 3))
        self.state = state
        self.kept: Any = None
        self.by_name: dict[Any, Any] = {}
        self.plain = SimpleNamespace(kept=None)

    def call(self, x: Any) -> Any:
        return self.dense(x)

    def train_step(self, data: Any) -> Any:
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x, y, self(x))
        variables = self.trainable_variables
        gradients = self.state(self, tape.gradient(loss, variables), y)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return {"loss": loss}


def added(kept: Any, gradients: Any) -> Any:
    """The gradients added to what is kept, and what is kept then."""
    for mine, gradient in zip(kept, gradients, strict=True):
        mine.assign_add(gradient)
    return [tf.convert_to_tensor(mine) for mine in kept]


def in_a_list(model: Any, gradients: Any, _y: Any) -> Any:
    """Accumulators in an attribute that was None."""
    if model.kept is None:
        model.kept = [tf.Variable(tf.zeros_like(v)) for v in model.trainable_variables]
    return added(model.kept, gradients)


def in_a_dict(model: Any, gradients: Any, _y: Any) -> Any:
    """Accumulators by the position of their variables."""
    for number, variable in enumerate(model.trainable_variables):
        if number not in model.by_name:
            model.by_name[number] = tf.Variable(tf.zeros(variable.shape), trainable=False)
    return added(model.by_name.values(), gradients)


def on_a_layer(model: Any, gradients: Any, _y: Any) -> Any:
    """A counter that is set on a layer."""
    if not hasattr(model.dense, "count"):
        model.dense.count = tf.Variable(0.0)
    model.dense.count.assign_add(1.0)
    return gradients


def of_keras(model: Any, gradients: Any, _y: Any) -> Any:
    """Keras variables in a plain object."""
    if model.plain.kept is None:
        model.plain.kept = [keras.Variable(tf.zeros_like(v)) for v in model.trainable_variables]
    return added(model.plain.kept, gradients)


def from_the_batch(model: Any, gradients: Any, y: Any) -> Any:
    """A first value that the batch gives."""
    if model.kept is None:
        model.kept = tf.Variable(tf.reduce_mean(y, 0))
    model.kept.assign(0.9 * model.kept + 0.1 * tf.reduce_mean(y, 0))
    return gradients


def a_generator(model: Any, gradients: Any, _y: Any) -> Any:
    """A random generator, whose state is a variable."""
    if model.kept is None:
        model.kept = tf.random.Generator.from_seed(3)
    model.kept.normal((2,))
    return gradients


STATES = [in_a_list, in_a_dict, on_a_layer, of_keras, from_the_batch, a_generator]


def lazy(state: Callable[..., Any], **how: Any) -> keras.Model:
    """The model, compiled."""
    model = Lazy(state)
    model.compile("sgd", "mse", **how)
    return model


@pytest.mark.parametrize("state", STATES)
def test_state_that_a_step_makes(state: Callable[..., Any]) -> None:
    """It is in the graph that is checked, and afterwards there is none."""
    model = lazy(state)
    with nothing_changes(model):
        report = check_gradients(model, X, Y)
    assert report.verdict is Verdict.PASS, str(report)
    assert report.objective.precision == "float64"


@pytest.mark.parametrize("eagerly", [False, True], ids=["graph", "eager"])
def test_state_that_a_loss_of_ones_own_makes(eagerly: bool) -> None:
    """What a function given as loss_fn keeps is as it was, too."""
    kept: dict[str, Any] = {}

    def loss(model: Any, x: Any, y: Any, _weight: Any) -> Any:
        if "scale" not in kept:
            kept["scale"] = tf.Variable(tf.ones((2,)))
        return tf.reduce_mean(kept["scale"] * (y - model(x)) ** 2)

    model = lazy(in_a_list, run_eagerly=eagerly)
    with nothing_changes(model):
        report = check_gradients(model, X, Y, loss_fn=loss)
    assert report.verdict is Verdict.PASS, str(report)
    assert kept == {}


def test_state_that_an_eager_step_makes() -> None:
    """Every run of it makes its own, which is gone with it."""
    model = lazy(in_a_list, run_eagerly=True)
    with nothing_changes(model):
        assert check_gradients(model, X, Y).verdict is Verdict.PASS


def test_later_checks_see_the_state_of_the_training() -> None:
    """What the first check made for itself is not what the training makes and goes on with."""

    def growing(model: Any, gradients: Any, _y: Any) -> Any:
        if model.kept is None:
            model.kept = tf.Variable(1.0)
        model.kept.assign_add(1.0)
        return [gradient * tf.where(model.kept > 5.0, 2.0, 1.0) for gradient in gradients]

    callback = GradientCheck(X, Y, epochs=(2, 6), tracking=None)
    with pytest.warns(UserWarning, match="2 times"):
        lazy(growing).fit(X, Y, epochs=6, verbose=0, callbacks=[callback])
    reasons = [{v.reason for v in report.variables} for report in callback.reports]
    assert reasons == [{""}, {""}, {"misapplied"}]
    # What the step reads, and the loss does not, is no weight that was forgotten.
    assert not any("no weights" in note for report in callback.reports for note in report.notes)


def test_a_layer_that_builds_itself_is_refused() -> None:
    """Its weights are what is trained, and there are none yet."""

    def building(model: Any, gradients: Any, y: Any) -> Any:
        model.late(y)
        return gradients

    model = lazy(building)
    model.late = L.Dense(3, name="late")
    with nothing_changes(model), pytest.raises(ModelError, match=r"its weight '.*late/kernel'"):
        check_gradients(model, X, Y)
