"""Checks on their way to MLflow, in a file: a line of JSON each, safe once written.

The file is the only thing that the training and the process that sends have in common. The
training appends to it; what has arrived is noted beside it by who sends (`progress.py`).
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfcheck.errors import ReportError
from tfcheck.gradient_report import GradientReport

PATTERN = "gradcheck-waiting-*.jsonl"


@dataclass(frozen=True, slots=True)
class Entry:
    """A report, and when it was made: resent with that time, MLflow takes it for the same.

    Attributes:
        report: the report.
        made_at: milliseconds since 1970.
        files: what else belongs to it, by the names of the files.
    """

    report: GradientReport
    made_at: int
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunTarget:
    """Where the checks of one training go, as far as that is known without asking a server.

    Attributes:
        training: a name of the training that no other has.
        made_at: when it began, in milliseconds since 1970.
        name: the name of the callback in the log.
        run_id: an existing run, which its maker ends; None when one of our own is to be made.
        run_name: what to call one of our own.
        tracking_uri: where MLflow is, without a password; `""` for MLflow's default.
        experiment_id: where to make a run; `""` where it is to be found out.
        experiment_name: the same by its name.
        folder: the training's working directory, which paths in URIs are relative to.
        source: the script that trains.
        host: the machine that trains.
        process: the number of the process that trains.
        params: the options of the checks.
    """

    training: str
    made_at: int
    name: str = "gradcheck"
    run_id: str | None = None
    run_name: str = ""
    tracking_uri: str = ""
    experiment_id: str = ""
    experiment_name: str = ""
    folder: str = ""
    source: str = ""
    host: str = ""
    process: int = 0
    params: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Content:
    """What a file holds.

    Attributes:
        target: where its checks go.
        entries: the checks, oldest first.
        moved_to: a run that was started after the training began, to which all checks belong.
        ended: MLflow's word for how training ended; `""` while it goes on.
        last_step: optimizer iterations at the end; None where they are not known.
        lines: how many lines there are.
    """

    target: RunTarget
    entries: tuple[Entry, ...] = ()
    moved_to: str | None = None
    ended: str = ""
    lines: int = 0
    last_step: int | None = None

    @property
    def run_id(self) -> str | None:
        """The run that somebody else made, if there is one."""
        return self.moved_to or self.target.run_id


def begin(target: RunTarget) -> Path:
    """Make the file of a training, in its folder or, where that cannot be written, a temporary one.

    Raises:
        OSError: if neither can be written.
    """
    name = PATTERN.replace("*", target.training)
    try:
        return _append(Path(target.folder) / name, {"target": dataclasses.asdict(target)})
    except OSError:
        path = Path(tempfile.gettempdir()) / name
        return _append(path, {"target": dataclasses.asdict(target)})


def add(path: Path, entry: Entry) -> None:
    """Add a check."""
    files = {name: b64encode(content).decode() for name, content in entry.files.items()}
    _append(path, {"made_at": entry.made_at, "report": entry.report.to_dict(), "files": files})


def move(path: Path, run_id: str) -> None:
    """Note that all checks belong to a run that was started later."""
    _append(path, {"moved_to": run_id})


def end(path: Path, status: str, last_step: int | None = None) -> None:
    """Note how training ended, and after how many optimizer iterations if that is known."""
    _append(path, {"ended": status, "last_step": last_step})


def read(path: str | Path) -> Content:
    """What a file holds. A line that was cut off by a crash is left out.

    Raises:
        ReportError: if the file is missing, or not one of waiting checks.
    """
    try:
        whole = Path(path).read_text(encoding="utf-8").rpartition("\n")[0]
        lines = [json.loads(line) for line in whole.split("\n") if _is_whole(line)]
        target = RunTarget(**lines[0]["target"])
        entries = tuple(
            Entry(
                GradientReport.from_dict(line["report"]),
                int(line["made_at"]),
                _files(line.get("files", {})),
            )
            for line in lines
            if "report" in line
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise ReportError(
            "Waiting checks must be in a file that tfcheck wrote for MLflow. "
            f"Received: path={str(path)!r} ({type(error).__name__}). "
            "Give the path that the warning named."
        ) from error
    later = ("moved_to", "ended", "last_step")
    found = {key: value for line in lines for key, value in line.items() if key in later}
    return Content(
        target,
        entries,
        moved_to=found.get("moved_to"),
        ended=found.get("ended", ""),
        lines=len(lines),
        last_step=found.get("last_step"),
    )


def _files(content: Mapping[str, str]) -> dict[str, bytes]:
    """The files in a line, whose names must be such as stay in the folder they are put in."""
    if any(Path(name).name != name for name in content):
        raise ValueError(f"files in other folders: {list(content)}")
    return {name: b64decode(text) for name, text in content.items()}


def _is_whole(line: str) -> bool:
    return line.startswith("{") and line.endswith("}")


def _append(path: Path, line: Mapping[str, Any]) -> Path:
    """On the disk when this returns, whatever happens next.

    It begins a line of its own even where a crash or a full disk cut off the one before.
    """
    content = f"\n{json.dumps(line, allow_nan=False)}\n".encode()
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
    try:
        while content:
            content = content[os.write(file, content) :]
        os.fsync(file)
    finally:
        os.close(file)
    return path
