"""Reports on terminals of all kinds: their letters, their width, and their codes."""

from __future__ import annotations

import ast
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from repository import ROOT
from rich.cells import cell_len
from rich.console import Console

from tfcheck import GradientReport
from tfcheck.judge.verdict import Verdict
from tfcheck.rendering.console import print_history, print_report, report_text
from tfcheck.rendering.letters import PLAIN, spelled
from tfcheck.rendering.terminal import terminal_console
from tfcheck.report.rows import Coordinate, LayerReport, ObjectiveSummary, VariableReport


def variable(path: str, verdict: Verdict, **fields: Any) -> VariableReport:
    """A variable of the layer `block/层`."""
    score = 1.5e-1 if verdict is Verdict.FAIL else 2e-10
    known = {"reason": "", "analytic_norm": 1.5, "numerical_norm": 1.75, "error_bar": 3e-9}
    return VariableReport(path, "block/层", (64, 32), score, verdict, **{**known, **fields})


WORST = (Coordinate((3, 0), -2.62793, -1.31396, 1.1e-9), Coordinate((63, 31), 0.5, 0.25, 1e-9))
WRONG = (
    variable("block/层/kernel", Verdict.FAIL, worst=WORST, note="‖ĝ‖ is twice ‖g‖ · σ′(x)."),
    variable("block/层/a_long_name_of_a_bias_inside/of_it", Verdict.INCONCLUSIVE, reason="kink"),
    variable("block/层/gamma", Verdict.PASS, reason="unused"),
    variable("block/层/\x1b[2Jbeta", Verdict.PASS),
)
REPORT = GradientReport(
    Verdict.FAIL,
    1.5e-1,
    (LayerReport("block/层", 1.5e-1, Verdict.FAIL, WRONG),),
    ("block/层",),
    ("A note – with “letters”.", "Another, of ½ µm."),
    ObjectiveSummary("train_step", "train", (0.5,), 1e-9),
    frozen=("block/é",),
    step=5,
    checkpoint="epoch 5",
    seconds=0.5,
    model="größe",
)
ENCODINGS = ["ascii", "cp1252", "cp437", "latin-1", "koi8-r", "shift_jis", "utf-8", "utf-16"]


# -- letters -------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [40, 60, 80, 100])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_has_the_letters(encoding: str, width: int) -> None:
    """A report and a history can be printed in it, without question marks for what it lacks."""
    text = report_text(REPORT, width=width, encoding=encoding)
    for shown in (text, history_on(encoding, width)):
        assert shown.encode(encoding)
        assert "\x1b" not in shown
    whole = report_text(REPORT, width=width, encoding="utf-8")
    assert text.count("?") <= whole.count("?") + whole.count("\N{REPLACEMENT CHARACTER}")
    assert max(map(cell_len, text.split("\n"))) <= width


def history_on(encoding: str, width: int) -> str:
    """What a terminal of this encoding gets of a history."""
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, errors="strict")
    print_history([REPORT, REPORT], Console(file=file, width=width))
    file.flush()
    return raw.getvalue().decode(encoding)


def test_ascii_is_readable() -> None:
    """What stands for the symbols is what one would type, and names stay telling."""
    text = report_text(REPORT, width=100, encoding="ascii")
    for said in (
        "x FAIL  gradient check of gr",
        "||g||",
        "great <= 1e-7",
        "block/\\u5c42/kernel",
        "64x32",
        "+ pass",
        "score = ||g^ - g|| / (||g^|| + ||g||)",
        "+- 1.1e-9",
        "---",
    ):
        assert said in text
    assert "✗ FAIL" in report_text(REPORT, width=100, encoding="utf-8")


def test_only_what_is_missing_is_spelled() -> None:
    """An encoding's own letters are used: cp1252 has × and ±, but no ≤."""
    text = report_text(REPORT, width=100, encoding="cp1252")
    assert "64×32" in text
    assert "größe" in text
    assert "great <= 1e-7" in text


