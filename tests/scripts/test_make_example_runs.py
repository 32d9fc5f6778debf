from __future__ import annotations

import json
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run
from repository import ROOT

from tfcheck.dashboard.snapshot import snapshot
from tfcheck.dashboard.store import StoreError, find_store
from tfcheck.gradient_report import GradientReport
from tfcheck.scripts.example_commits import AFTER, BEFORE, commits
from tfcheck.scripts.relocation import make_relocatable
from tfcheck.tracking import metrics

EXAMPLE = ROOT / "mlruns_example"
OUTCOMES = {
    "healthy": ("pass", "none"),
    "swish, wrong": ("fail", "swish"),
    "swish, fixed": ("pass", "none"),
    "gate, blocked": ("fail", "gate"),
    "clamp, wrong later": ("fail", "clamp"),
    "float16, underflow": ("pass", "none"),
    "GAN, right": ("pass", "none"),
    "GAN, wrong network": ("fail", "train_step"),
    "60 layers, one wrong": ("fail", "hidden_31"),
    "commit eb6574e": ("pass", "none"),
    "commit 6038b64": ("fail", "scaled_norm"),
}
BLOCK = 4096
COMMIT_TAG = "mlflow.source.git.commit"
PRIVATE = re.compile(rb"/(?:home|Users|root|tmp|work|usr|opt|mnt|var)/|[A-Z]:\\|file://")


@pytest.fixture(autouse=True)
def file_store_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let MLflow open stores of files."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")


@pytest.fixture
def client(tmp_path: Path) -> Iterator[MlflowClient]:
    """A client of a copy of the example store that lies elsewhere, under another name."""
    moved = Path(shutil.copytree(EXAMPLE, tmp_path / "moved" / "examples"))
    with snapshot(find_store(moved)) as uri:
        yield MlflowClient(uri)


def runs_of(client: MlflowClient) -> dict[str, Run]:
    """The example runs by name."""
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    return {run.info.run_name: run for run in client.search_runs(ids)}


def reports_of(client: MlflowClient, run_id: str) -> list[GradientReport]:
    """The reports of a run's checkpoints, in order."""
    paths = [item.path for item in client.list_artifacts(run_id, "gradcheck")]
    return [
        GradientReport.load(client.download_artifacts(run_id, f"{path}/report.json"))
        for path in sorted(path for path in paths if path.startswith("gradcheck/step-"))
    ]


def every_artifact(client: MlflowClient, run_id: str, folder: str = "") -> Iterator[str]:
    """The paths of all of a run's artifacts."""
    for item in client.list_artifacts(run_id, folder):
        if item.is_dir:
            yield from every_artifact(client, run_id, item.path)
        else:
            yield item.path


def test_outcomes(client: MlflowClient) -> None:
    """Each planted bug was found, at the layer it was planted in, and nothing else was."""
    found = {}
    for name, run in runs_of(client).items():
        culprit = run.data.tags["gradcheck.culprits"].rpartition("/")[2]
        found[name] = (run.data.tags["gradcheck.verdict"], culprit)
    assert found == OUTCOMES


def test_the_late_bug_is_late(client: MlflowClient) -> None:
    """The clamp passes before training and fails during it."""
    late = runs_of(client)["clamp, wrong later"]
    verdicts = [str(report.verdict) for report in reports_of(client, late.info.run_id)]
    assert verdicts[0] == "pass"
    assert "fail" in verdicts


def test_the_layers_before_a_wrong_one_are_named(client: MlflowClient) -> None:
    """Of sixty layers those up to the wrong one get a wrong gradient, and those behind do not."""
    run = runs_of(client)["60 layers, one wrong"]
    failing = run.data.tags["gradcheck.failing_layers"].split(", ")
    assert failing == [f"hidden_{number:02d}" for number in range(1, 32)]


def test_the_adversary_is_named(client: MlflowClient) -> None:
    """The generator fails, which got the critic's gradients, and the critic passes."""
    run = runs_of(client)["GAN, wrong network"]
    for report in reports_of(client, run.info.run_id):
        failing = {v.path.partition("/")[0] for v in report.variables if v.verdict == "fail"}
        assert failing == {"generator"}
        assert {v.reason for v in report.variables if v.verdict == "fail"} == {"misapplied"}


def test_underflow_is_under_precision(client: MlflowClient) -> None:
    """What float16 loses fails no check, and every layer that computes in it is named."""
    run = runs_of(client)["float16, underflow"]
    last = reports_of(client, run.info.run_id)[-1]
    in_float32 = {"reader/logits"}
    assert set(last.imprecise_layers) == {layer.path for layer in last.layers} - in_float32


