"""Reports that wait for MLflow, in a file: a line of JSON each, safe once written."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tfcheck.errors import ReportError
from tfcheck.report import GradientReport


@dataclass(frozen=True, slots=True)
class Entry:
    """A report, and when it was made: resent with that time, MLflow takes it for the same.

    Attributes:
        report: the report.
        made_at: milliseconds since 1970.
    """

    report: GradientReport
    made_at: int


def write(path: Path, entries: Iterable[Entry], run_id: str | None) -> Path:
    """Write the entries, replacing the file; into the temporary folder where `path` cannot be."""
    lines = [
        json.dumps(
            {"run_id": run_id, "made_at": entry.made_at, "report": entry.report.to_dict()},
            allow_nan=False,
        )
        for entry in entries
    ]
    content = "".join(f"{line}\n" for line in lines)
    try:
        return _write_safely(path, content)
    except OSError:
        return _write_safely(Path(tempfile.gettempdir()) / path.name, content)


def read(path: str | Path) -> tuple[str | None, tuple[Entry, ...]]:
    """The run these reports belong to (None when it was never made), and the reports.

    Raises:
        ReportError: if the file is missing, or not one that `write` wrote.
    """
    try:
        lines = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
        entries = tuple(
            Entry(GradientReport.from_dict(line["report"]), int(line["made_at"])) for line in lines
        )
        run_id = lines[0]["run_id"]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise ReportError(
            "Waiting reports must be a file that tfcheck wrote when MLflow was away. "
            f"Received: path={str(path)!r} ({type(error).__name__}). "
            "Give the path that the warning named."
        ) from error
    return run_id, entries


def _write_safely(path: Path, content: str) -> Path:
    """Replaced in one move: a crash leaves the old file or the new one, never half of one."""
    path = path.absolute()
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    return path
