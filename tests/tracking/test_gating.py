"""The gate on real trainings and registered models."""

# mypy: allow-subclassing-any

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import by_a_factor
import keras
import mlflow
import numpy as np
import pytest
import tensorflow as tf
from mlflow import MlflowClient
from tracked import InProcess

from tfcheck.callbacks import GradientCheck
from tfcheck.callbacks.gradient_check import GradientCheckWarning
from tfcheck.errors import ArgumentError
from tfcheck.judge.verdict import Verdict
from tfcheck.tracking import MlflowTracking, gate

X = np.linspace(-1, 1, 32, dtype="float32").reshape(16, 2)
Y = X[:, :1] - 0.3
EPOCHS = 3
STEPS = 4 * EPOCHS


def model(*layers: keras.layers.Layer) -> keras.Model:
    """A small compiled model with these layers in its middle, the same each time."""
    keras.utils.set_random_seed(1)
    ends = keras.layers.Dense(2, name="first"), keras.layers.Dense(1, name="last")
    net = keras.Sequential([keras.Input((2,)), ends[0], *layers, ends[1]], name="net")
    net.compile("sgd", "mse")
    return net


def checks(**options: Any) -> GradientCheck:
    """The callback, which logs in this process."""
    callback = GradientCheck(X[:4], Y[:4], **options)
    callback._log = MlflowTracking(callback.run_id, name=callback.name, sender=InProcess())
    return callback


def logged(net: keras.Model, name: str) -> None:
    """Log and register a model. What it needs is given: finding that out takes seconds."""
    needs = ["keras"]
    mlflow.keras.log_model(net, name="model", registered_model_name=name, pip_requirements=needs)


def trained(
    name: str, *callbacks: GradientCheck, net: keras.Model | None = None, register: str = ""
) -> str:
    """A run of a training with MLflow's own callback, and the model registered if asked for."""
    net = model() if net is None else net
    with mlflow.start_run(run_name=name) as run:
        logs = [*callbacks, mlflow.keras.MlflowCallback()]
        net.fit(X, Y, batch_size=4, epochs=EPOCHS, verbose=0, callbacks=logs)
        if register:
            logged(net, register)
        mlflow.log_metric("test_mse", 0.1)
    return str(run.info.run_id)


@pytest.fixture
def names(client: MlflowClient, experiment: str, tmp_path: Path) -> Iterator[str]:
    """What the models of the test are called; its runs and models go with it."""
    yield tmp_path.name
    for run in client.search_runs([experiment]):
        client.delete_run(run.info.run_id)
    for registered in client.search_registered_models():
        client.delete_registered_model(registered.name)


def test_a_good_training_passes(names: str) -> None:
    """By its run's name and id, and as the newest run of its experiment."""
    run_id = trained("good", checks(epochs=(1, EPOCHS)))
    for subject in ("good", run_id, run_id[:10], names):
        outcome = gate(subject, require_epochs=(1, EPOCHS))
        assert outcome.passed, outcome
        assert (outcome.run_id, outcome.verdict) == (run_id, Verdict.PASS)
        assert outcome.last_check == f"epoch {EPOCHS} (step {STEPS})"
    assert gate("good", require_epochs=2).reasons == ("No check passed after epoch 2.",)


def test_a_wrong_gradient_does_not_pass(names: str) -> None:
    """The culprit is named."""
    net = model(by_a_factor.Scale(name="scale"))
    with pytest.warns(GradientCheckWarning):
        trained("bug", checks(epochs=EPOCHS), net=net)
    assert gate("bug").reasons == (
        "A gradient is wrong in 2 of 2 checks, first at start (step 0) (scale).",
    )


def test_a_suspect_one_passes_only_if_it_may(names: str) -> None:
    """A step that trains on twice the compiled loss."""

    class Doubled(keras.Sequential):
        def train_step(self, data: Any) -> Any:
            x, y = data
            with tf.GradientTape() as tape:
                loss = 2.0 * self.compute_loss(x, y, self(x, training=True))
            weights = self.trainable_variables
            self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
            return {"loss": loss}

    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(2), keras.layers.Dense(1)]
    net = Doubled([keras.Input((2,)), *layers], name="net")
    net.compile("sgd", "mse")
    with pytest.warns(GradientCheckWarning):
        trained("suspect", checks(end=True), net=net)
    assert "A gradient is suspect in 2 of 2 checks" in gate("suspect").reasons[0]
    assert gate("suspect", allow_suspect=True)


