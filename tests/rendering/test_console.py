"""Reports as text on the console."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence

import pytest
from reports import FAILING, PASSING, RUN, WRONG_BIAS, report, variable
from rich.cells import cell_len
from rich.console import Console

from tfcheck import GradientReport
from tfcheck.judge.verdict import Verdict
from tfcheck.rendering.console import print_history, print_report, report_text


def row_of(path: str, text: str) -> str:
    """The row of a variable in the table on the console."""
    rows = [line for line in text.split("\n") if line.strip().startswith(f"{path} ")]
    assert len(rows) == 1, rows
    return rows[0]


def test_kernel_and_bias_have_a_row_each() -> None:
    """The classical question, dW or db, is answered by two neighbouring rows."""
    lines = report_text(FAILING).split("\n")
    bias = next(n for n, line in enumerate(lines) if line.startswith("  dense/bias "))
    assert "✗ fail" in lines[bias]
    assert "3.3e-1" in lines[bias]
    assert lines[bias + 1].startswith("  dense/kernel ")
    assert "✓ pass, great" in lines[bias + 1]


def test_columns() -> None:
    """A row tells path, shape, score, verdict with band, both norms and the error bar."""
    text = report_text(PASSING)
    assert row_of("dense/bias", text).split() == (
        ["dense/bias", "3×2", "3.0e-6", "✓", "pass,", "okay", "1.50", "1.75", "4e-11"]
    )


def test_reasons_stand_beside_the_verdict() -> None:
    """A verdict that is not the band of the score says why, and the reason is explained."""
    text = report_text(
        report(
            variable("gate/kernel", 0.02, verdict=Verdict.PASS, reason="kink"),
            variable(
                "key/bias",
                0.4,
                verdict=Verdict.INCONCLUSIVE,
                reason="below_resolution",
                detectable_error=0.25,
            ),
        )
    )
    assert "✓ pass, kink" in text
    assert "The loss has a kink here" in text
    assert "below resolution" in text
    assert "would have seen: 0.25" in " ".join(text.split())


@pytest.mark.parametrize("width", [80, 100, 110])
def test_long_names_keep_their_end(width: int) -> None:
    """However long a path, its end is readable, the numbers are whole and every line fits."""
    blocks = "/".join(["vision_transformer_base_patch16"] * 9)
    found = report(
        variable(f"{blocks}/query/kernel_of_the_query", 0.5),
        variable(f"{'x' * 300}_end/bias"),
        variable("层" * 60 + "/权重"),
    )
    text = report_text(found, width=width)
    assert max(cell_len(line) for line in text.split("\n")) <= width
    assert "kernel_of_the_query" in text
    assert "_end/bias" in text
    assert "/权重" in text.replace("\n", "").replace(" ", "")
    assert text.count("4e-11") == text.count("3×2") == 3


@pytest.mark.parametrize("width", [80, 90, 100, 110])
def test_numbers_are_never_cut(width: int) -> None:
    """At every width the numbers of the table are whole."""
    wide = variable(
        "layer/kernel",
        1.23456e-11,
        shape=(12, 64, 768),
        analytic_norm=-1.234e-100,
        numerical_norm=math.inf,
        error_bar=5e-300,
    )
    row = row_of("layer/kernel", report_text(report(wide), width=width))
    assert "…" not in row
    assert {"12×64×768", "1.2e-11", "inf", "5e-300"} <= set(row.split())


def test_large_models_are_cut_to_what_fits() -> None:
    """Of 300 variables 30 have a row, the failing ones among them, and the rest is counted."""
    many = [variable(f"layer_{n}/w", 1e-9 * (n + 1)) for n in range(299)]
    found = report(*many, variable("bad/w", 0.5))
    text = report_text(found)
    assert "Of 300 variables: 1 fail, 299 pass." in text
    assert len(re.findall(r"^  layer_\d+/w ", text, re.MULTILINE)) == 29
    assert "  … and 270 more variables, all pass" in text
    assert row_of("bad/w", text)


def test_show_all() -> None:
    """On request every variable has a row, and nothing is said to be left out."""
    text = report_text(report(*(variable(f"layer_{n}/w") for n in range(300))), show_all=True)
    assert len(re.findall(r"^  layer_\d+/w ", text, re.MULTILINE)) == 300
    assert "more variable" not in text


def test_siblings_of_a_failure_survive_the_cut() -> None:
    """In a large model the passing kernel beside a failing bias is still shown."""
    many = [variable(f"layer_{n}/w", 9e-6) for n in range(100)]
    text = report_text(report(*many, WRONG_BIAS, variable("dense/kernel", 1e-15)))
    assert row_of("dense/kernel", text)


def test_text_is_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Text for files and logs has no terminal codes, even where colour is forced."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\x1b" not in report_text(FAILING)
    assert not any(line.endswith(" ") for line in report_text(FAILING).split("\n"))


def test_colour_changes_no_word() -> None:
    """On a terminal the report has colours and says the same."""
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, color_system="standard", width=100)
    print_report(FAILING, console)
    coloured = output.getvalue()
    assert "\x1b[" in coloured
    plain = re.sub(r"\x1b\[[0-9;]*m", "", coloured)
    assert plain.split() == report_text(FAILING, width=100).split()


def history_text(reports: Sequence[GradientReport]) -> str:
    """What is printed of a history, without what fills its lines up."""
    output = io.StringIO()
    print_history(reports, Console(file=output, width=100, color_system=None))
    return "\n".join(line.rstrip() for line in output.getvalue().rstrip().split("\n"))


def test_history() -> None:
    """Each checkpoint is one line: step, name, verdict, worst score, failing layers, seconds."""
    lines = history_text(RUN).split("\n")
    assert len(lines) == 2 + len(RUN)
    assert lines[2].split() == ["0", "epoch", "0", "✓", "pass", "3.0e-6", "1.3"]
    assert lines[3].split()[:5] == ["100", "epoch", "1", "⊘", "error"]
    assert "The debug batch must fit the model." in lines[3]
    assert lines[5].split() == ["300", "epoch", "3", "✗", "fail", "3.3e-1", "dense", "1.3"]
