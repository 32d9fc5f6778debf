"""The file in which reports wait."""

from __future__ import annotations

from pathlib import Path

import pytest
from tracked import (
    BAD,
    error_report,
    report_of,
)

from tfcheck.errors import ReportError
from tfcheck.tracking import (
    spool,
)


def test_waiting_reports_survive_in_a_file(tmp_path: Path) -> None:
    """Reports come back from their file equal, and a foreign file is refused with a remedy."""
    path = spool.begin(spool.RunTarget("t", 1, folder=str(tmp_path)))
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
    path = spool.begin(spool.RunTarget("u", 1, folder=str(tmp_path)))
    spool.add(path, spool.Entry(report_of(BAD, 7), 5, {"../elsewhere.py": b""}))
    with pytest.raises(ReportError):
        spool.read(path)


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the working directory cannot be written, reports wait in the temporary folder."""
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    path = spool.begin(spool.RunTarget("t", 1, folder=str(tmp_path / "missing")))
    assert path.parent == tmp_path
