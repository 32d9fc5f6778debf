"""Which run a training logs to, and who ends it."""

from __future__ import annotations

import json
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType
from tracked import (
    BAD,
    GOOD,
    artifact,
    logged,
    report_of,
    steps,
    tracking_of,
)

from tfcheck.settings import Settings


def test_active_run_is_used_and_not_ended(client: MlflowClient) -> None:
    """Inside `mlflow.start_run()`, checks go to that run, which its owner ends."""
    with mlflow.start_run() as run:
        assert logged([report_of(GOOD)]) == run.info.run_id
        active = mlflow.active_run()
        assert active is not None
        assert active.info.run_id == run.info.run_id
        assert client.get_run(run.info.run_id).info.status == "RUNNING"


def test_own_run_is_ended(client: MlflowClient, experiment: str) -> None:
    """Without an active run there is one of our own, in the current experiment, ended by us."""
    run_id = logged([report_of(GOOD)])
    run = client.get_run(run_id)
    assert run.info.experiment_id == experiment
    assert run.info.status == "FINISHED"
    assert mlflow.active_run() is None
    tracking = tracking_of()
    tracking.start()
    tracking.close("KILLED")
    assert tracking.run_id is not None
    assert client.get_run(tracking.run_id).info.status == "KILLED"


def test_interrupted_training_leaves_nothing_active(client: MlflowClient) -> None:
    """After a training that never closed, a new one has a new run, and the old one has failed."""
    tracking = tracking_of()
    tracking.start()
    tracking.log([report_of(GOOD)])
    first = tracking.run_id
    assert mlflow.active_run() is None
    tracking.start()
    tracking.log([report_of(GOOD)])
    tracking.close()
    assert first is not None
    assert tracking.run_id != first
    assert client.get_run(first).info.status == "FAILED"


def test_explicit_run_comes_first(client: MlflowClient, experiment: str) -> None:
    """A run that was asked for is used, though another is active, and is not ended."""
    wanted = client.create_run(experiment).info.run_id
    with mlflow.start_run():
        assert logged([report_of(GOOD)], wanted) == wanted
    assert client.get_run(wanted).info.status == "RUNNING"


def test_job_run_is_used(
    client: MlflowClient, experiment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that `mlflow run` made for the job is used."""
    wanted = client.create_run(experiment).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", wanted)
    assert logged([report_of(GOOD)]) == wanted


def test_run_started_later_is_followed(client: MlflowClient, experiment: str) -> None:
    """When another callback starts the run of the training, all checks are in that run."""
    tracking = tracking_of()
    tracking.start()
    tracking.log([report_of(GOOD, 0)])
    first = tracking.run_id
    with mlflow.start_run() as run:
        tracking.log([report_of(GOOD, 0), report_of(GOOD, 10)])
        tracking.close()
        run_id = run.info.run_id
        assert client.get_run(run_id).info.status == "RUNNING"
    assert first != run_id
    assert steps(client, run_id, "gradcheck/worst_score") == [0, 10]
    assert [r.info.run_id for r in client.search_runs([experiment])] == [run_id]
    deleted = client.search_runs([experiment], run_view_type=ViewType.DELETED_ONLY)
    assert [r.info.run_id for r in deleted] == [first]


def test_second_training_in_a_run_keeps_the_first(client: MlflowClient) -> None:
    """Freeze, fit, unfreeze, fit in one run: a failure of the first training is not forgotten."""
    with mlflow.start_run() as run:
        logged([report_of(GOOD, 0), report_of(BAD, 10)])
        logged([report_of(GOOD, 20, settings=Settings(batch_size=8))])
    data = client.get_run(run.info.run_id).data
    assert data.tags["gradcheck.verdict"] == "fail"
    assert data.tags["gradcheck.first_fail_step"] == "10"
    assert data.params["gradcheck.batch_size"] == "32"
    rows = json.loads(artifact(client, run.info.run_id, "gradcheck/scores.json"))["data"]
    assert sorted({row[0] for row in rows}) == [0, 10, 20]


def test_works_with_keras_autologging(client: MlflowClient, experiment: str) -> None:
    """Under `mlflow.keras.autolog()`, checks and loss are in the one run that autologging made."""
    import keras
    import numpy as np

    tracking = tracking_of()

    class Checking(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_begin(self, logs: Any = None) -> None:
            tracking.start()
            tracking.log([report_of(GOOD, 0)])

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            tracking.log([report_of(GOOD, 0), report_of(GOOD, 1)])

        def on_train_end(self, logs: Any = None) -> None:
            tracking.close()

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    mlflow.keras.autolog(log_models=False, log_datasets=False, silent=True)
    try:
        model.fit(np.ones((4, 2)), np.ones(4), verbose=0, callbacks=[Checking()])
    finally:
        mlflow.keras.autolog(disable=True)
    (run,) = client.search_runs([experiment])
    assert run.info.run_id == tracking.run_id
    assert run.info.status == "FINISHED"
    assert {"loss", "gradcheck/worst_score"} <= set(run.data.metrics)


def test_works_before_the_mlflow_callback(client: MlflowClient, experiment: str) -> None:
    """Listed before `MlflowCallback`, with no run active, checks end up in that callback's run."""
    import keras
    import numpy as np

    tracking = tracking_of()

    class Checking(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_begin(self, logs: Any = None) -> None:
            tracking.start()
            tracking.log([report_of(GOOD, 0)])

        def on_train_end(self, logs: Any = None) -> None:
            tracking.close()

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    callbacks = [Checking(), mlflow.keras.MlflowCallback()]
    model.fit(np.ones((4, 2)), np.ones(4), verbose=0, callbacks=callbacks)
    mlflow.flush_async_logging()
    (run,) = client.search_runs([experiment])
    assert run.info.run_id == tracking.run_id
    assert {"loss", "gradcheck/worst_score"} <= set(run.data.metrics)
