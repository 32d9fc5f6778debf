from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from mlflow import MlflowClient
from mlflow.entities import Run

from tfcheck.dashboard.store import find_store
from tfcheck.scripts import demo
from tfcheck.scripts.cli import main


def runs_in(store: Path) -> list[Run]:
    """The runs of a demo's store, oldest first."""
    client = MlflowClient(find_store(store).tracking_uri)
    experiment = client.get_experiment_by_name(demo.EXPERIMENT)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], order_by=["start_time ASC"]))


def test_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo finds its planted bug, says where, and logs both trainings; again adds two runs."""
    result = CliRunner().invoke(main, ["demo"])
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    said = result.stdout
    assert said.index("✓ PASS") < said.index("With a planted bug") < said.index("✗ FAIL")
    assert "slope = gate  # the bug" in said
    assert "culprit     swish" in said
    assert "The wrong layer is swish." in said
    assert said.count(f"epoch {demo.EPOCHS}") == 2
    assert said.rstrip().endswith("tfcheck ui tfcheck-demo")
    assert [path.name for path in tmp_path.iterdir()] == ["tfcheck-demo"]

    monkeypatch.setattr(demo, "EPOCHS", 1)
    again = CliRunner().invoke(main, ["demo"])
    assert (again.exit_code, again.stderr) == (0, ""), again.output
    runs = runs_in(tmp_path / "tfcheck-demo")
    assert [run.info.run_name for run in runs] == ["healthy", "planted bug"] * 2
    assert [run.data.tags["gradcheck.verdict"] for run in runs] == ["pass", "fail"] * 2
    assert [run.data.tags["gradcheck.culprits"] for run in runs] == ["none", "swish"] * 2
    assert {"loss", "accuracy", "val_loss", "val_accuracy"} <= set(runs[0].data.metrics)


def test_demo_that_goes_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A demo that blames another layer than the planted one shows it, and ends with 1."""
    monkeypatch.setattr(demo, "EPOCHS", 1)
    monkeypatch.setattr(demo, "wrong_layer", lambda report: "logits")
    result = CliRunner().invoke(main, ["demo", "--store", "other place"])
    assert result.exit_code == demo.UNEXPECTED, result.output
    assert "The wrong layer is logits." in result.stdout
    assert "tfcheck ui 'other place'" in result.stdout
    assert "did not go as it should" in result.stderr
    assert len(runs_in(tmp_path / "other place")) == 2


def test_store_that_cannot_be_used(tmp_path: Path) -> None:
    """A folder whose mlflow.db is no database is refused in one sentence, before any training."""
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "mlflow.db").write_text("not a database")
    (tmp_path / "file").write_text("not a folder")
    result = CliRunner().invoke(main, ["demo", "--store", "store"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "store='store'" in result.stderr
    assert "--store" in result.stderr
    assert "Traceback" not in result.stderr
    assert CliRunner().invoke(main, ["demo", "--store", "file"]).exit_code == 2
