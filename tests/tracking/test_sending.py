"""Sending what waits, and a report by itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from tracked import (
    BAD,
    GOOD,
    report_of,
    steps,
    tracking_of,
)

from tfcheck.settings import Settings
from tfcheck.tracking import (
    TrackingError,
    log_report,
    resend,
    sending,
    server,
)
from tfcheck.tracking.delivery import Delivery


def test_resend_keeps_the_file_until_all_arrived(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where pictures did not arrive the file stays; the run is ended, and nothing is doubled."""
    tracking = tracking_of()
    with monkeypatch.context() as patch:
        patch.setattr(server, "trouble", lambda uri: "refused the connection")
        tracking.start(Settings())
        tracking.log([report_of(BAD, 10)])
        tracking.close("KILLED")
    (file,) = tmp_path.glob("*.jsonl")

    def broken(*arguments: Any, **options: Any) -> None:
        raise OSError("507 Server Error: Insufficient Storage")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_artifacts", broken)
        with pytest.raises(TrackingError, match=r"pictures of 0 of 1 checks; .* answered 507"):
            resend(file)
    assert file.exists()
    run_id = resend(file)
    assert not list(tmp_path.glob("gradcheck-*"))
    run = client.get_run(run_id)
    assert run.info.status == "KILLED"
    assert run.data.tags["gradcheck.verdict"] == "fail"
    assert steps(client, run_id, "gradcheck/worst_score") == [10]
    assert len(client.search_runs([run.info.experiment_id])) == 1


def test_resend_ends_a_run_that_was_left(client: MlflowClient, tmp_path: Path) -> None:
    """A file that nobody closed is of a training that was killed."""
    tracking = tracking_of()
    tracking.start(Settings())
    tracking.log([report_of(GOOD, 10)])
    (file,) = tmp_path.glob("*.jsonl")
    lines = file.read_text().replace(f'"process": {os.getpid()}', '"process": 999999999')
    file.write_text(f'{lines}{{"made_at": 5, "rep')  # cut off while it was written
    run_id = resend(file)
    assert client.get_run(run_id).info.status == "KILLED"
    assert not file.exists()
    tracking._open = None


def test_resend_leaves_a_training_alone(tmp_path: Path) -> None:
    """What a training that goes on has not sent yet is its own affair."""
    tracking = tracking_of()
    tracking.start(Settings())
    (file,) = tmp_path.glob("*.jsonl")
    with pytest.raises(TrackingError, match=f"goes on as process {os.getpid()}"):
        resend(file)
    tracking.close()


def test_one_process_at_a_time_sends(
    monkeypatch: pytest.MonkeyPatch, store: str, experiment: str, tmp_path: Path
) -> None:
    """A file that is being sent is refused with a remedy; the end of who sent it frees it."""
    tracking = tracking_of()
    with monkeypatch.context() as patch:
        patch.setattr(server, "trouble", lambda uri: "answered 500")
        tracking.start(Settings())
        tracking.close()
    (file,) = tmp_path.glob("*.jsonl")
    holder = Delivery(file)
    monkeypatch.setattr(sending, "WAIT_SECONDS", 0)
    with pytest.raises(TrackingError, match="by one process at a time"):
        resend(file)
    holder.close()
    resend(file)


def test_log_report_in_an_experiment(client: MlflowClient) -> None:
    """A report outside training gets a finished run in the experiment named, at step 0."""
    run_id = log_report(report_of(BAD, None), experiment="audits", run_name="nightly")
    run = client.get_run(run_id)
    named = client.get_experiment_by_name("audits")
    assert named is not None
    assert run.info.experiment_id == named.experiment_id
    assert (run.info.run_name, run.info.status) == ("nightly", "FINISHED")
    assert steps(client, run_id, "gradcheck/worst_score") == [0]


def test_log_report_raises(refused_port: int, store: str) -> None:
    """Who logs a single report is told when it does not arrive."""
    mlflow.set_tracking_uri(f"http://127.0.0.1:{refused_port}")
    with pytest.raises(TrackingError, match="MLflow must be there to log a report"):
        log_report(report_of(GOOD))
    mlflow.set_tracking_uri(store)
    with pytest.raises(TrackingError, match="MLflow did not take the report"):
        log_report(report_of(GOOD), run_id="0" * 32)
