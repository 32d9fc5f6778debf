from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType

from tfcheck.errors import ReportError
from tfcheck.gradient_report import GradientReport
from tfcheck.judge.verdict import Thresholds, Verdict, worst
from tfcheck.report.rows import LayerReport, ObjectiveSummary, VariableReport
from tfcheck.settings import Settings
from tfcheck.tracking import (
    MlflowTracking,
    TrackingError,
    description,
    log_report,
    new_database,
    progress,
    resend,
    schema,
    sending,
    server,
    spool,
    tables,
    views,
)
from tfcheck.tracking.delivery import Delivery, deliver

Scores = dict[str, dict[str, float]]
GOOD: Scores = {"conv": {"kernel": 1e-9, "bias": 1e-10}, "out": {"kernel": 2e-8}}
BAD: Scores = {"conv": {"kernel": 0.25, "bias": 1e-10}, "out": {"kernel": 2e-8}}
NOTE = "mlflow.note.content"


def variable_report(layer: str, name: str, score: float, reason: str = "") -> VariableReport:
    """A variable judged by the bands of its score; an unknown score is a failure."""
    names = {"great": "pass", "okay": "pass", "suspect": "suspect"}
    verdict = Verdict(names.get(Thresholds().band(score), "fail"))
    if math.isnan(score) and not reason:
        reason = "non_finite"
    return VariableReport(f"{layer}/{name}", layer, (3, 2), score, verdict, reason, 1.0, 1.0, 1e-9)


def report_of(scores: Scores, step: int | None = 0, **fields: Any) -> GradientReport:
    """A report whose layers and variables have these scores."""
    layers = []
    for path, named in scores.items():
        variables = tuple(variable_report(path, name, score) for name, score in named.items())
        verdict = worst(variable.verdict for variable in variables)
        layers.append(LayerReport(path, max(named.values()), verdict, variables))
    failing = tuple(layer.path for layer in layers if layer.verdict is Verdict.FAIL)
    ordinary: dict[str, Any] = {
        "verdict": worst(layer.verdict for layer in layers),
        "score": 1e-9,
        "layers": tuple(layers),
        "culprits": failing,
        "notes": (),
        "objective": ObjectiveSummary("train_step", "train", (1.5,)),
        "settings": Settings(batch_size=32, version="0.1"),
        "step": step,
        "checkpoint": f"step {step}",
        "seconds": 0.5,
        "evaluations": 80,
    }
    return GradientReport(**{**ordinary, **fields})


def error_report(step: int) -> GradientReport:
    """A check that could not be carried out."""
    return report_of({}, step, verdict=Verdict.ERROR, score=math.nan, error="the batch is empty")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for all tests here: making one takes seconds."""
    return f"sqlite:///{(tmp_path_factory.mktemp('store') / 'mlflow.db').as_posix()}"


@pytest.fixture
def experiment(store: str, tmp_path: Path) -> str:
    """The id of a new, empty experiment in the shared store, made the current one."""
    mlflow.set_tracking_uri(store)
    name = tmp_path.name
    client = MlflowClient(store)
    experiment_id = client.create_experiment(name, artifact_location=(tmp_path / "a").as_uri())
    mlflow.set_experiment(name)
    return str(experiment_id)


@pytest.fixture
def client(store: str, experiment: str) -> MlflowClient:
    """A client of the shared store, in whose current experiment the test logs."""
    return MlflowClient(store)


class InProcess:
    """Sends at once and in this process what a training's own process would send."""

    def tell(self, path: Path) -> None:
        delivery = Delivery(path)
        try:
            deliver(delivery)
        finally:
            delivery.close()

    def is_there(self) -> bool:
        return True


def tracking_of(run_id: str | None = None, **options: Any) -> MlflowTracking:
    """Tracking that sends in this process."""
    return MlflowTracking(run_id, sender=InProcess(), **options)


def logged(reports: Sequence[GradientReport], run_id: str | None = None) -> str:
    """Log as a training does, a report more at every check, and give the run's id."""
    tracking = tracking_of(run_id)
    tracking.start(Settings())
    for count in range(1, len(reports) + 1):
        tracking.log(reports[:count])
    tracking.close()
    assert tracking.run_id is not None
    return tracking.run_id


