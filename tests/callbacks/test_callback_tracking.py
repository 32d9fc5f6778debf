"""The callback with its log: real trainings, and a server that remembers."""

# mypy: allow-subclassing-any

from __future__ import annotations

import platform
import random
import sys
from pathlib import Path
from typing import Any

import by_a_factor
import keras
import mlflow
import numpy as np
import pytest
import tensorflow as tf
from fake_mlflow import FakeMlflow

import tfcheck.checker
from tfcheck.callbacks import GradientCheck
from tfcheck.callbacks.gradient_check import GradientCheckWarning
from tfcheck.errors import ArgumentError
from tfcheck.tracking import attachments

X = np.linspace(-1, 1, 32, dtype="float32").reshape(16, 2)
Y = X[:, :1] - 0.3


def model() -> keras.Model:
    """A small compiled model, the same each time."""
    keras.utils.set_random_seed(1)
    net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="a")], name="net")
    net.compile("sgd", "mse")
    return net


def trained(net: keras.Model, *callbacks: Any) -> Any:
    """Train for four batches in each of two epochs."""
    return net.fit(X, Y, batch_size=4, epochs=2, verbose=0, callbacks=list(callbacks))


def weights_and_random_numbers(*callbacks: Any) -> tuple[Any, ...]:
    """What a training leaves, and the next numbers of all generators."""
    net = model()
    history = trained(net, *callbacks).history
    return (
        history,
        [weight.tolist() for weight in net.get_weights()],
        random.random(),
        np.random.standard_normal(2).tolist(),  # noqa: NPY002 - the global state is compared
        keras.random.normal((2,)).numpy().tolist(),
    )


def test_logging_changes_nothing_of_a_training(fake: FakeMlflow) -> None:
    """With a run of its own in MLflow, a training is bit for bit what it is without."""
    alone = weights_and_random_numbers()
    runs = [weights_and_random_numbers(GradientCheck(X[:4], Y[:4], epochs=1)) for _ in range(2)]
    assert runs == [alone, alone]
    names = {run["name"] for run in fake.runs.values()}
    assert len(names) == 2  # though both trainings were seeded alike
    assert {run["status"] for run in fake.runs.values()} == {"FINISHED"}


def wrong_model() -> keras.Model:
    """One with a wrong layer, the same each time."""
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(2), by_a_factor.Scale(name="scale"), keras.layers.Dense(1)]
    net = keras.Sequential([keras.Input((2,)), *layers], name="net")
    net.compile("sgd", "mse")
    return net


def test_a_culprit_in_a_training_becomes_a_unit_test(fake: FakeMlflow, tmp_path: Path) -> None:
    """Every report of the training has it, with what the first check saw; the log has it once."""
    callback = GradientCheck(X[:4], Y[:4], epochs=1)
    net = wrong_model()
    with pytest.warns(GradientCheckWarning, match="Culprit: net/scale"):
        trained(net, callback)
    first, last = callback.reports
    assert last.reproduction is not None
    assert last.reproduction is first.reproduction
    assert "found wrong at start (step 0)." in last.reproduction.source
    assert last.reproduce(tmp_path / "tests")[0].name == "test_gradient_of_scale.py"
    logged = {path.partition("/gradcheck/")[2]: content for path, content in fake.artifacts.items()}
    folder = "step-000000"
    assert logged[f"{folder}/scale_inputs.npz"] == last.reproduction.arrays
    test = logged[f"{folder}/test_gradient_of_scale.py"].decode()
    assert "sys.path" not in test  # nothing tells where this machine has its modules
    assert sum("test_gradient" in path for path in logged) == 1


def test_large_unit_tests_are_not_sent(fake: FakeMlflow, monkeypatch: pytest.MonkeyPatch) -> None:
    """What would take long to send stays with the report."""
    monkeypatch.setattr(attachments, "MOST_BYTES", 1000)
    callback = GradientCheck(X[:4], Y[:4])
    with pytest.warns(GradientCheckWarning):
        trained(wrong_model(), callback)
    assert callback.reports[0].reproduction is not None
    assert any(path.endswith("report.json") for path in fake.artifacts)
    assert not any("test_gradient" in path for path in fake.artifacts)


