from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click.testing
import pytest
import requests
from mlflow import MlflowClient
from repository import ROOT

from tfcheck.dashboard import serve as dashboard
from tfcheck.dashboard.snapshot import snapshot
from tfcheck.dashboard.store import StoreError, find_store
from tfcheck.scripts.cli import main
from tfcheck.tracking import views

pytestmark = pytest.mark.usefixtures("file_store_allowed")


@pytest.fixture
def file_store_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let MLflow open stores of files."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")


def fill(uri: str, artifacts: Path | None) -> str:
    """Put an experiment with two runs into a store, the later one with a gradient check."""
    client = MlflowClient(uri)
    location = None if artifacts is None else artifacts.as_uri()
    experiment = client.create_experiment("checked", artifact_location=location)
    client.set_experiment_tag(experiment, f"mlflow.sharedViewState.{views.VIEW}", "{}")
    client.create_run(experiment)  # its folders of metrics, params and artifacts stay empty
    run_id = str(client.create_run(experiment).info.run_id)
    client.set_tag(run_id, "gradcheck.schema", "1")
    client.log_metric(run_id, "loss", 0.5)
    client.log_text(run_id, "all is well", "gradcheck/report.txt")
    return run_id


@pytest.fixture(scope="module")
def made_stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    """A store of each kind, in a folder that is gone by the time of the tests, and its run."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        files, database = folder / "old files" / "mlruns", folder / "old database"
        files.parent.mkdir()
        database.mkdir()
        in_files = fill(files.as_uri(), None)
        in_database = fill(f"sqlite:///{database / 'mlflow.db'}", database / "mlruns" / "1")
    (folder / "moved").mkdir()
    for name in ("old files", "old database"):
        (folder / name).rename(folder / "moved" / name)
    return {
        "files": (folder / "moved" / "old files" / "mlruns", in_files),
        "sqlite": (folder / "moved" / "old database", in_database),
    }


@pytest.fixture(params=["files", "sqlite"])
def store(
    request: pytest.FixtureRequest, made_stores: dict[str, tuple[Path, str]], tmp_path: Path
) -> tuple[Path, str]:
    """A moved store that a test may change, and the id of its run with a gradient check."""
    path, run_id = made_stores[request.param]
    return Path(shutil.copytree(path, tmp_path / "store")), run_id


def fingerprint(folder: Path) -> dict[str, str]:
    """Every file and folder below, with a hash of what is in it."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(
            path.read_bytes() if path.is_file() else b""
        ).hexdigest()
        for path in folder.rglob("*")
    }


def test_snapshot_finds_artifacts_and_changes_nothing(store: tuple[Path, str]) -> None:
    """In the copy of a moved store artifacts are found; writing to it leaves the store alone."""
    folder, run_id = store
    before = fingerprint(folder)
    with snapshot(find_store(folder)) as uri:
        client = MlflowClient(uri)
        text = Path(client.download_artifacts(run_id, "gradcheck/report.txt")).read_text()
        assert text == "all is well"
        client.set_tag(run_id, "mlflow.note.content", "a user's change")
        client.log_metric(run_id, "loss", 0.1)
        assert len(client.search_runs([client.get_run(run_id).info.experiment_id])) == 2
    assert fingerprint(folder) == before


def test_snapshot_of_files_that_went_through_git(
    made_stores: dict[str, tuple[Path, str]], tmp_path: Path
) -> None:
    """A run is found though its empty folders are gone, which git and zip do not keep."""
    folder = Path(shutil.copytree(made_stores["files"][0], tmp_path / "clone"))
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    with snapshot(find_store(folder)) as uri:
        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name("checked")
        assert experiment is not None
        for run in client.search_runs([experiment.experiment_id]):
            assert client.get_run(run.info.run_id).info.status == "RUNNING"


def test_snapshot_leaves_remote_artifacts_alone(
    made_stores: dict[str, tuple[Path, str]], tmp_path: Path
) -> None:
    """Artifact paths of buckets and servers stay, as do those that are right."""
    folder = Path(shutil.copytree(made_stores["sqlite"][0], tmp_path / "store"))
    right = (tmp_path / "elsewhere").as_uri()
    (tmp_path / "elsewhere").mkdir()
    wanted = ["mlflow-artifacts:/1/a/artifacts", "s3://bucket/1", right]
    with sqlite3.connect(folder / "mlflow.db") as database:
        run = database.execute("SELECT run_uuid FROM runs").fetchone()[0]
        for location in wanted:
            database.execute("UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?", (location, run))
            database.commit()
            with snapshot(find_store(folder)) as uri:
                assert MlflowClient(uri).get_run(run).info.artifact_uri == location
    database.close()


def test_snapshot_of_a_database_in_use(
    made_stores: dict[str, tuple[Path, str]], tmp_path: Path
) -> None:
    """A database with a write-ahead log is copied with what is in the log, and nothing is added."""
    folder = Path(shutil.copytree(made_stores["sqlite"][0], tmp_path / "store"))
    writer = sqlite3.connect(folder / "mlflow.db")
    writer.execute("PRAGMA journal_mode=WAL")
    writer.execute("UPDATE experiments SET name = 'renamed' WHERE name = 'checked'")
    writer.commit()
    before = fingerprint(folder)
    with snapshot(find_store(folder)) as uri:
        assert MlflowClient(uri).get_experiment_by_name("renamed") is not None
    assert fingerprint(folder) == before
    writer.close()