def test_commits_are_those_of_the_code(client: MlflowClient, tmp_path: Path) -> None:
    """Two runs name their commits, in which the code is what they ran; no other run names one."""
    made = [(commit.hash, commit.file.read_text("utf-8")) for commit in commits(tmp_path)]
    assert [text for _, text in made] == [BEFORE, AFTER]
    assert BEFORE != AFTER
    tags = {name: run.data.tags.get(COMMIT_TAG) for name, run in runs_of(client).items()}
    named = {name: commit for name, commit in tags.items() if commit is not None}
    assert named == {f"commit {commit[:7]}": commit for commit, _ in made}


def test_the_readme_tells_every_run(client: MlflowClient) -> None:
    """What lies in the store is told in its README, and nothing that does not."""
    text = (EXAMPLE / "README.md").read_text("utf-8")
    rows = re.findall(r"^\| (.+?) \| .+ \|$", text, re.MULTILINE)
    assert set(rows) - {"run"} == set(runs_of(client))


def test_metrics_are_those_of_the_reports(client: MlflowClient) -> None:
    """Every run has at least three checkpoints, and its metrics are what their reports say."""
    for run in runs_of(client).values():
        reports = reports_of(client, run.info.run_id)
        assert len(reports) >= 3
        for name, value in metrics.of_report(reports[-1].relative_to_model()).items():
            assert run.data.metrics[name] == value


def test_every_artifact_of_a_moved_copy_can_be_read(client: MlflowClient, tmp_path: Path) -> None:
    """Through MLflow's API, no artifact is missing after a move, and tables are strict JSON."""
    count = 0
    for run in runs_of(client).values():
        for path in every_artifact(client, run.info.run_id):
            file = Path(client.download_artifacts(run.info.run_id, path, str(tmp_path)))
            assert file.stat().st_size > 0
            if path.endswith(".json"):
                json.loads(file.read_text(encoding="utf-8"), parse_constant=pytest.fail)
            count += 1
    files = [path for path in EXAMPLE.glob("*/*/artifacts/**/*") if path.is_file()]
    assert count == len(files)


def test_plain_mlflow_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without tfcheck, MLflow started in the folder that holds the store finds the artifacts."""
    shutil.copytree(EXAMPLE, tmp_path / "mlruns_example")
    monkeypatch.chdir(tmp_path)
    client = MlflowClient("mlruns_example")
    for run in runs_of(client).values():
        assert "gradcheck/report.html" in set(every_artifact(client, run.info.run_id))


def test_it_names_no_person_and_no_machine() -> None:
    """No absolute path, user or host name is in any file, nor in a file's name."""
    host = socket.gethostname().encode()
    for path in EXAMPLE.rglob("*"):
        assert path.name != "mlflow.user"
        if path.suffix in (".png", ".webp") or not path.is_file():
            continue
        content = path.read_bytes()
        assert not PRIVATE.search(content), path
        # A name such as "ml" would be found in every file.
        assert len(host) <= 3 or host not in content, path
        if path.name == "meta.yaml":
            assert re.search(rb"^user_id: ''$", content, re.MULTILINE) or b"\nrun_id" not in content


def test_it_is_small() -> None:
    """A clone does not get heavy by it, also where every file takes whole blocks of a disk."""
    sizes = [path.stat().st_size for path in EXAMPLE.rglob("*") if path.is_file()]
    assert sum(-(-size // BLOCK) * BLOCK for size in sizes) < 8_000_000


def test_a_store_that_names_its_machine_is_refused(tmp_path: Path) -> None:
    """Paths of MLflow's own are made relative; one in the user's data is reported."""
    store = tmp_path / "examples"
    client = MlflowClient(store.as_uri())
    experiment = client.create_experiment("e")
    run_id = client.create_run(experiment).info.run_id
    client.log_text(run_id, "fine", "a/note.txt")
    client.log_param(run_id, "folder", "digits")
    client.log_metric(run_id, "loss", 1)
    client.set_tag(run_id, COMMIT_TAG, "eb6574e")
    run = store / experiment / run_id
    make_relocatable(store, commits=["eb6574e"])
    assert (run / "tags" / COMMIT_TAG).read_text(encoding="utf-8") == "eb6574e"
    make_relocatable(store)
    assert not (run / "tags" / COMMIT_TAG).exists()
    record = yaml.safe_load((run / "meta.yaml").read_text(encoding="utf-8"))
    assert record["artifact_uri"] == f"examples/{experiment}/{run_id}/artifacts"
    assert record["user_id"] == ""
    assert not (store / "0").exists()

    (run / "tags" / "folder").write_text(str(tmp_path / "data"), encoding="utf-8")
    with pytest.raises(StoreError, match=f"{run_id}/tags/folder"):
        make_relocatable(store)
