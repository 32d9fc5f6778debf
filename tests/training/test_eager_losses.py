"""What the step gives eagerly, beside the graph that fit runs."""

# mypy: allow-subclassing-any

from __future__ import annotations

import itertools
import queue
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcheck import GradientReport, Verdict, check_gradients
from tfcheck.checker import GradientChecker
from tfcheck.judge.verdict import Thresholds
from tfcheck.settings import make_settings
from tfcheck.trace.batch import first_batch

L = keras.layers
RNG = np.random.default_rng(5)
X = RNG.normal(size=(8, 5)).astype("float32")
Y = (RNG.normal(size=(8, 1)) > 0).astype("float32")


@pytest.fixture(autouse=True)
def same_weights() -> None:
    """Seed what layers draw their initial weights from."""
    keras.utils.set_random_seed(2)


def network(*layers: Any, loss: str = "binary_crossentropy", **compiling: Any) -> keras.Model:
    """A compiled model `net` of these layers."""
    model = keras.Sequential([keras.Input((5,)), *layers], name="net")
    model.compile("sgd", loss, **compiling)
    return model


def said(report: GradientReport) -> list[str]:
    """The notes on eager losses."""
    return [note for note in report.notes if "eagerly" in note]


class RawSigmoid(keras.layers.Layer):
    """A saturated sigmoid by TensorFlow itself, which Keras looks behind in graphs only."""

    def call(self, x: Any) -> Any:
        return tf.sigmoid(30 * x)


def test_a_raw_sigmoid_has_another_loss_eagerly() -> None:
    """Eagerly the probabilities are clipped; in fit's graph the logits are used. A note says so."""
    report = check_gradients(network(L.Dense(1), RawSigmoid()), X, Y)
    assert report.verdict is Verdict.PASS, str(report)
    (eager,), (graph,) = report.objective.eager_losses, report.objective.trained_losses
    assert abs(eager - graph) > 0.1
    (note,) = said(report)
    assert f"is {graph:.6g} in a graph, as fit runs it, and {eager:.6g} eagerly" in note


def test_models_that_run_eagerly_are_checked_eagerly() -> None:
    """With `run_eagerly=True` the eager loss is trained, and so checked; a note says so."""
    model = network(L.Dense(1), RawSigmoid(), run_eagerly=True)
    report = check_gradients(model, X, Y)
    # Saturated sigmoids leave next to nothing to measure in float32.
    assert report.verdict in (Verdict.PASS, Verdict.INCONCLUSIVE), str(report)
    assert report.objective.losses[0] == pytest.approx(model.evaluate(X, Y, verbose=0), rel=1e-6)
    (note,) = said(report)
    assert "as fit runs it, eagerly, in float32" in note


@pytest.mark.parametrize("scaled", [False, True])
def test_healthy_models_have_the_same_loss(scaled: bool) -> None:
    """Seed generators stand where they stood, dropout is silent in both, and scales are undone."""
    model = network(
        L.Dense(4, "tanh"), L.GaussianNoise(0.5, seed=3), L.Dropout(0.5), L.Dense(1, "sigmoid")
    )
    if scaled:
        model.optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())
    report = check_gradients(model, X, Y)
    assert report.objective.eager_losses == pytest.approx(report.objective.losses, rel=1e-5)
    assert said(report) == []


def test_nothing_changes() -> None:
    """The eager run puts everything back: weights, statistics, seeds, metrics, the optimizer."""
    model = network(L.Dense(4), L.BatchNormalization(), L.GaussianNoise(0.5), L.Dense(1, "sigmoid"))
    model.fit(X, Y, verbose=0)
    variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    before = [variable.numpy().copy() for variable in variables]
    assert check_gradients(model, X, Y).objective.eager_losses != ()
    for variable, value in zip(variables, before, strict=True):
        np.testing.assert_array_equal(variable, value, err_msg=variable.path)


class RawNoise(keras.layers.Layer):
    """Numbers from TensorFlow's global generator: others in each run."""

    ran_eagerly: queue.SimpleQueue[bool] = queue.SimpleQueue()  # nobody puts it back

    def call(self, x: Any) -> Any:
        if tf.executing_eagerly():
            RawNoise.ran_eagerly.put(True)
        return x + tf.random.normal(tf.shape(x))


class Counting(keras.layers.Layer):
    """Another loss each time: the calls are counted where nothing is put back."""

    calls = itertools.count(1)

    def call(self, x: Any) -> Any:
        return x * float(next(Counting.calls))


class Refusing(keras.layers.Layer):
    """Runs in graphs only."""

    def call(self, x: Any) -> Any:
        if tf.executing_eagerly():
            raise RuntimeError("not here")
        return x


@pytest.mark.parametrize("layer", [RawNoise, Counting, Refusing])
def test_steps_without_an_eager_loss_are_left_alone(layer: type[keras.layers.Layer]) -> None:
    """Random losses, losses that differ each time, and steps that raise say nothing."""
    report = check_gradients(network(L.Dense(2), layer(), L.Dense(1), loss="mse"), X, Y)
    assert report.verdict is Verdict.PASS, str(report)
    assert report.objective.eager_losses == ()
    assert said(report) == []
    assert RawNoise.ran_eagerly.empty()


def test_only_the_first_check_runs_eagerly() -> None:
    """The eager run costs time, and what it finds does not depend on the weights."""
    settings = make_settings(
        phase="train",
        method="directions",
        directions=2,
        epsilon="auto",
        thresholds=Thresholds(),
        expected_mismatch=(),
        seed=0,
    )
    checker = GradientChecker(network(L.Dense(1), RawSigmoid()), settings)
    first, second = (checker.check(first_batch(X, Y)) for _ in range(2))
    assert (len(said(first)), len(said(second))) == (1, 0)
    assert (len(first.objective.eager_losses), len(second.objective.eager_losses)) == (1, 0)
