"""The README's own example, run as written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from repository import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def _block(language: str, number: int = 0) -> str:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)[number]


def test_first_example_prints_what_the_readme_shows(capsys: pytest.CaptureFixture[str]) -> None:
    """The first Python block runs as it stands, and finds what the table below it shows."""
    scope: dict[str, object] = {}
    exec(_block("python"), scope)  # noqa: S102 - our own README
    printed = capsys.readouterr().out
    report = scope["callback"].reports[-1]  # type: ignore[attr-defined]

    shown = _block("text")
    rows = re.findall(r"^  (sequential\S*/\S+) .*?(✗ fail|✓ pass)", shown, re.MULTILINE)
    model = report.model
    found = {v.path.replace(model, "sequential", 1): str(v.verdict) for v in report.variables}
    assert len(rows) == 4
    assert {path: mark[2:] for path, mark in rows} == found
    assert report.culprits == (f"{model}/swish",)
    (place,) = report.culprit_places
    assert f"culprit     sequential/swish ({place.replace('<string>', 'train.py')})" in shown
    assert "FAIL" in printed


def test_options_of_the_tables_exist() -> None:
    """Every option in the README's tables is a parameter of the callback, and none is missing."""
    import inspect

    from tfcheck.callbacks import GradientCheck

    documented = set()
    for line in README.splitlines():
        row = re.match(r"\| (`\w+`(?:, `\w+`)*) \|", line)
        if row:
            documented |= set(re.findall(r"`(\w+)`", row[1]))
    parameters = set(inspect.signature(GradientCheck).parameters) - {"x", "y", "sample_weight"}
    assert parameters <= documented


def test_speed_is_what_was_measured() -> None:
    """The README's numbers are those of the results: `python -m tfcheck.scripts.bench.readme`."""
    from tfcheck.scripts.bench import readme, results

    measured = results.load(Path(readme.__file__).parent / "results")
    assert measured
    assert readme.filled(README, measured) == README
