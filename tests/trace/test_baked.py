"""What a trace bakes in before the first step, and `fit`'s own trace does not."""

# mypy: allow-subclassing-any

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfcheck.trace.tracing
from tfcheck import GradientReport, Verdict, check_gradients
from tfcheck.callbacks import GradientCheck
from tfcheck.objective.eager_step import listen_eagerly
from tfcheck.trace.batch import first_batch
from tfcheck.trace.steps import model_step

L = keras.layers
RNG = np.random.default_rng(4)
X, Y = RNG.normal(size=(8, 3)).astype("float32"), RNG.normal(size=(8, 2)).astype("float32")


def trained(model: keras.Model, *others: Any, epochs: int = 2, **how: Any) -> Any:
    """The reports of a training with two steps an epoch that is checked at its start and epochs."""
    check = GradientCheck(X, Y, epochs=range(1, epochs + 1), tracking=None, verbose=0)
    batches = {"batch_size": 4, "epochs": epochs, "verbose": 0, **how}
    model.fit(X, Y, callbacks=[*others, check], **batches)
    return check.reports


def all_pass(reports: tuple[GradientReport, ...]) -> bool:
    """Whether every report passes."""
    return all(report.verdict is Verdict.PASS for report in reports)


def growing(every: int = 2) -> Any:
    """An optimizer whose loss scale doubles after so many steps."""
    plain = keras.optimizers.SGD(0.01)
    return keras.optimizers.LossScaleOptimizer(plain, 2.0**6, dynamic_growth_steps=every)


class Own(keras.Sequential):
    """A network with a training step of its own, `step(model, x, y)`."""

    def __init__(self, step: Callable[..., Any], **attributes: Any) -> None:
        super().__init__([keras.Input((3,)), L.Dense(4, activation="tanh"), L.Dense(2)])
        self.step = step
        for name, value in attributes.items():
            setattr(self, name, value)

    def train_step(self, data: Any) -> Any:
        x, y = data
        return {"loss": self.step(self, x, y)}


def own(step: Callable[..., Any], **attributes: Any) -> Own:
    """A compiled network with a step of its own."""
    model = Own(step, **attributes)
    model.compile("sgd")
    return model


def descend(model: Any, loss: Any, tape: Any, optimizer: Any = None) -> Any:
    """One step of descent."""
    variables = model.trainable_variables
    (optimizer or model.optimizer).apply(tape.gradient(loss, variables), variables)
    return loss


def scaled_in_turn(model: Any, x: Any, y: Any) -> Any:
    """A step of each optimizer in a list, none of which Keras knows as the model's."""
    for optimizer in model.scaling:
        with tf.GradientTape() as tape:
            loss = optimizer.scale_loss(tf.reduce_mean((model(x) - y) ** 2))
        descend(model, loss, tape, optimizer)
    return loss


