"""Runs read back from real stores, whole or with much of them missing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from tracked import BAD, GOOD, error_report, logged, report_of, tracking_of, variable_report

from tfcheck.judge.verdict import Verdict
from tfcheck.report.rows import LayerReport
from tfcheck.runs.record import RunRecord
from tfcheck.settings import Settings
from tfcheck.tracking import reading, server

PLACE = {"culprits": ("net/conv",), "culprit_places": ("shop/layers.py:12 in Conv.call",)}


@pytest.fixture(params=["sqlite", "files"])
def read(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], RunRecord]:
    """Reads a run from a store of either kind, which is the current one."""
    if request.param == "sqlite":
        request.getfixturevalue("experiment")
    else:
        monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
        mlflow.set_experiment("files")
    return record_of


def record_of(run_id: str) -> RunRecord:
    """A run of the current store."""
    client = MlflowClient()
    return reading.record(client, client.get_run(run_id), "digits")


def files_of(run_id: str) -> Path:
    """Where the files of a run are."""
    found = server.local_path(MlflowClient().get_run(run_id).info.artifact_uri)
    assert found is not None
    return found


def without_files(run_id: str) -> None:
    """Take away all that was logged as files."""
    for path in files_of(run_id).iterdir():
        shutil.rmtree(path)


def moments(record: RunRecord) -> list[tuple[int, str]]:
    """Steps and verdicts of the checks."""
    return [(check.step, str(check.verdict)) for check in record.checks]


def test_checks_come_back_as_they_were(read: Callable[[str], RunRecord]) -> None:
    """Steps, epochs, layers, culprits with their places, coverage, and when it was."""
    wrong = report_of(BAD, 57, epoch=1, checkpoint="epoch 1", model="net", **PLACE)
    record = read(logged([report_of(GOOD, 0, epoch=0, checkpoint="start"), wrong]))
    assert moments(record) == [(0, "pass"), (57, "fail")]
    first, last = record.checks
    assert last.layers == {"conv": "fail", "out": "pass"}
    assert (last.culprits, last.places) == (("conv",), {"conv": PLACE["culprit_places"][0]})
    assert (last.moment, last.coverage, last.whole) == ("epoch 1 (step 57)", 1.0, True)
    assert first.made_at is not None
    assert last.made_at is not None
    assert record.started_at is not None
    assert first.made_at <= last.made_at
    assert record.verdict is Verdict.FAIL
    assert record.experiment == "digits"


def test_without_files_the_numbers_tell(read: Callable[[str], RunRecord]) -> None:
    """Which checks failed, and which layers; nothing is made up."""
    reports = [report_of(GOOD, 0, epoch=0), report_of(BAD, 57, epoch=1), error_report(114)]
    run_id = logged(reports)
    without_files(run_id)
    record = read(run_id)
    assert moments(record) == [(0, "inconclusive"), (57, "fail"), (114, "error")]
    assert record.checks[1].layers == {"conv": "fail"}
    assert [check.epoch for check in record.checks] == [0, 1, None]
    assert not record.whole
    good = logged([report_of(GOOD, 0)])
    without_files(good)
    assert moments(read(good)) == [(0, "pass")]


def test_a_suspect_run_without_files_does_not_pass(read: Callable[[str], RunRecord]) -> None:
    """Its numbers do not say which check was suspect, so that none of them is taken for good."""
    layer = LayerReport("a", 1e-4, Verdict.SUSPECT, (variable_report("a", "kernel", 1e-4),))
    suspect = report_of({}, 57, verdict=Verdict.SUSPECT, layers=(layer,), culprits=())
    run_id = logged([report_of(GOOD, 0), suspect])
    without_files(run_id)
    assert {check.verdict for check in read(run_id).checks} == {Verdict.SUSPECT}


def test_a_report_of_another_version_is_told_by_its_numbers(
    read: Callable[[str], RunRecord],
) -> None:
    """The others are read whole."""
    run_id = logged([report_of(GOOD, 0), report_of(BAD, 57)])
    file = files_of(run_id) / "gradcheck" / "step-000057" / "report.json"
    file.write_text(json.dumps({"schema": 99}), encoding="utf-8")
    record = read(run_id)
    assert moments(record) == [(0, "pass"), (57, "fail")]
    assert [check.whole for check in record.checks] == [True, False]


def test_reports_without_metrics_are_read(read: Callable[[str], RunRecord]) -> None:
    """Where only files and tags were carried over, when a check was made is unknown."""
    folder = files_of(logged([report_of(BAD, 57)])) / "gradcheck"
    with mlflow.start_run() as run:
        mlflow.log_artifacts(str(folder), "gradcheck")
        mlflow.set_tag("gradcheck.schema", "1")
    record = read(run.info.run_id)
    assert moments(record) == [(57, "fail")]
    assert record.checks[0].made_at is None


def test_a_run_that_was_never_checked(read: Callable[[str], RunRecord]) -> None:
    """It has no checks and no verdict, whatever else was logged."""
    with mlflow.start_run() as run:
        mlflow.log_metric("loss", 1.0)
    record = read(run.info.run_id)
    assert (record.checks, record.verdict) == ((), None)


def test_two_callbacks_and_a_resumed_training(read: Callable[[str], RunRecord]) -> None:
    """All checks are there, at the steps of the run, each with its callback."""
    with mlflow.start_run() as run:
        first, second = tracking_of(), tracking_of(about="inference")
        for tracking, scores in ((first, GOOD), (second, BAD)):
            tracking.start(Settings())
            tracking.log([report_of(scores, 0), report_of(scores, 10)])
        for tracking in (first, second):
            tracking.close(last_step=10)
        logged([report_of(GOOD, 0), report_of(GOOD, 10)])
    record = read(run.info.run_id)
    by_name: dict[str, list[Any]] = {}
    for check in record.checks:
        by_name.setdefault(check.name, []).append((check.step, str(check.verdict)))
    assert by_name == {
        "gradcheck": [(0, "pass"), (10, "pass"), (10, "pass"), (20, "pass")],
        "inference": [(0, "fail"), (10, "fail")],
    }
    assert record.tags["gradcheck.last_step"] == "10"


def test_the_last_good_run_is_a_tag(read: Callable[[str], RunRecord]) -> None:
    """From the first check on; a run that failed, or of another experiment, is none."""
    runs = [
        logged([report_of(scores, 0), report_of(scores, 5)]) for scores in (GOOD, BAD, GOOD, BAD)
    ]
    found = [read(run_id).tags["gradcheck.last_good_run"] for run_id in runs]
    assert found == ["none", runs[0], runs[0], runs[2]]
    mlflow.set_experiment("another")
    assert read(logged([report_of(GOOD)])).tags["gradcheck.last_good_run"] == "none"


def test_how_far_a_training_went(read: Callable[[str], RunRecord]) -> None:
    """By the metrics that are not tfcheck's, and by the end that was noted."""
    with mlflow.start_run() as run:
        tracking = tracking_of()
        tracking.start(Settings())
        tracking.log([report_of(GOOD, 0)])
        for epoch in range(3):
            mlflow.log_metric("loss", 1.0, step=epoch)
        tracking.close(last_step=171)
    client = MlflowClient()
    training = reading.training(client, client.get_run(run.info.run_id))
    assert training.last_step == 171
    (series,) = training.series
    assert (series.name, [step for step, _ in series.points]) == ("loss", [0, 1, 2])
    assert read(run.info.run_id).checks