def artifact(client: MlflowClient, run_id: str, path: str) -> str:
    """The text of one of a run's artifacts."""
    return Path(client.download_artifacts(run_id, path)).read_text(encoding="utf-8")


def steps(client: MlflowClient, run_id: str, metric: str) -> list[int]:
    """The steps at which a metric was logged."""
    return [entry.step for entry in client.get_metric_history(run_id, metric)]


# What is logged


def test_search_finds_failing_runs(client: MlflowClient, experiment: str) -> None:
    """`mlflow.search_runs` finds the failing run by its tag, with its metrics and params."""
    logged([report_of(GOOD, 0), report_of(GOOD, 10)])
    failing = logged([report_of(GOOD, 0), report_of(BAD, 10), report_of(GOOD, 20)])
    found = mlflow.search_runs([experiment], "tags.`gradcheck.verdict` = 'fail'")
    assert list(found["run_id"]) == [failing]
    row = found.iloc[0]
    assert row["tags.gradcheck.failing_layers"] == "conv"
    assert row["tags.gradcheck.culprits"] == "conv"
    assert row["tags.gradcheck.first_fail_step"] == "10"
    assert row["tags.gradcheck.worst_layer"] == "conv"
    assert row["params.gradcheck.batch_size"] == "32"
    assert row["params.gradcheck.thresholds"] == "great 1e-07, okay 1e-05, concerning 0.001"


def test_metrics_are_lines_over_steps(client: MlflowClient) -> None:
    """Scores, digits and the summary are there at each checkpoint, with the values reported."""
    run_id = logged([report_of(GOOD, 0), report_of(BAD, 10)])
    metrics = client.get_run(run_id).data.metrics
    assert metrics["gradcheck/score/conv.kernel"] == 0.25
    assert metrics["gradcheck/score/conv"] == 0.25
    assert metrics["gradcheck/digits/conv.bias"] == 10
    assert metrics["gradcheck/worst_score"] == 0.25
    assert metrics["gradcheck/failed_variables"] == 1
    assert metrics["gradcheck/nonfinite_variables"] == 0
    assert metrics["gradcheck/evaluations"] == 80
    assert steps(client, run_id, "gradcheck/score/conv.kernel") == [0, 10]
    assert steps(client, run_id, "gradcheck/worst_digits") == [0, 10]


def test_unknown_scores_are_counted_and_seen(client: MlflowClient) -> None:
    """A NaN score draws as no agreement and is counted; no metric is NaN or infinite."""
    scores: Scores = {"conv": {"kernel": math.nan, "bias": 1e-9}}
    metrics = client.get_run(logged([report_of(scores)])).data.metrics
    assert metrics["gradcheck/nonfinite_variables"] == 1
    assert metrics["gradcheck/digits/conv.kernel"] == 0
    assert metrics["gradcheck/worst_digits"] == 0
    assert "gradcheck/score/conv.kernel" not in metrics
    assert all(math.isfinite(value) for value in metrics.values())


def test_explained_scores_do_not_count_as_worst() -> None:
    """A loss below resolution has a meaningless score: it is not the worst score of the run."""
    report = report_of(GOOD)
    noisy = replace(
        variable_report("conv", "key", 0.9, "below_resolution"), verdict=Verdict.INCONCLUSIVE
    )
    layers = (*report.layers, LayerReport("attention", 0.9, Verdict.INCONCLUSIVE, (noisy,)))
    metrics = schema.metrics(replace(report, layers=layers))
    assert metrics["gradcheck/worst_score"] == 2e-8
    assert metrics["gradcheck/inconclusive_variables"] == 1


def test_odd_names_are_accepted_and_kept_apart(client: MlflowClient) -> None:
    """Names that MLflow would refuse, or confuse, become allowed names, one for each variable."""
    odd = ["enc/dense:0", "enc.dense_0", "a  b", "..", "größe", "x" * 400, "CONV", "conv", "100%"]
    scores: Scores = {name: {"kernel": 1e-9, "Kernel": 1e-8} for name in odd}
    metrics = client.get_run(logged([report_of(scores)])).data.metrics
    names = [name for name in metrics if name.startswith("gradcheck/score/")]
    assert len({name.casefold() for name in names}) == 3 * len(odd)
    assert all(name.count("/") == 2 for name in names)


