"""What is delivered late, again, or without its pictures."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from tracked import (
    BAD,
    GOOD,
    InProcess,
    report_of,
    steps,
    tracking_of,
)

from tfcheck.settings import Settings
from tfcheck.tracking import (
    progress,
    resend,
    server,
)


def test_server_away_loses_nothing(
    refused_port: int, store: str, said: Callable[[], list[str]], tmp_path: Path
) -> None:
    """Without a server a training of three checks loses no report, and is told so, twice."""
    mlflow.set_tracking_uri(f"http://me:secret@127.0.0.1:{refused_port}")
    reports = [report_of(GOOD, 0), report_of(BAD, 10), report_of(GOOD, 20)]
    begin = time.monotonic()
    tracking = tracking_of("ab12")
    tracking.start(Settings())
    for count in (1, 2, 3):
        tracking.log(reports[:count])
    assert len(said()) == 1
    tracking.close()
    assert time.monotonic() - begin < 5
    away, kept = said()
    assert away.startswith(f"MLflow at http://127.0.0.1:{refused_port} refused the connection")
    (file,) = tmp_path.glob("*.jsonl")
    assert f"tfcheck sync {file}" in kept
    assert "secret" not in away + kept
    assert "secret" not in "".join(path.read_text() for path in tmp_path.glob("gradcheck-*"))

    mlflow.set_tracking_uri(store)
    with mlflow.start_run() as run:
        resend(file, run.info.run_id)
    client = MlflowClient(store)
    assert steps(client, run.info.run_id, "gradcheck/worst_score") == [0, 10, 20]
    assert client.get_run(run.info.run_id).data.tags["gradcheck.verdict"] == "fail"
    assert not list(tmp_path.glob("gradcheck-*"))


def test_missed_checks_follow_when_the_server_is_back(
    client: MlflowClient,
    monkeypatch: pytest.MonkeyPatch,
    said: Callable[[], list[str]],
    tmp_path: Path,
) -> None:
    """Checks made while the server was away are logged at the next one, with their own times."""
    tracking = tracking_of()
    tracking.start(Settings())
    reports = [report_of(GOOD, 0), report_of(GOOD, 10)]
    with monkeypatch.context() as patch:
        patch.setattr(server, "trouble", lambda uri: "answered 503")
        tracking.log(reports[:1])
    assert len(list(tmp_path.glob("*.jsonl"))) == 1
    time.sleep(0.02)
    tracking.log(reports)
    tracking.close()
    assert tracking.run_id is not None
    history = client.get_metric_history(tracking.run_id, "gradcheck/worst_score")
    assert [entry.step for entry in history] == [0, 10]
    assert history[1].timestamp - history[0].timestamp >= 20
    assert not list(tmp_path.glob("gradcheck-*"))
    assert len(said()) == 1


def test_mlflow_failing_does_not_end_training(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch, said: Callable[[], list[str]]
) -> None:
    """Whatever MLflow raises is one warning, and the check is logged when MLflow works again."""
    tracking = tracking_of()
    tracking.start(Settings())

    def broken(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_batch", broken)
        tracking.log([report_of(GOOD, 0)])
        tracking.log([report_of(GOOD, 0), report_of(GOOD, 10)])
    (warning,) = said()
    assert " said RuntimeError: disk full: training goes on" in warning
    tracking.log([report_of(GOOD, 0), report_of(GOOD, 10), report_of(GOOD, 20)])
    assert tracking.run_id is not None
    assert steps(client, tracking.run_id, "gradcheck/worst_score") == [0, 10, 20]
    tracking.close()


def test_numbers_are_logged_when_pictures_fail(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch, said: Callable[[], list[str]]
) -> None:
    """Without artifact storage the metrics still arrive, and files follow when it works again."""
    tracking = tracking_of()
    tracking.start(Settings())

    def broken(*arguments: Any, **options: Any) -> None:
        raise OSError("no bucket")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_artifacts", broken)
        tracking.log([report_of(GOOD, 0)])
    assert "no bucket" in said()[0]
    assert tracking.run_id is not None
    assert steps(client, tracking.run_id, "gradcheck/worst_score") == [0]
    tracking.log([report_of(GOOD, 0), report_of(GOOD, 10)])
    tracking.close()
    found = {item.path for item in client.list_artifacts(tracking.run_id, "gradcheck")}
    assert {"gradcheck/step-000000", "gradcheck/step-000010"} <= found


def test_sending_twice_changes_nothing(client: MlflowClient, tmp_path: Path) -> None:
    """What is sent again, because its arrival could not be noted, is in MLflow once."""
    tracking = tracking_of()
    tracking.start(Settings())
    tracking.log([report_of(GOOD, 10)])
    run_id = tracking.run_id
    assert run_id is not None
    (file,) = tmp_path.glob("*.jsonl")
    noted = progress.load(file)
    progress.save(file, replace(noted, run_id=None, numbers=0, files=0))
    InProcess().tell(file)
    assert tracking.run_id == run_id
    assert steps(client, run_id, "gradcheck/worst_score") == [10]
    assert len(client.list_artifacts(run_id, "images")) == 2
    folders = [item.path for item in client.list_artifacts(run_id, "gradcheck") if item.is_dir]
    assert folders == ["gradcheck/step-000010"]
    tracking.close()