def test_a_check_that_could_not_judge_does_not_pass(names: str) -> None:
    """Inconclusive is no pass, and what was not compared is not covered."""
    trained("late", checks(end=True, time_limit=1e-3))
    outcome = gate("late")
    assert outcome.verdict is Verdict.INCONCLUSIVE
    assert "could not judge every gradient" in outcome.reasons[0]


def test_a_check_at_the_start_is_older_than_the_training(names: str) -> None:
    """It passed, but nobody knows what happened since."""
    trained("early", checks())
    told = f"at start (step 0), is older than the model: training went on to step {STEPS}."
    assert gate("early").reasons == (f"The last check, {told}",)


def test_a_training_that_was_never_checked_does_not_pass(names: str) -> None:
    """Nor does its experiment, though an earlier run passes."""
    trained("good", checks(end=True))
    trained("unchecked")
    for subject in ("unchecked", names):
        assert gate(subject).reasons == ("The training of run unchecked was never checked.",)


def test_two_callbacks_must_both_pass(names: str) -> None:
    """The one that only looked at the start is older than the model."""
    trained("both", checks(end=True), checks(end=True, phase="inference"))
    assert gate("both")
    trained("one", checks(end=True), checks(name="other"))
    assert gate("one").reasons[0].startswith("The last check of other, at start (step 0)")


def test_a_resumed_training_is_judged_as_a_whole(names: str) -> None:
    """Checked again it passes; resumed without the callback, it does not."""
    net, callback = model(), checks(end=True)
    run_id = trained("resumed", callback, net=net)
    more = {"batch_size": 4, "epochs": 2 * EPOCHS, "initial_epoch": EPOCHS, "verbose": 0}
    with mlflow.start_run(run_id=run_id):
        net.fit(X, Y, callbacks=[mlflow.keras.MlflowCallback()], **more)
    assert "is older than the model" in gate("resumed").reasons[0]
    with mlflow.start_run(run_id=run_id):
        net.fit(X, Y, callbacks=[callback, mlflow.keras.MlflowCallback()], **more)
    outcome = gate("resumed")
    assert outcome.passed, outcome


def test_a_registered_model_is_judged_by_its_training(names: str, client: MlflowClient) -> None:
    """The version gets the outcome as tags, whatever it is called by, unless it must not."""
    name = f"model-{names}"
    run_id = trained("good", checks(end=True), register=name)
    client.set_registered_model_alias(name, "champion", "1")
    assert gate(f"models:/{name}/1", tags=False)
    assert client.get_model_version(name, "1").tags == {}
    for subject in (f"models:/{name}@champion", f"models:/{name}/latest"):
        assert gate(subject).run_id == run_id
    assert client.get_model_version(name, "1").tags == {
        "gradcheck.gate": "passed",
        "gradcheck.verdict": "pass",
        "gradcheck.run_id": run_id,
        "gradcheck.coverage": "1",
    }


@pytest.mark.parametrize(
    ("options", "why"), [({}, "is older than the model"), (None, "was never checked")]
)
def test_an_old_or_unchecked_model_does_not_pass(
    options: dict[str, Any] | None, why: str, names: str, client: MlflowClient
) -> None:
    """Its tags say why."""
    name = f"model-{names}"
    trained("run", *([] if options is None else [checks(**options)]), register=name)
    outcome = gate(f"models:/{name}/1")
    assert not outcome
    assert why in outcome.reasons[0]
    tag = client.get_model_version(name, "1").tags["gradcheck.gate"]
    assert tag == f"failed: {outcome.reasons[0]}"


def test_a_model_logged_in_the_middle_is_judged_by_what_trained_it(names: str) -> None:
    """What is logged after the model has not trained it, so that a check before it is enough."""
    name = f"model-{names}"

    class Log(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if epoch == 0:
                logged(self.model, name)

    with mlflow.start_run():
        callbacks = [Log(), mlflow.keras.MlflowCallback(), checks(end=True)]
        model().fit(X, Y, batch_size=4, epochs=EPOCHS, verbose=0, callbacks=callbacks)
    outcome = gate(f"models:/{name}/1")
    assert outcome.passed, outcome


def test_what_is_not_there_is_refused(names: str) -> None:
    """One sentence, with what can be asked for."""
    for subject in ("models:/none/1", "models:/none@champion", "models:/none/latest", "none"):
        with pytest.raises(ArgumentError, match=r"must exist\. Received: (model|subject)='"):
            gate(subject)
    with pytest.raises(ArgumentError, match=r"An experiment must have a run\. Received: "):
        gate(names)
    for coverage in (1.5, -1, True):
        with pytest.raises(ArgumentError, match="min_coverage must be a number from 0 to 1"):
            gate("none", min_coverage=coverage)