def test_names_stay_the_same_over_checkpoints(client: MlflowClient) -> None:
    """Two variables of one path keep their numbers, so that their lines do not mix."""
    twins = report_of({"a/b": {"w": 1e-9}, "a.b": {"w": 0.5}})
    assert schema.metrics(twins)["gradcheck/score/a.b.w"] == 1e-9
    assert schema.metrics(twins)["gradcheck/score/a.b.w_2"] == 0.5
    assert schema.metrics(replace(twins, step=9)).keys() == schema.metrics(twins).keys()


def test_many_variables_are_logged_by_layer(client: MlflowClient) -> None:
    """With more than 100 variables, charts are per layer and the table still has all of them."""
    scores: Scores = {f"block_{i}": {"kernel": 1e-9, "bias": 1e-9} for i in range(60)}
    run_id = logged([report_of(scores)])
    metrics = client.get_run(run_id).data.metrics
    assert metrics["gradcheck/digits/block_59"] == 9
    assert "gradcheck/score/block_59.kernel" not in metrics
    assert len(json.loads(artifact(client, run_id, "gradcheck/verdicts.json"))["data"]) == 120


def test_more_metrics_than_a_batch_holds(client: MlflowClient) -> None:
    """A model with more layers than MLflow takes metrics at once is logged whole."""
    run_id = logged([report_of({f"layer_{i}": {"kernel": 1e-9} for i in range(510)})])
    metrics = client.get_run(run_id).data.metrics
    assert (
        sum(name.startswith(("gradcheck/score/", "gradcheck/digits/")) for name in metrics) == 1020
    )


def test_artifacts(client: MlflowClient) -> None:
    """Tables, page, pictures and the reports of all checkpoints are in their places."""
    reports = [report_of(GOOD, 0), report_of(BAD, 500)]
    run_id = logged(reports)
    found = {item.path for item in client.list_artifacts(run_id, "gradcheck")}
    names = ["heatmap.png", "report.html", "scores.json", "step-000000", "step-000500"]
    assert found == {f"gradcheck/{name}" for name in [*names, "verdicts.json"]}
    text = artifact(client, run_id, "gradcheck/step-000500/report.json")
    assert json.loads(text) == reports[1].to_dict()
    images = [item.path for item in client.list_artifacts(run_id, "images")]
    assert sum(path.startswith("images/gradcheck~heatmap+step+500+") for path in images) == 2


def test_verdict_table_makes_the_matrix(client: MlflowClient) -> None:
    """The first logged table begins with (variable, verdict), worst first, in strict JSON."""
    scores: Scores = {"conv": {"kernel": math.nan}, "out": {"kernel": 1e-9}}
    run_id = logged([report_of(GOOD, 0), report_of(scores, 10)])
    table = json.loads(
        artifact(client, run_id, "gradcheck/verdicts.json"), parse_constant=pytest.fail
    )
    assert table["columns"][:2] == ["variable", "verdict"]
    assert table["data"][0][:2] == ["conv/kernel", "❌ fail since step 10 (non finite)"]
    assert len(json.loads(artifact(client, run_id, "gradcheck/scores.json"))["data"]) == 5
    tag = json.loads(client.get_run(run_id).data.tags["mlflow.loggedArtifacts"])
    assert tag[0] == {"path": "gradcheck/verdicts.json", "type": "table"}


def test_tables_of_others_stay_listed() -> None:
    """Tables logged by the user stay in MLflow's list, and ours are there once."""
    theirs = [{"path": "mine.json", "type": "table"}]
    once = schema.logged_tables(json.dumps(theirs))
    assert json.loads(once)[0] == theirs[0]
    assert schema.logged_tables(once) == once
    assert json.loads(schema.logged_tables("not JSON"))[0]["path"] == "gradcheck/verdicts.json"


def test_check_that_could_not_be_done(client: MlflowClient) -> None:
    """An error is a tag and a counter, never a score, and does not hide a failure."""
    run_id = logged([report_of(GOOD, 0), error_report(10)])
    data = client.get_run(run_id).data
    assert data.tags["gradcheck.verdict"] == "error"
    assert data.tags["gradcheck.last_error"] == "the batch is empty"
    assert steps(client, run_id, "gradcheck/worst_score") == [0]
    assert [m.value for m in client.get_metric_history(run_id, "gradcheck/errors")] == [0, 1]
    assert schema.tags([report_of(BAD, 0), error_report(10)])["gradcheck.verdict"] == "fail"
    assert "could not be done: the batch is empty" in data.tags[NOTE]