def test_find_store_takes_what_people_type(
    made_stores: dict[str, tuple[Path, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder, the folder around it, a file, a URI and an address all lead to the store."""
    files, database = made_stores["files"][0], made_stores["sqlite"][0]
    for text in (str(files), str(files.parent), files.as_uri()):
        assert find_store(text).path == files
    for text in (str(database), str(database / "mlflow.db"), f"sqlite:///{database / 'mlflow.db'}"):
        assert find_store(text).path == database / "mlflow.db"
    assert find_store("http://host:5000/").tracking_uri == "http://host:5000"
    assert find_store(None, "https://host").kind == "server"
    monkeypatch.chdir(database)
    assert find_store().kind == "sqlite"
    monkeypatch.chdir(files.parent)
    assert find_store().kind == "files"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "Without an argument, tfcheck looks for MLFLOW_TRACKING_URI"),
        (lambda folder: "nowhere", "A store must exist. Received: store='nowhere'. Give a folder"),
        (str, "A store must hold MLflow's records. Received: store="),
        (lambda folder: "s3://bucket", "tfcheck opens files, sqlite and http stores. Received: "),
    ],
)
def test_no_store_is_said_clearly(
    make: Callable[[Path], str | None], message: str, tmp_path: Path
) -> None:
    """Where there is no store, the error says the rule, what was given and what to give."""
    (tmp_path / "mlruns" / "1" / "abc" / "artifacts").mkdir(parents=True)  # artifacts only
    with pytest.raises(StoreError) as caught:
        find_store(make(tmp_path))
    assert str(caught.value).startswith(message)
    assert "Give a folder with an MLflow file store" in str(caught.value)


def test_command_line_says_what_is_wrong() -> None:
    """`tfcheck ui` ends with a message and without a traceback when there is nothing to show."""
    result = click.testing.CliRunner().invoke(main, ["ui", "nowhere"])
    assert result.exit_code == 2
    assert result.output.startswith("Error: A store must exist.")


def test_start_page_of_a_server_that_is_away() -> None:
    """A server that cannot be asked gets its main page, not an error."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        assert dashboard.start_page(address) == f"{address}/"


def test_free_port_avoids_a_taken_one() -> None:
    """The preferred port is used when it is free, and another one when it is not."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert dashboard.free_port(port) != port
    assert dashboard.free_port(port) == port


def test_server_that_does_not_start_is_said(
    made_stores: dict[str, tuple[Path, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that ends at once is an error with what it said."""
    command = [sys.executable, "-c", "raise SystemExit('no such schema')"]
    monkeypatch.setattr(dashboard, "_command", lambda *arguments: command)
    store = find_store(made_stores["files"][0])
    with (
        pytest.raises(dashboard.DashboardError, match="exit code 1, saying: no such schema"),
        dashboard.dashboard(store),
    ):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to send")
def test_ui_from_start_to_end(made_stores: dict[str, tuple[Path, str]], tmp_path: Path) -> None:
    """`tfcheck ui` serves a moved store on the right page; SIGTERM leaves nothing behind."""
    folder, run_id = made_stores["files"]
    before = fingerprint(folder)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    port = dashboard.free_port()
    arguments = [str(folder), "--no-browser", "--port", str(port)]
    command = f"from tfcheck.scripts.ui import ui; ui({arguments!r})"
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", command],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
        cwd=ROOT,
    )
    assert process.stdout is not None
    try:
        url = next(line.strip() for line in process.stdout if "http" in line)
        address, _, page = url.partition("/#")
        assert page.startswith("/experiments/")
        assert page.endswith("&viewStateShareKey=gradcheck&compareRunsMode=TABLE")
        question = {"path": "gradcheck/report.txt", "run_uuid": run_id}
        assert requests.get(f"{address}/get-artifact", question, timeout=20).text == "all is well"
    finally:
        process.send_signal(signal.SIGTERM)
        process.stdout.close()
        process.wait(30)
    assert process.returncode == 0
    deadline = time.monotonic() + 5
    while dashboard.free_port(port) != port and time.monotonic() < deadline:
        time.sleep(0.1)
    assert dashboard.free_port(port) == port
    assert not list(temporary.glob("tfcheck-*"))
    assert fingerprint(folder) == before


@pytest.mark.parametrize("live", [True, False])
def test_live_serves_the_store_itself(
    live: bool, made_stores: dict[str, tuple[Path, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `live` the server gets the store, else a copy that has its records."""
    served = []
    command = [sys.executable, "-c", "pass"]

    def remember(uri: str, *others: object) -> list[str]:
        served.append(uri)
        assert MlflowClient(uri).get_experiment_by_name("checked") is not None
        return command

    monkeypatch.setattr(dashboard, "_command", remember)
    monkeypatch.setattr(dashboard, "_wait_until_up", lambda *arguments: None)
    monkeypatch.setattr(dashboard, "start_page", lambda address: address)
    store = find_store(made_stores["sqlite"][0])
    with dashboard.dashboard(store, live=live):
        assert (served == [store.tracking_uri]) is live


def test_server_gets_no_settings_of_a_client() -> None:
    """Settings that point a client to its server would send our server to itself."""
    found = dashboard._environment({"MLFLOW_TRACKING_URI": "http://x", "PATH": "p"})
    assert "MLFLOW_TRACKING_URI" not in found
    assert found["PATH"] == "p"
    assert found["MLFLOW_ALLOW_FILE_STORE"] == "true"