@pytest.mark.parametrize("kind", ["compiled", "held"])
def test_a_loss_scale_that_moves(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients are right whatever the scale is by then, and it is the one of the training."""
    keras.utils.set_random_seed(3)
    if kind == "held":
        model: Any = own(scaled_in_turn, scaling=[growing(1), growing(2)])
        optimizers = model.scaling
    else:
        half = {"dtype": "mixed_float16"}
        model = keras.Sequential([keras.Input((3,)), L.Dense(4, **half), L.Dense(2, **half)])
        model.compile(growing(), "mse")
        optimizers = [model.optimizer]
    traces = counted(monkeypatch)
    assert all_pass(trained(model))
    assert float(optimizers[0].dynamic_scale) > 2.0**6
    assert len(traces) == 2


def counted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A list that grows with every trace of a model's own step."""
    traces: list[Any] = []
    original = tfcheck.trace.tracing.trace

    def trace(step: Any, batch: Any) -> Any:
        if step.source == "train_step":
            traces.append(step)
        return original(step, batch)

    monkeypatch.setattr("tfcheck.prepared.trace", trace)
    return traces


def scaled_if_finite(model: Any, x: Any, y: Any) -> Any:
    """A step that hands its gradients over in a branch."""
    (optimizer,) = model.scaling
    variables = model.trainable_variables
    with tf.GradientTape() as tape:
        loss = optimizer.scale_loss(tf.reduce_mean((model(x) - y) ** 2))
    gradients = tape.gradient(loss, variables)

    def update() -> Any:
        optimizer.apply(gradients, variables)
        return tf.constant(1)

    tf.cond(tf.math.is_finite(loss), update, lambda: tf.constant(0))
    return loss


def test_a_scale_in_a_branch() -> None:
    """An optimizer that is asked in a branch of the step divides by the same scale."""
    keras.utils.set_random_seed(3)
    model = own(scaled_if_finite, scaling=[growing(1)])
    model.scaling[0].build(model.trainable_variables)
    report = check_gradients(model, X, Y, verbose=0)
    assert report.verdict is Verdict.PASS, str(report)
    assert report.objective.precision == "float64"
    assert report.notes == ()


def test_what_eager_steps_divide_by() -> None:
    """An eager step is asked for the scale each time: the first one, and then what became of it."""
    model = own(scaled_in_turn, scaling=[growing(1)])
    step, batch = model_step(model), first_batch(X, Y)

    def divided_by() -> set[float]:
        return {float(applied.divisor) for applied in listen_eagerly(step, batch).applied}

    assert divided_by() == {2.0**6}
    model.fit(X, Y, batch_size=4, verbose=0)
    assert divided_by() == {2.0**8}


def beginning(model: Any, x: Any, y: Any) -> Any:
    """A step that initialises its output layer from the first batch, and then trains."""
    if not model.begun:
        model.begun = True
        model.layers[-1].bias.assign(tf.reduce_mean(y, 0) - tf.reduce_mean(model(x), 0))
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((model(x) - y) ** 2)
    return descend(model, loss, tape)


def loss_of(model: Any) -> float:
    """The squared error of a network as it stands now."""
    return float(tf.reduce_mean((model(X) - Y) ** 2))


def test_what_only_the_first_step_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag that the first step sets is read again after it: the loss is that of the training."""
    keras.utils.set_random_seed(3)
    model = own(beginning, begun=False)
    losses: list[float] = []
    note = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: losses.append(loss_of(model)))
    traces = counted(monkeypatch)
    reports = trained(model, note)
    assert all_pass(reports)
    found = [report.objective.losses[0] for report in reports[1:]]
    assert found == pytest.approx(losses, rel=1e-5)
    assert len(traces) == 2


def test_what_changes_later_is_in_no_trace() -> None:
    """A number that a callback changes stays, for `fit` and the check, what it was when traced."""
    keras.utils.set_random_seed(3)

    def weighted(model: Any, x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = model.weight * tf.reduce_mean((model(x) - y) ** 2)
        return descend(model, loss, tape)

    model = own(weighted, weight=2.0)
    losses: list[float] = []

    def change(epoch: int, _logs: Any) -> None:
        if epoch > 0:
            model.weight = 10.0 * epoch
        losses.append(loss_of(model))

    note = keras.callbacks.LambdaCallback(on_epoch_end=change)
    reports = trained(model, note, epochs=3)
    found = [report.objective.losses[0] for report in reports[1:]]
    assert found == pytest.approx([2 * loss for loss in losses], rel=1e-5)


def test_an_ordinary_training_is_traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `fit` notes in a model is no reason to trace its step again."""
    keras.utils.set_random_seed(3)

    class Plain(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense, self.drop = L.Dense(2), L.Dropout(0.2)

        def call(self, x: Any, training: bool = False) -> Any:
            return self.drop(self.dense(x), training=training)

    model = Plain()
    model(X)
    model.compile("adam", "mse", metrics=["mae"])
    traces = counted(monkeypatch)
    assert all_pass(trained(model, validation_data=(X, Y)))
    assert len(traces) == 1