def test_declared_mismatch_is_no_failure() -> None:
    """A declared mismatch is shown as declared and neither fails nor colours the run."""
    report = report_of(GOOD)
    declared = variable_report("vq", "codes", 0.8, "declared")
    layers = (*report.layers, LayerReport("vq", 0.8, Verdict.PASS, (declared,)))
    report = replace(report, layers=layers)
    assert schema.metrics(report)["gradcheck/worst_score"] == 2e-8
    cells = {row[0]: row[1] for row in tables.verdicts_table([report])["data"]}
    assert cells["vq/codes"] == "➖ declared mismatch (0.1 digits)"


# The user's own tags


def test_user_description_and_colour_are_kept(client: MlflowClient) -> None:
    """A user's description stays to the letter, also when edited later, and so does the colour."""
    with mlflow.start_run(description="My *own* words\n\n| a |") as run:
        mlflow.set_tag("mlflow.runColor", "#123456")
        run_id = run.info.run_id
        tracking = tracking_of()
        tracking.start()
        tracking.log([report_of(BAD)])
        note = client.get_run(run_id).data.tags[NOTE]
        assert note.endswith("\n\nMy *own* words\n\n| a |")
        assert note.index("❌") < note.index("My *own*")
        client.set_tag(run_id, NOTE, f"before {note} after")
        tracking.log([report_of(BAD), report_of(BAD, 10)])
    tags = client.get_run(run_id).data.tags
    assert tags[NOTE].startswith("before ")
    assert tags[NOTE].endswith("| a | after")
    assert tags[NOTE].count("### Gradient check") == 1
    assert "in 2 checks" in tags[NOTE]
    assert tags["mlflow.runColor"] == "#123456"


def test_colour_follows_the_verdict(client: MlflowClient) -> None:
    """A run turns from a shade of pass to a shade of fail when it fails."""
    good, bad = logged([report_of(GOOD)]), logged([report_of(GOOD), report_of(BAD, 10)])
    colours = [client.get_run(run_id).data.tags["mlflow.runColor"] for run_id in (good, bad)]
    assert colours[0] in schema.RUN_COLOURS[Verdict.PASS]
    assert colours[1] in schema.RUN_COLOURS[Verdict.FAIL]


def test_neighbours_have_different_colours(client: MlflowClient) -> None:
    """Runs of the same verdict can be told apart in a chart, and keep their shade."""
    runs = [logged([report_of(BAD)]) for _ in range(4)]
    colours = [client.get_run(run_id).data.tags["mlflow.runColor"] for run_id in runs]
    assert len(set(colours)) == 4
    logged([report_of(BAD, 10)], runs[2])
    assert client.get_run(runs[2]).data.tags["mlflow.runColor"] == colours[2]


def test_description_tells_the_culprits_by_their_lines() -> None:
    """What is wrong by itself stands in the description with the line where its code is."""
    wrong = replace(
        report_of(BAD), culprits=("swish", "loss"), culprit_places=("own.py:12 in swish", "")
    )
    block = description.describe([wrong], "1", "abc")
    assert "Wrong by itself: **`swish`** (`own.py:12 in swish`), **`loss`**." in block


def test_description_fits_and_cannot_break(client: MlflowClient) -> None:
    """A long description is cut at whole lines, the user's is not, and odd names stay text."""
    long = "w" * 7500
    block = description.describe([report_of(BAD)], "1", "abc")
    note = description.merged(long, block)
    assert note.endswith(long)
    assert len(note) <= schema.MAX_TAG
    assert description.merged("w" * 7990, block) == "w" * 7990
    odd = report_of({"a|b`c": {"kernel": 0.5}}, notes=("<script>",))
    lines = description.describe([odd], "1", "x").splitlines()
    head, row = (
        next(line for line in lines if line.startswith(start))
        for start in ("| variable", "| `a¦b'c/kernel`")
    )
    assert row.count("|") == head.count("|")


