"""The process that sends: what the training waits for, and what arrives whatever happens to it."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fake_mlflow import ARTIFACTS, FakeMlflow
from reports import report, variable

from tfcheck.gradient_report import GradientReport
from tfcheck.scripts.cli import main
from tfcheck.settings import Settings
from tfcheck.tracking import MlflowTracking
from tfcheck.tracking.courier import Courier

TRAINING = """
import json, os, signal, sys, time
from pathlib import Path
from tfcheck.gradient_report import GradientReport
from tfcheck.tracking import MlflowTracking
from tfcheck.tracking.courier import Courier
signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background ignores it
report = GradientReport.load("report.json")
tracking = MlflowTracking()
tracking.start(report.settings, "net")
tracking.log([report])
print("logged", flush=True)
"""


def report_at(step: int) -> GradientReport:
    """A report on two layers."""
    rows = (variable("block_0/kernel", 1e-9), variable("block_1/kernel", 1e-9))
    options = Settings(batch_size=8)
    return report(*rows, settings=options, step=step, checkpoint=f"step {step}", model="net")


def trained(steps: tuple[int, ...] = (0, 10), **options: Any) -> tuple[MlflowTracking, float]:
    """Log as a training does, and give the longest time that it waited for one check."""
    tracking = MlflowTracking(**options)
    tracking.start(Settings(), "net")
    longest = 0.0
    for count in range(1, len(steps) + 1):
        reports = [report_at(step) for step in steps[:count]]
        begin = time.perf_counter()
        tracking.log(reports)
        longest = max(longest, time.perf_counter() - begin)
    return tracking, longest


def waiting(folder: Path) -> list[Path]:
    """What trainings left in a folder."""
    return sorted(folder.glob("gradcheck-*"))


def sent_by_command(*arguments: str) -> Any:
    """Run `tfcheck sync`."""
    return CliRunner().invoke(main, ["sync", *arguments])


def test_a_training_is_logged_whole(fake: FakeMlflow, tmp_path: Path) -> None:
    """All is there when `close` returns: numbers, files, the end of the run; no file is left."""
    tracking, _ = trained()
    tracking.close()
    assert fake.steps() == [0, 10]
    (run,) = fake.runs.values()
    assert run["status"] == "FINISHED"
    assert run["tags"]["gradcheck.verdict"] == "pass"
    assert run["tags"]["mlflow.source.name"] == sys.argv[0]
    assert run["name"].startswith("net-")
    names = {path.rpartition("/")[2] for path in fake.artifacts}
    assert {"verdicts.json", "scores.json", "report.html", "heatmap.png", "report.json"} <= names
    assert not waiting(tmp_path)


def test_few_requests_a_check(fake: FakeMlflow) -> None:
    """A check costs nine requests, and what is needed once is asked for once."""
    tracking, _ = trained((0,))
    assert fake.wait_for(lambda: len(fake.experiment_tags) == 4)
    time.sleep(0.2)
    before = len(fake.requests)
    tracking.log([report_at(0), report_at(10)])
    assert fake.wait_for(lambda: sum("images" in path for path in fake.artifacts) == 4)
    time.sleep(0.2)
    assert len(fake.requests) - before <= 10
    tracking.close()


def test_the_training_process_stays_as_it_was(fake: FakeMlflow) -> None:
    """No thread, handler, variable, random number or folder of the training's is touched."""

    def state() -> tuple[Any, ...]:
        handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
        # The server of this test answers on threads.
        names = {thread.name for thread in threading.enumerate()}
        threads = {name for name in names if "process_request" not in name}
        return random.getstate(), handlers, dict(os.environ), threads, Path.cwd()

    before = state()
    tracking, _ = trained()
    tracking.close()
    assert state() == before


def test_numbers_arrive_where_pictures_cannot(
    fake: FakeMlflow, said: Callable[[], list[str]], tmp_path: Path
) -> None:
    """An artifact store that answers 500 keeps no number back, and the run is ended."""
    fake.fault = lambda path: 500 if path.startswith(ARTIFACTS) else None
    tracking, _ = trained((0, 10, 20, 30))
    tracking.close()
    assert fake.steps() == [0, 10, 20, 30]
    (run,) = fake.runs.values()
    assert run["status"] == "FINISHED"
    assert "answered 500" in said()[-1]
    (file,) = tmp_path.glob("*.jsonl")
    assert f"tfcheck sync {file}" in said()[-1]
    fake.fault = lambda path: None
    result = sent_by_command(str(file))
    assert result.exit_code == 0, result.output
    assert sum(path.endswith("report.json") for path in fake.artifacts) == 4
    assert fake.steps() == [0, 10, 20, 30]
    assert not list(tmp_path.glob("*.jsonl"))


def test_numbers_do_not_wait_for_pictures(fake: FakeMlflow) -> None:
    """While an artifact store keeps silent, the numbers of later checks arrive."""
    fake.fault = lambda path: silent(path) if path.startswith(ARTIFACTS) else None
    tracking, _ = trained((0,), sender=Courier())
    assert fake.wait_for(lambda: any("artifacts" in request for request in fake.requests))
    tracking.log([report_at(0), report_at(10)])
    assert fake.wait_for(lambda: fake.steps() == [0, 10], 5)
    tracking.close(timeout=0)
    assert fake.wait_for(lambda: [r["status"] for r in fake.runs.values()] == ["FINISHED"], 5)


def silent(path: str) -> int | None:
    """Never answer."""
    time.sleep(30)
    return 500


FAULTS: dict[str, Callable[[str], int | None]] = {
    "answered 500": lambda path: 500,
    "answered 503": lambda path: None if path == "/health" else 503,
    "did not answer within 2 s": silent,
}


