"""`tfcheck history`, `compare` and `gate` from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
from click.testing import CliRunner, Result
from mlflow import MlflowClient
from repository import ROOT
from tracked import BAD, GOOD, report_of, tracking_of

from tfcheck.scripts.cli import main
from tfcheck.settings import Settings

EXAMPLE = str(ROOT / "mlruns_example")


@pytest.fixture
def run(store: str, experiment: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs a command on the shared store."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", experiment)
    return lambda *words: CliRunner().invoke(main, list(words))


def trained(name: str, scores: dict[str, dict[str, float]]) -> str:
    """A run of this name, checked at its end."""
    with mlflow.start_run(run_name=name) as made:
        log = tracking_of()
        log.start(Settings())
        log.log([report_of(scores, 0, epoch=0), report_of(scores, 57, epoch=1)])
        log.close(last_step=57)
    return str(made.info.run_id)


def test_history_prints_and_writes(
    run: Callable[..., Result], client: MlflowClient, tmp_path: Path
) -> None:
    """To the terminal, as a page and as JSON, of the experiment of the environment."""
    good, bug = trained("h-good", GOOD), trained("h-bug", BAD)
    done = run("history", "--html", "past.html", "--json", "past.json")
    assert done.exit_code == 0, done.output
    assert "conv: fail in h-bug since step 0, pass in h-good." in " ".join(done.stdout.split())
    assert "<h1>2 runs" in (tmp_path / "past.html").read_text(encoding="utf-8")
    content = json.loads((tmp_path / "past.json").read_text(encoding="utf-8"))
    (change,) = content["changes"]
    assert (change["run_id"], change["base_run_id"]) == (bug, good)
    assert content["last_good_run"] == good


def test_compare_takes_the_last_good_run(run: Callable[..., Result], client: MlflowClient) -> None:
    """Or the first of several; without a good one, it asks for another."""
    trained("c-good", GOOD)
    trained("c-bug", BAD)
    done = run("compare", "c-bug")
    assert done.exit_code == 0, done.output
    assert "c-good → c-bug" in done.stdout
    assert "regressed" in done.stdout
    assert "fixed" in run("compare", "c-bug", "c-good").stdout
    refused = run("compare", "c-good")
    assert refused.exit_code == 2
    assert "Name a second run to compare it with." in refused.stderr


def test_the_gate_is_an_exit_code(run: Callable[..., Result], client: MlflowClient) -> None:
    """0 and a sentence, 1 and a sentence on standard error, 2 for what is not there."""
    trained("g-good", GOOD)
    trained("g-bug", BAD)
    passed = run("gate", "g-good", "--require-epochs", "1")
    assert (passed.exit_code, passed.stderr) == (0, "")
    assert passed.stdout.startswith("g-good passes: pass at step 57")
    for words in (("g-bug",), ("g-good", "--require-epochs", "1, 2")):
        closed = run("gate", *words)
        assert (closed.exit_code, closed.stdout) == (1, "")
        assert closed.stderr.startswith(f"{words[0]} does not pass: ")
    assert run("gate", "g-none").exit_code == 2
    assert run("gate", "models:/g-none/1").exit_code == 2
    assert run("gate", "g-good", "--require-epochs", "one").exit_code == 2
    assert run("gate", "g-good", "--min-coverage", "2").exit_code == 2


def test_the_gate_tags_the_version_of_a_model(
    run: Callable[..., Result], client: MlflowClient
) -> None:
    """In the store itself, unless it must not."""
    name = "gated"
    run_id = trained("g-model", BAD)
    client.create_registered_model(name)
    client.create_model_version(name, "file:model", run_id)
    assert run("gate", f"models:/{name}/1", "--no-tags").exit_code == 1
    assert client.get_model_version(name, "1").tags == {}
    assert run("gate", f"models:/{name}/1").exit_code == 1
    tags = client.get_model_version(name, "1").tags
    assert tags["gradcheck.verdict"] == "fail"
    assert tags["gradcheck.gate"].startswith("failed: A gradient is wrong in 2 of 2 checks")
    client.delete_registered_model(name)


def test_the_example_store_is_read_and_left_alone() -> None:
    """Wherever it was moved, its reports are found, those of older versions, too."""
    before = {path: path.stat().st_mtime_ns for path in Path(EXAMPLE).rglob("*")}
    done = CliRunner().invoke(main, ["history", "--tracking-uri", EXAMPLE])
    assert done.exit_code == 0, done.output
    assert "✗ fail" in done.stdout
    assert "regressed" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in Path(EXAMPLE).rglob("*")} == before


@pytest.mark.parametrize("command", [["history"], ["compare", "a", "b"], ["gate", "a"]])
def test_without_a_store_there_is_a_sentence(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no database is made by asking."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 2
    assert "tfcheck looks for MLFLOW_TRACKING_URI, mlflow.db and mlruns" in done.stderr
    assert list(tmp_path.iterdir()) == []