def test_many_variables_are_described_in_few_rows() -> None:
    """Only the worst rows are in the description; what is left out is said."""
    block = description.describe(
        [report_of({f"layer_{i:03}": {"w": 1e-9} for i in range(40)} | {"bad": {"w": 0.5}})],
        "1",
        "x",
    )
    assert block.index("`bad/w`") < block.index("`layer_000/w`")
    assert "… and 26 more, none of them failing." in block


# Which run


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


# The experiment


def test_views_are_installed_once(client: MlflowClient, experiment: str) -> None:
    """The first check installs both views and the link; what the user changes stays changed."""
    client.set_experiment_tag(experiment, NOTE, "What we train.")
    logged([report_of(GOOD)])
    tags = client.get_experiment(experiment).tags
    named = [json.loads(value)["name"] for key, value in tags.items() if "sharedViewState" in key]
    assert sorted(named) == ["Gradient check", "Gradient check: failures only"]
    assert tags[NOTE].startswith("What we train.\n\n**Gradient checks:** [charts](#/experiments/")

    client.set_experiment_tag(experiment, NOTE, "No links, please.")
    key = f"mlflow.sharedViewState.{views.VIEW}"
    client.set_experiment_tag(experiment, key, '{"name": "mine"}')
    client.delete_experiment_tag(experiment, f"mlflow.sharedViewState.{views.FAILURES_VIEW}")
    logged([report_of(GOOD, 40)])
    tags = client.get_experiment(experiment).tags
    assert tags[NOTE] == "No links, please."
    assert tags[key] == '{"name": "mine"}'
    assert f"mlflow.sharedViewState.{views.FAILURES_VIEW}" not in tags


def test_slider_stands_at_the_latest_checkpoint() -> None:
    """While nobody changed a view, its heatmap shows the latest checkpoint."""
    tags = views.experiment_tags("1", {}, step=0)
    moved = views.experiment_tags("1", tags, step=70)
    assert set(moved) == {name for name in tags if "sharedViewState" in name}
    assert views.experiment_tags("1", {**tags, **moved}, step=70) == {}
    broken = dict.fromkeys(moved, "{}")
    assert views.experiment_tags("1", {**tags, **broken}, step=70) == {}


def test_views_fit_into_a_tag() -> None:
    """No experiment tag is longer than the 20,000 characters MLflow keeps."""
    assert max(map(len, views.experiment_tags("1" * 30, {}, step=10**9).values())) < 20_000


# Trouble


