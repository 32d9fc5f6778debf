"""What is logged of a check: tags, metrics, parameters and files."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import PurePosixPath

import mlflow
import pytest
from mlflow import MlflowClient
from tracked import (
    BAD,
    GOOD,
    NOTE,
    Scores,
    artifact,
    error_report,
    logged,
    report_of,
    steps,
    tracking_of,
    variable_report,
)

from tfcheck.judge.verdict import Verdict
from tfcheck.report.rows import LayerReport
from tfcheck.settings import Settings
from tfcheck.tracking import (
    colours,
    matrix,
    schema,
    tables,
)
from tfcheck.tracking.metrics import of_report as metrics_of


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
    metrics = metrics_of(replace(report, layers=layers))
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
    assert metrics_of(twins)["gradcheck/score/a.b.w"] == 1e-9
    assert metrics_of(twins)["gradcheck/score/a.b.w_2"] == 0.5
    assert metrics_of(replace(twins, step=9)).keys() == metrics_of(twins).keys()


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
    names = [
        "heatmap.png",
        "matrix.json",
        "report.html",
        "scores.json",
        "step-000000",
        "step-000500",
    ]
    assert found == {f"gradcheck/{name}" for name in [*names, "verdicts.json"]}
    text = artifact(client, run_id, "gradcheck/step-000500/report.json")
    assert json.loads(text) == reports[1].to_dict()
    images = [item.path for item in client.list_artifacts(run_id, "images")]
    assert sum(path.startswith("images/gradcheck~heatmap+step+500+") for path in images) == 2


def test_verdict_table_makes_the_matrix(client: MlflowClient) -> None:
    """MLflow opens the table of layers first; that of variables is worst first, in strict JSON."""
    scores: Scores = {"conv": {"kernel": math.nan}, "out": {"kernel": 1e-9}}
    run_id = logged([report_of(GOOD, 0), report_of(scores, 10)])
    table = json.loads(
        artifact(client, run_id, "gradcheck/verdicts.json"), parse_constant=pytest.fail
    )
    assert table["columns"][:2] == ["variable", "verdict"]
    assert table["data"][1][:2] == ["conv/kernel", "❌ non-finite from 10"]
    assert len(json.loads(artifact(client, run_id, "gradcheck/scores.json"))["data"]) == 5
    tag = json.loads(client.get_run(run_id).data.tags["mlflow.loggedArtifacts"])
    assert tag[0] == {"path": "gradcheck/matrix.json", "type": "table"}
    matrix = json.loads(artifact(client, run_id, "gradcheck/matrix.json"))
    assert matrix["data"][0] == ["(whole model)", "❌ fail from step 10 (step 10) · culprit: conv"]


def test_cells_of_the_matrix_are_short_and_say_what_the_verdict_says() -> None:
    """A gradient that agrees but is not used as it is has its reason in place of digits."""
    unused = replace(variable_report("out", "w", 2e-9, "misapplied"), verdict=Verdict.FAIL)
    wrong = replace(
        report_of(BAD, 20),
        layers=(*report_of(BAD).layers, LayerReport("out", 2e-9, Verdict.FAIL, (unused,))),
        culprits=("swish",),
        culprit_places=("own.py:12 in swish",),
    )
    table = tables.verdicts_table([report_of(GOOD, 10), wrong])["data"]
    assert table[0][:2] == ["swish", "❌ culprit from 20"]
    assert table[0][-1] == "own.py:12 in swish"
    cells = {row[0]: row[1] for row in table}
    assert cells["conv/kernel"] == "❌ 0.6 from 20"
    assert cells["out/w"] == "❌ misapplied from 20"
    assert cells["conv/bias"] == "✅ 10.0"
    assert max(map(len, cells.values())) < 24


def test_the_matrix_fits_a_screen() -> None:
    """A row of the matrix is a layer: a model of sixty is told in its first rows."""
    scores: Scores = {f"layer_{n}": {"kernel": 1e-9, "bias": 1e-9} for n in range(60)}
    wrong = report_of(scores | {"layer_40": {"kernel": 0.25, "bias": 1e-9}}, 20)
    wrong = replace(wrong, culprits=("swish",), culprit_places=("own.py:12 in swish",))
    table = matrix.matrix_table([report_of(scores, 10), wrong])
    assert table["columns"] == ["layer", "verdict"]
    assert table["data"][:4] == [
        ["(whole model)", "❌ fail from step 20 (step 20) · culprit: swish · failing: layer_40"],
        ["swish", "❌ culprit from 20 at own.py:12 in swish"],
        ["layer_40", "kernel ❌ 0.6 from 20 · bias ✅ 9.0"],
        ["layer_0", "✅ 9.0"],
    ]
    assert len(table["data"]) == 62


def test_verdicts_are_metrics(client: MlflowClient) -> None:
    """A failing run looks failing where digits agree; a culprit without variables has a line."""
    unused = replace(variable_report("out", "w", 2e-9, "misapplied"), verdict=Verdict.FAIL)
    layers = (*report_of(GOOD).layers[:1], LayerReport("out", 2e-9, Verdict.FAIL, (unused,)))
    wrong = replace(report_of(GOOD, 10), layers=layers, verdict=Verdict.FAIL, culprits=("swish",))
    run_id = logged([report_of(GOOD, 0), wrong, report_of(GOOD, 20), error_report(30)])
    values = {
        name: [m.value for m in client.get_metric_history(run_id, f"gradcheck/{name}")]
        for name in ("worst_verdict", "verdict/conv", "verdict/out", "verdict/swish")
    }
    assert list(values.values()) == [[0, 3, 0, 1], [0, 0, 0], [0, 3, 0], [3, 0]]


def test_no_metric_is_the_folder_of_another() -> None:
    """A store of files keeps each metric in a file of its name: none is in the way of others."""
    names = set(metrics_of(report_of(BAD), guilty=["conv", "swish"]))
    folders = {str(folder) for name in names for folder in PurePosixPath(name).parents}
    assert "gradcheck/verdict" in folders
    assert not names & folders


def test_a_resumed_run_clears_a_culprit(client: MlflowClient) -> None:
    """The line of a culprit goes down when a later training in the run finds it right."""
    run_id = logged([replace(report_of(BAD, 10), culprits=("swish",))])
    logged([report_of(GOOD, 20)], run_id)
    assert client.get_run(run_id).data.metrics["gradcheck/verdict/swish"] == 0


def test_first_failure_is_told_by_epoch_and_step(client: MlflowClient) -> None:
    """The first failure of all callbacks and trainings stands in one cell, and as numbers."""
    with mlflow.start_run() as run:
        logged([report_of(GOOD, 0, epoch=0), report_of(BAD, 20, epoch=2, checkpoint="epoch 2")])
        logged([report_of(BAD, 10, epoch=1, checkpoint="epoch 1")], run.info.run_id)
    tags = client.get_run(run.info.run_id).data.tags
    assert tags["gradcheck.first_fail"] == "epoch 2 (step 20)"
    assert (tags["gradcheck.first_fail_epoch"], tags["gradcheck.first_fail_step"]) == ("2", "20")
    clean = schema.tags([report_of(GOOD)])
    assert {clean[f"gradcheck.first_fail{what}"] for what in ("", "_step", "_epoch")} == {"none"}


def test_numbers_are_logged_as_they_are_shown(client: MlflowClient) -> None:
    """MLflow writes every decimal into its tables, and cuts off what does not fit."""
    run_id = logged([report_of({"conv": {"kernel": 8.3405141394e-9}})])
    metrics = client.get_run(run_id).data.metrics
    assert metrics["gradcheck/worst_digits"] == metrics["gradcheck/digits/conv.kernel"] == 8.08
    assert metrics["gradcheck/worst_score"] == metrics["gradcheck/score/conv"] == 8.34e-9


def test_tables_of_others_stay_listed() -> None:
    """Tables logged by the user stay in MLflow's list, and ours are there once."""
    theirs = [{"path": "mine.json", "type": "table"}]
    once = schema.logged_tables(json.dumps(theirs))
    assert json.loads(once)[0] == theirs[0]
    assert schema.logged_tables(once) == once
    assert json.loads(schema.logged_tables("not JSON"))[0]["path"] == "gradcheck/matrix.json"


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
    assert metrics_of(report)["gradcheck/worst_score"] == 2e-8
    cells = {row[0]: row[1] for row in tables.verdicts_table([report])["data"]}
    assert cells["vq/codes"] == "➖ declared"


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
    assert data.tags["mlflow.runColor"] in colours.RUN_COLOURS[Verdict.FAIL]
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