@pytest.mark.parametrize("name", ["UTF-8", "utf8", None])
def test_names_of_unicode(monkeypatch: pytest.MonkeyPatch, name: str | None) -> None:
    """However standard output names its encoding, Unicode has all letters and lines."""

    class Output(io.StringIO):
        encoding = name  # type: ignore[assignment]

    monkeypatch.setattr(sys, "stdout", Output())
    assert str(REPORT).startswith("✗ FAIL")
    assert "───" in str(REPORT)


def test_unknown_encodings() -> None:
    """A stream that names an encoding Python does not know gets ASCII."""
    assert spelled("✓ é", "no such encoding") == "+ e"


def test_every_symbol_in_the_source_can_be_typed() -> None:
    """No text of tfcheck's own ends as an escape: all its symbols have a spelling."""
    texts = [
        node.value
        for folder in ("tfcheck", "callbacks", "scripts")
        for file in sorted((ROOT / folder).rglob("*.py"))
        if "bench" not in file.parts and "callbacks" not in file.relative_to(ROOT).parts[1:]
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    symbols = {letter for text in texts for letter in text if not letter.isascii()} - {"層"}
    assert len(symbols) > 20
    assert {s for s in symbols if "\\" in spelled(s, "ascii")} <= set(
        "❌🛑➖❔✅⚠️"
    )  # of pages alone
    assert all(spelling.isascii() for spelling in PLAIN.values())


def test_print_works_where_standard_output_is_ascii(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`print(report)` in a script works with LANG=C, and so does `print_report`."""
    REPORT.save(tmp_path / "report.json")
    code = (
        "import tfcheck, sys; from tfcheck.rendering.console import print_report\n"
        "report = tfcheck.GradientReport.load('report.json'); print(report); print_report(report)\n"
        "sys.exit('tensorflow' in sys.modules)"
    )
    for name in ("PYTHONIOENCODING", "COLUMNS", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    plain = {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=False, env={**os.environ, **plain}
    )
    assert finished.returncode == 0, finished.stderr.decode()
    assert finished.stdout.decode("ascii").count("x FAIL  gradient check of gr") == 2


# -- width ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [40, 50, 60, 70, 80, 100])
def test_every_width_is_readable(width: int) -> None:
    """Paths, verdicts and numbers are whole words, and no column is a letter wide."""
    text = report_text(REPORT, width=width, encoding="utf-8")
    lines = text.split("\n")
    assert max(map(cell_len, lines)) <= width
    for said in ("✗ FAIL", "block/层/kernel", "✗ fail", "1.5e-1", "-2.62793", "-1.31396", "1.1e-9"):
        assert said in text
    assert not any(re.fullmatch(r"\s*\S{1,2}", line) for line in lines), text
    assert "…" not in re.sub(r"…/", "", text)


def test_narrow_terminals_get_narrow_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """`str(report)` is as wide as the terminal, down to 40 characters."""
    for columns, most in (("40", 40), ("20", 40), ("60", 60), ("300", 110)):
        monkeypatch.setenv("COLUMNS", columns)
        assert most - 8 <= max(map(cell_len, str(REPORT).split("\n"))) <= most


def test_a_history_is_narrow_too() -> None:
    """At 40 characters a history has whole steps, verdicts and scores."""
    text = history_on("utf-8", 40)
    assert max(map(cell_len, text.split("\n"))) <= 40
    for said in ("epoch 5", "✗ fail", "1.5e-1", "block/层"):
        assert said in text


# -- colours -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "codes"),
    [
        ({"FORCE_COLOR": "1"}, True),
        ({"NO_COLOR": "", "FORCE_COLOR": "1"}, True),
        ({}, False),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
        ({"TERM": "dumb", "FORCE_COLOR": "1"}, False),
    ],
)
def test_codes(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], codes: bool) -> None:
    """Where colours are not wanted, or there is no terminal, no escape character is written."""
    monkeypatch.setenv("TERM", "xterm")
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    output = io.StringIO()
    print_report(REPORT, terminal_console(output))
    assert ("\x1b" in output.getvalue()) is codes