@pytest.fixture
def warnings_logged(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The warnings of tfcheck so far."""
    caplog.set_level(logging.WARNING, logger="tfcheck.tracking")
    return lambda: [r.getMessage() for r in caplog.records if r.name == "tfcheck.tracking"]


@pytest.fixture
def refused_port() -> Iterator[int]:
    """A port of this machine that refuses connections."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening
        yield taken.getsockname()[1]


def test_server_away_loses_nothing(
    refused_port: int, store: str, warnings_logged: Callable[[], list[str]], tmp_path: Path
) -> None:
    """Without a server a training of three checks loses no report, and is told so, twice."""
    mlflow.set_tracking_uri(f"http://me:secret@127.0.0.1:{refused_port}")
    reports = [report_of(GOOD, 0), report_of(BAD, 10), report_of(GOOD, 20)]
    begin = time.monotonic()
    tracking = tracking_of("ab12")
    tracking.start(Settings())
    for count in (1, 2, 3):
        tracking.log(reports[:count])
    assert len(warnings_logged()) == 1
    tracking.close()
    assert time.monotonic() - begin < 5
    away, kept = warnings_logged()
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


def test_silent_server_counts_as_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes the connection and never answers is away after the time given."""
    monkeypatch.setattr(server, "PROBE_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begin = time.monotonic()
        trouble = server.trouble(f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert time.monotonic() - begin < 2
    assert trouble == "did not answer within 0.3 s"


def test_local_stores_are_asked_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that another process has locked, and one in a folder that cannot be written."""
    monkeypatch.setattr(server, "PROBE_SECONDS", 0.2)
    uri = f"sqlite:///{tmp_path / 'some.db'}"
    assert server.trouble(uri) == ""
    with contextlib.closing(sqlite3.connect(tmp_path / "some.db")) as connection:
        connection.execute("CREATE TABLE t (a)")
        connection.execute("BEGIN IMMEDIATE")
        assert server.trouble(uri) == "is locked by another process"
        connection.rollback()
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert server.trouble(uri) == "cannot be written"
    assert server.trouble(str(tmp_path / "mlruns")) == "cannot be written"


def test_a_new_database_is_whole_when_it_is_seen(tmp_path: Path) -> None:
    """Another process finds no database or a whole one; one that it is making is left to it."""
    path = tmp_path / "new.db"
    uri = f"sqlite:///{path.as_posix()}"
    making = threading.Thread(target=new_database.prepare, args=(uri,))
    making.start()
    while not path.exists() and making.is_alive():
        time.sleep(0.001)
    assert new_database._is_whole(path)
    making.join()
    assert new_database.prepare(uri) == ""
    assert [file.name for file in tmp_path.iterdir()] == ["new.db"]

    path.write_bytes(b"")
    assert new_database.prepare(uri) == "is being made by another process"
    os.utime(path, (0, 0))  # whoever began it gave up long ago
    assert new_database.prepare(uri) == ""


@pytest.mark.parametrize(
    ("text", "clause"),
    [
        ("HTTPConnectionPool: ResponseError('too many 500 error responses')", "answered 500"),
        ("507 Server Error: Insufficient Storage for url", "answered 507"),
        ("[Errno 111] Connection refused", "refused the connection"),
        ("Read timed out. (read timeout=10)", "did not answer in time"),
        ("(sqlite3.OperationalError) database is locked", "is locked by another process"),
        ("attempt to write a readonly database", "cannot be written"),
        ("what nobody foresaw", "said OSError: what nobody foresaw"),
    ],
)
def test_what_happened_is_told(text: str, clause: str) -> None:
    """A warning says what happened, not that "something" did."""
    assert server.said(OSError(text)) == clause


def test_missed_checks_follow_when_the_server_is_back(
    client: MlflowClient,
    monkeypatch: pytest.MonkeyPatch,
    warnings_logged: Callable[[], list[str]],
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
    assert len(warnings_logged()) == 1


def test_mlflow_failing_does_not_end_training(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch, warnings_logged: Callable[[], list[str]]
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
    (warning,) = warnings_logged()
    assert " said RuntimeError: disk full: training goes on" in warning
    tracking.log([report_of(GOOD, 0), report_of(GOOD, 10), report_of(GOOD, 20)])
    assert tracking.run_id is not None
    assert steps(client, tracking.run_id, "gradcheck/worst_score") == [0, 10, 20]
    tracking.close()


def test_numbers_are_logged_when_pictures_fail(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch, warnings_logged: Callable[[], list[str]]
) -> None:
    """Without artifact storage the metrics still arrive, and files follow when it works again."""
    tracking = tracking_of()
    tracking.start(Settings())

    def broken(*arguments: Any, **options: Any) -> None:
        raise OSError("no bucket")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_artifacts", broken)
        tracking.log([report_of(GOOD, 0)])
    assert "no bucket" in warnings_logged()[0]
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


# Several in one run


def test_the_worst_of_two_callbacks_counts(client: MlflowClient) -> None:
    """Two callbacks in one run have numbers and files of their own; the worst verdict counts."""
    with mlflow.start_run() as run:
        failing, passing = tracking_of(), tracking_of(about="inference")
        for tracking in (failing, passing):
            tracking.start(Settings())
        failing.log([report_of(BAD, 10)])
        passing.log([report_of(GOOD, 10)])
        failing.close()
        passing.close()
    run_id = run.info.run_id
    data = client.get_run(run_id).data
    assert data.tags["gradcheck.verdict"] == "fail"
    assert data.tags["gradcheck.failing_layers"] == "conv"
    assert data.tags["gradcheck.culprits"] == "conv"
    assert data.tags["gradcheck.worst_layer"] == "conv"
    assert data.tags["gradcheck.first_fail_step"] == "10"
    assert data.tags["gradcheck-inference.verdict"] == "pass"
    assert data.tags["mlflow.runColor"] in schema.RUN_COLOURS[Verdict.FAIL]
    assert data.metrics["gradcheck/worst_score"] == 0.25
    assert data.metrics["gradcheck-inference/worst_score"] == 2e-8
    assert data.params["gradcheck-inference.method"] == "directions"
    for name, verdict in (("gradcheck", "fail"), ("gradcheck-inference", "pass")):
        report = artifact(client, run_id, f"{name}/step-000010/report.json")
        assert json.loads(report)["verdict"] == verdict
    assert "Gradient check: ❌ fail" in data.tags[NOTE]
    assert "Gradient check (inference): ✅ pass" in data.tags[NOTE]


def test_names_are_told_apart_and_given_back() -> None:
    """Equal names in one training are numbered; a training that has ended leaves its name."""
    first, second, third = tracking_of(), tracking_of(), tracking_of(name="gradcheck")
    for tracking in (first, second, third):
        tracking.start()
    assert [first.name, second.name, third.name] == ["gradcheck", "train", "gradcheck-2"]
    for tracking in (first, second, third):
        tracking.close()
    first.start()
    assert first.name == "gradcheck"
    first.close()


def test_a_resumed_run_keeps_its_reports(client: MlflowClient) -> None:
    """Steps that begin again go on after the last, and no report takes another's place."""
    with mlflow.start_run() as run:
        logged([report_of(BAD, 0), report_of(GOOD, 10)])
        logged([report_of(GOOD, 0), report_of(GOOD, 10)])
        logged([report_of(GOOD, 20), report_of(GOOD, 30)])
    run_id = run.info.run_id
    assert steps(client, run_id, "gradcheck/worst_score") == [0, 10, 10, 20, 20, 30]
    folders = [item.path for item in client.list_artifacts(run_id, "gradcheck") if item.is_dir]
    numbers = ["000000", "000010", "000010-2", "000020", "000020-2", "000030"]
    assert folders == [f"gradcheck/step-{number}" for number in numbers]
    text = artifact(client, run_id, "gradcheck/step-000010-2/report.json")
    assert json.loads(text)["step"] == 0
    rows = json.loads(artifact(client, run_id, "gradcheck/scores.json"))["data"]
    assert [row[0] for row in rows[::3]] == [0, 10, 10, 20, 20, 30]
    assert client.get_run(run_id).data.tags["gradcheck.verdict"] == "fail"
    assert "in 6 checks" in client.get_run(run_id).data.tags[NOTE]


def test_batch_mismatches_and_epoch_are_logged(client: MlflowClient) -> None:
    """Which batch, what was declared, and after which epoch."""
    settings = Settings(batch_fingerprint="abc", expected_mismatch=("vq/*", "loss"))
    data = client.get_run(logged([report_of(GOOD, 8, epoch=2, settings=settings)])).data
    assert data.params["gradcheck.batch_fingerprint"] == "abc"
    assert data.params["gradcheck.expected_mismatch"] == "vq/*, loss"
    assert data.metrics["gradcheck/epoch"] == 2


# What waits in a file


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


# A single report


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


def test_waiting_reports_survive_in_a_file(tmp_path: Path) -> None:
    """Reports come back from their file equal, and a foreign file is refused with a remedy."""
    path = spool.begin(spool.Target("t", 1, folder=str(tmp_path)))
    files = {"test_gradient_of_conv.py": b"def test(): ...", "conv_inputs.npz": bytes(range(256))}
    entries = (spool.Entry(report_of(BAD, 7), 5, files), spool.Entry(error_report(8), 6))
    for entry in entries:
        spool.add(path, entry)
    spool.end(path, "FAILED")
    content = spool.read(path)
    assert (content.target.training, content.ended, content.lines) == ("t", "FAILED", 4)
    assert [entry.made_at for entry in content.entries] == [5, 6]
    found = [entry.report.to_dict() for entry in content.entries]
    assert found == [entry.report.to_dict() for entry in entries]
    assert [entry.files for entry in content.entries] == [files, {}]
    path.write_text('{"a": 1}\n', encoding="utf-8")
    with pytest.raises(ReportError, match="Give the path that the warning named"):
        spool.read(path)
    path = spool.begin(spool.Target("u", 1, folder=str(tmp_path)))
    spool.add(path, spool.Entry(report_of(BAD, 7), 5, {"../elsewhere.py": b""}))
    with pytest.raises(ReportError):
        spool.read(path)


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the working directory cannot be written, reports wait in the temporary folder."""
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    path = spool.begin(spool.Target("t", 1, folder=str(tmp_path / "missing")))
    assert path.parent == tmp_path
