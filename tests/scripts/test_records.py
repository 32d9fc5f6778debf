"""Whatever becomes of its records, an audit ends with its verdict, and soon."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from reports import report, variable

import tfcheck.scripts.records
from tfcheck import GradientReport
from tfcheck.scripts.records import Records
from tfcheck.tracking import TrackingError

REPORT = report(variable("gate/kernel", 0.5), model="größe")
SERVER = "http://127.0.0.1:9"
STANDS = "but the verdict stands."


def failing(error: Exception) -> Any:
    """Stands in for a function that fails."""

    def fail(*_arguments: Any, **_options: Any) -> None:
        raise error

    return fail


# -- warnings ------------------------------------------------------------------------------------


@pytest.mark.parametrize("quiet", [False, True])
@pytest.mark.parametrize(
    "error",
    [
        TrackingError("MLflow must be there. Received: nothing. Start it."),
        RuntimeError("two\nlines"),
        OSError(28, "No space left on device"),
        MemoryError(),
    ],
)
def test_mlflow_that_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Any, quiet: bool
) -> None:
    """Whatever MLflow raises is one sentence on standard error, and the report is printed."""
    monkeypatch.setattr("tfcheck.tracking.log_report", failing(error))
    Records(mlflow=True, tracking_uri=SERVER, quiet=quiet).keep(REPORT)
    out, err = capsys.readouterr()
    assert ("✗ FAIL" in out) is not quiet
    (line,) = err.splitlines()
    assert line.startswith(f"Warning: The report is not logged to MLflow, {STANDS} ")


def test_mlflow_that_hangs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """MLflow gets so many seconds and no more."""
    monkeypatch.setattr("tfcheck.tracking.log_report", lambda *_a, **_o: time.sleep(600))
    monkeypatch.setattr(tfcheck.scripts.records, "MLFLOW_SECONDS", 0.1)
    monkeypatch.setattr("logging.disable", lambda: None)
    began = time.monotonic()
    Records(mlflow=True, tracking_uri=SERVER, quiet=True).keep(REPORT)
    assert time.monotonic() - began < 60
    assert f"{STANDS} MLflow is not done after 0.1 s." in capsys.readouterr().err


def test_a_store_that_cannot_be_made(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A folder that cannot be written to is said at once. MLflow would try for minutes."""
    (tmp_path / "file").write_text("")
    began = time.monotonic()
    uri = f"sqlite:///{(tmp_path / 'file' / 'mlflow.db').as_posix()}"
    Records(mlflow=True, tracking_uri=uri, quiet=True).keep(REPORT)
    assert f"{STANDS} A store's folder must be writable" in capsys.readouterr().err
    assert time.monotonic() - began < 20


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A file that cannot be written is a warning, and the other one is written."""
    Records(Path("/dev/full"), tmp_path / "report.html").keep(REPORT)
    out, err = capsys.readouterr()
    assert err == (
        f"Warning: The report is not written, {STANDS} [Errno 28] No space left on device.\n"
    )
    assert out.endswith(f"Written: {tmp_path / 'report.html'}\n")
    assert "gate/kernel" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_mistake_in_printing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Not even a mistake of tfcheck's own, once there is a verdict, takes its place."""
    monkeypatch.setattr("tfcheck.rendering.console.report_view", failing(KeyError("planted")))
    Records(tmp_path / "report.json").keep(REPORT)
    assert f"The report cannot be printed, {STANDS} 'planted'." in capsys.readouterr().err
    assert GradientReport.load(tmp_path / "report.json").to_dict() == REPORT.to_dict()


# -- processes -----------------------------------------------------------------------------------

KEEP = """
import sys
from tfcheck import GradientReport
from tfcheck.scripts import records
from tfcheck.scripts.surroundings import encode_what_can_be
encode_what_can_be()
report = GradientReport.load("report.json")
"""


def started(code: str, **options: Any) -> subprocess.Popen[bytes]:
    """A process that keeps the report, and ends with the exit code 1 of a failing model."""
    REPORT.save("report.json")
    return subprocess.Popen([sys.executable, "-c", f"{KEEP}{code}\nsys.exit(1)"], **options)


@pytest.mark.skipif(sys.platform == "win32", reason="needs pipes as Unix has them")
@pytest.mark.parametrize("where", ["closed pipe", "/dev/full", "ascii", "nowhere"])
def test_the_exit_code_is_the_verdict_wherever_it_is_printed(where: str) -> None:
    """Readers that go away, full disks, few letters and no standard output change nothing."""
    if where == "/dev/full" and not Path(where).exists():
        pytest.skip("needs /dev/full")
    reading, writing = os.pipe()
    os.close(reading)
    output: Any = {"closed pipe": writing, "ascii": subprocess.PIPE, "nowhere": None}.get(where)
    with Path(os.devnull if where != "/dev/full" else where).open("w") as file:
        process = started(
            "records.Records(html_file=records.Path('report.html')).keep(report)",
            stdout=output if where != "/dev/full" else file,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONIOENCODING": "ascii"},
            preexec_fn=(lambda: os.close(1)) if where == "nowhere" else None,
        )
        out, err = process.communicate(timeout=60)
    os.close(writing)
    assert process.returncode == 1, err
    assert err.decode().splitlines() == (
        [f"Warning: The report cannot be printed, {STANDS} [Errno 28] No space left on device."]
        if where == "/dev/full"
        else []
    )
    if where == "ascii":
        assert out.decode("ascii").startswith("x FAIL  gradient check of gro\\xdfe")
    assert Path("report.html").exists()


def test_what_hangs_is_left_behind() -> None:
    """A process whose MLflow hangs ends all the same."""
    process = started(
        "import time, tfcheck.tracking\n"
        "tfcheck.tracking.log_report = lambda *a, **k: time.sleep(600)\n"
        "records.MLFLOW_SECONDS = 0.1\n"
        f"records.Records(mlflow=True, tracking_uri={SERVER!r}, quiet=True).keep(report)",
        stderr=subprocess.PIPE,
    )
    _, err = process.communicate(timeout=100)
    assert process.returncode == 1
    assert err.decode().splitlines()[-1].endswith("MLflow is not done after 0.1 s.")


def test_two_audits_on_one_new_store() -> None:
    """Two processes that begin a store and an experiment at once both log to it."""
    import mlflow

    code = "records.Records(mlflow=True, experiment='both').keep(report)"
    pair = [started(code, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    for process in pair:
        out, err = process.communicate(timeout=200)
        assert b"Logged to MLflow, run " in out, err.decode()
    client = mlflow.MlflowClient()
    (experiment,) = client.search_experiments(filter_string="name = 'both'")
    runs = client.search_runs([experiment.experiment_id])
    assert [run.data.tags["gradcheck.verdict"] for run in runs] == ["fail", "fail"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert not list(Path().glob("*lock"))