def test_unit_tests_change_nothing_of_a_training(
    fake: FakeMlflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training with a wrong layer is bit for bit what it is without the checks that find it."""
    monkeypatch.setattr(sys.modules[__name__], "model", wrong_model)
    alone = weights_and_random_numbers()
    callback = GradientCheck(X[:4], Y[:4], epochs=1)
    with pytest.warns(GradientCheckWarning):
        assert weights_and_random_numbers(callback) == alone
    assert callback.reports[-1].reproduction is not None


def test_two_callbacks_in_one_training(fake: FakeMlflow) -> None:
    """Each has its name in its reports and in the log, and the epoch is logged."""
    first = GradientCheck(X[:4], Y[:4], epochs=1)
    second = GradientCheck(X[:4], Y[:4], phase="inference", epochs=1)
    third = GradientCheck(X[4:8], Y[4:8], start=False, epochs=2, name="other-batch")
    run_id = mlflow.MlflowClient(fake.uri).create_run("7", run_name="mine").info.run_id
    for callback in (first, second, third):
        callback.run_id = run_id
    trained(model(), first, second, third)
    assert [callback.reports[-1].name for callback in (first, second, third)] == [
        "gradcheck",
        "inference",
        "other-batch",
    ]
    assert fake.steps("gradcheck/epoch") == [0, 4]
    assert fake.steps("gradcheck-inference/epoch") == [0, 4]
    assert fake.steps("gradcheck-other-batch/epoch") == [8]
    params = fake.runs[run_id]["params"]
    assert params["gradcheck-inference.phase"] == "inference"
    prints = [params[f"{name}.batch_fingerprint"] for name in ("gradcheck", "gradcheck-inference")]
    assert prints[0] == prints[1] != params["gradcheck-other-batch.batch_fingerprint"]
    assert fake.runs[run_id]["status"] == "RUNNING"  # which its maker ends


def test_a_run_says_where_training_ended_and_with_what(fake: FakeMlflow) -> None:
    """The last step, which a run that somebody else ends has, too, and the versions."""
    theirs = mlflow.MlflowClient(fake.uri).create_run("7", run_name="mine").info.run_id
    callback = GradientCheck(X[:4], Y[:4])
    for run_id in (None, theirs):
        callback.run_id = run_id
        callback._log = None
        trained(model(), callback)
    for run in fake.runs.values():
        assert run["tags"]["gradcheck.last_step"] == "8"
        assert run["tags"]["gradcheck.last_good_run"] in {"none", *fake.runs}
        assert run["params"]["gradcheck.keras"] == keras.__version__
        assert run["params"]["gradcheck.tensorflow"] == tf.__version__
        assert run["params"]["gradcheck.python"] == platform.python_version()


def test_an_interrupted_check_closes_the_log(
    fake: FakeMlflow, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ctrl-C in a check goes through, and the run is killed with what it had."""

    def interrupted(*arguments: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    callback = GradientCheck(X[:4], Y[:4], epochs=1)

    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            monkeypatch.setattr(tfcheck.checker.GradientChecker, "check", interrupted)

    with pytest.raises(KeyboardInterrupt):
        trained(model(), callback, Interrupt())
    assert fake.wait_for(lambda: not list(tmp_path.glob("*.jsonl")))
    (run,) = fake.runs.values()
    assert run["status"] == "KILLED"
    assert fake.steps() == [0]


def test_a_check_that_stops_training_is_logged(
    fake: FakeMlflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that is raised into `fit` is in the log before, and the run has failed."""

    def broken(*arguments: Any, **options: Any) -> Any:
        raise ZeroDivisionError("no luck")

    monkeypatch.setattr(tfcheck.checker.GradientChecker, "check", broken)
    with pytest.raises(ZeroDivisionError):
        trained(model(), GradientCheck(X[:4], Y[:4], on_error="raise"))
    (run,) = fake.runs.values()
    assert run["status"] == "FAILED"
    assert run["tags"]["gradcheck.verdict"] == "error"


def test_a_model_that_steps_by_itself_is_logged_at_its_steps(fake: FakeMlflow) -> None:
    """Where no optimizer steps, checks are at the batches they were made after, side by side."""
    net = model()
    net.train_step = lambda data: {"loss": net.compute_loss(data[0], data[1], net(data[0]))}
    trained(net, GradientCheck(X[:4], Y[:4], steps=(2, 5)))
    assert fake.steps("gradcheck/epoch") == [0, 2, 5]
    folders = {path.split("/")[-2] for path in fake.artifacts if path.endswith("report.json")}
    assert folders == {"step-000000", "step-000002", "step-000005"}


@pytest.mark.parametrize(
    "options",
    [{"name": ""}, {"name": "a/b"}, {"name": 3}, {"close_timeout": -1}, {"close_timeout": "long"}],
)
def test_what_cannot_be_a_name_or_a_time_is_refused(options: dict[str, Any]) -> None:
    """Refused at construction, naming the option."""
    with pytest.raises(ArgumentError, match=f"Received: {next(iter(options))}="):
        GradientCheck(X[:4], Y[:4], **options)