@pytest.mark.parametrize("clause", FAULTS)
def test_trouble_is_told_as_it_is(
    fake: FakeMlflow,
    said: Callable[[], list[str]],
    tmp_path: Path,
    clause: str,
) -> None:
    """A check does not wait for a server in trouble, closing is bounded, nothing is lost."""
    fake.fault = FAULTS[clause]
    tracking, longest = trained()
    begin = time.monotonic()
    tracking.close()
    assert time.monotonic() - begin < 9
    assert longest < 0.1  # 0.02 on a machine that does nothing else
    assert clause in said()[-1]
    (file,) = tmp_path.glob("*.jsonl")
    fake.fault = lambda path: None
    result = sent_by_command(str(tmp_path))
    assert result.exit_code == 0, result.output
    assert fake.steps() == [0, 10]
    assert [run["status"] for run in fake.runs.values()] == ["FINISHED"]
    assert not file.exists()


def test_a_server_that_comes_back_gets_everything(
    said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With a name of an experiment and no server, `start` waits for nothing; later all arrives."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "seven")
        begin = time.monotonic()
        tracking, _ = trained((0,))
        assert time.monotonic() - begin < 1
    fake = FakeMlflow(port)
    tracking.log([report_at(0), report_at(10)])
    tracking.close()
    assert fake.steps() == [0, 10]
    assert [run["status"] for run in fake.runs.values()] == ["FINISHED"]
    assert not waiting(tmp_path)
    fake.stop()


def test_closing_waits_no_longer_than_told(
    fake: FakeMlflow, said: Callable[[], list[str]], tmp_path: Path
) -> None:
    """A server that is slow with pictures delays the end by the time set; sending goes on."""
    fake.fault = lambda path: time.sleep(1.5) if path.startswith(ARTIFACTS) else None
    tracking, _ = trained((0,), close_timeout=2.5)
    begin = time.monotonic()
    tracking.close()
    assert time.monotonic() - begin < 4
    if waiting(tmp_path):
        assert "Pictures are still being sent" in said()[-1]
    fake.fault = lambda path: None
    assert fake.wait_for(lambda: not list(tmp_path.glob("*.jsonl")))


def start_training(tmp_path: Path, ending: str) -> subprocess.Popen[str]:
    """Begin a training in a process of its own that ends as told, and wait for its first check."""
    report_at(10).save(tmp_path / "report.json")
    process = subprocess.Popen(
        [sys.executable, "-c", f"{TRAINING}\n{ending}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=tmp_path,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "logged\n"
    return process


@pytest.mark.parametrize(
    ("ending", "send", "status"),
    [
        ("time.sleep(60)", signal.SIGTERM, "KILLED"),
        ("time.sleep(60)", signal.SIGKILL, "KILLED"),
        ("time.sleep(60)", signal.SIGINT, "KILLED"),
        ("raise ValueError", None, "FAILED"),
        ("os._exit(0)", None, "KILLED"),
        ("pid = os.fork()\nif pid: os.kill(os.getpid(), 9)\ntime.sleep(8)", None, "KILLED"),
    ],
    ids=["SIGTERM", "SIGKILL", "Ctrl-C", "exception", "no farewell", "a fork lives on"],
)
@pytest.mark.skipif(os.name != "posix", reason="sends signals")
def test_a_training_that_is_ended_is_logged_and_its_run_ended(
    fake: FakeMlflow, tmp_path: Path, ending: str, send: signal.Signals | None, status: str
) -> None:
    """However a training's process ends, what it had arrives, and its run says how it ended."""
    process = start_training(tmp_path, ending)
    if send is not None:
        process.send_signal(send)
    process.wait(20)
    assert process.stdout is not None
    process.stdout.close()
    assert fake.wait_for(lambda: not list(tmp_path.glob("*.jsonl")))
    (run,) = fake.runs.values()
    assert run["status"] == status
    assert fake.steps() == [10]
    assert sum(path.endswith("report.json") for path in fake.artifacts) == 1


@pytest.mark.skipif(os.name != "posix", reason="forks")
def test_a_fork_leaves_its_parents_training_alone(fake: FakeMlflow) -> None:
    """A forked process that ends neither ends the run nor takes the line to who sends."""
    tracking, _ = trained((0,))
    with warnings.catch_warnings(action="ignore"):  # of threads and forks
        child = os.fork()
    if child == 0:
        tracking._open = None
        os._exit(0)
    os.waitpid(child, 0)
    tracking.log([report_at(0), report_at(10)])
    tracking.close()
    assert fake.steps() == [0, 10]


def test_nothing_waits(tmp_path: Path) -> None:
    """A folder without such files is no error; a file that never was is."""
    assert sent_by_command().output == "Nothing waits in ..\n"
    assert sent_by_command(str(tmp_path / "gradcheck-waiting-1.jsonl")).exit_code == 0
    result = sent_by_command("nowhere")
    assert result.exit_code == 2
    assert "must exist. Received: where='nowhere'" in result.output


def test_what_does_not_arrive_is_told(fake: FakeMlflow, tmp_path: Path) -> None:
    """`tfcheck sync` exits 2 and says what did not arrive and why, and keeps the file."""
    fake.fault = lambda path: 500
    tracking, _ = trained()
    tracking.close(timeout=0)
    (file,) = tmp_path.glob("*.jsonl")
    moved = tmp_path / "elsewhere" / file.name
    moved.parent.mkdir()
    moved.write_bytes(file.read_bytes())
    result = sent_by_command(str(moved.parent))
    assert result.exit_code == 2
    assert "numbers of 0 and pictures of 0 of 2 checks" in result.output
    assert "answered 500" in result.output
    assert moved.exists()
