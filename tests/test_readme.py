"""The README and the pages of `docs/`: examples run as written, tables hold what there is."""

from __future__ import annotations

import inspect
import re

import pytest
from floors import floor_of
from repository import ROOT

import tfcheck
from tfcheck import Verdict
from tfcheck.callbacks import GradientCheck
from tfcheck.judge.reasons import Reason
from tfcheck.scripts.bench import account, results

PAGES = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")}
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


def rows(page: str) -> list[list[str]]:
    """The rows of a page's tables, each as the text of its cells."""
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_options_of_the_tables_exist() -> None:
    """The tables of options are the parameters of the callback and the checks, none missing."""
    documented = {
        option
        for row in rows(PAGES["options.md"].partition("## Reading")[0])
        for option in re.findall(r"`(\w+)`", row[0])
    }
    checks = (tfcheck.check_gradients, tfcheck.check_layer, GradientCheck)
    parameters = {name for one in checks for name in inspect.signature(one).parameters}
    given = {"model", "layer", "x", "y", "sample_weight", "inputs", "arguments", "output_gradients"}
    assert documented == parameters - given


def test_verdicts_and_reasons_are_explained() -> None:
    """Every verdict and every reason has its row."""
    named = {row[0] for row in rows(PAGES["options.md"])}
    assert set(map(str, Verdict)) <= named
    assert set(map(str, Reason)) <= named


def test_folders_of_the_table_are_those_of_the_tree() -> None:
    """README's table has each folder with code once, in the order of the flow."""
    table = README.partition("<!-- folders -->")[2].partition("<!-- end of folders -->")[0]
    named = re.findall(r"\| \[`([\w/]+)/`\]\(\1/\) \|", table)
    there = [path.parent for path in (ROOT / "tfcheck").glob("*/__init__.py")]
    folders = {path.relative_to(ROOT).as_posix() for path in there if not path.is_symlink()}
    assert sorted(named) == sorted({*folders, "callbacks", "scripts"})
    floors = [floor_of(name.rpartition("/")[2]) for name in named]
    assert floors == sorted(floors)


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", "tfcheck/ARCHITECTURE.md", *PAGES]
)
def test_links_lead_somewhere(page: str) -> None:
    """Links within the repository are to files that are there, and to headings that are there."""
    path = ROOT / ("docs" if page in PAGES else "") / page
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if link.startswith("http"):
            continue
        name, _, heading = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), link
        if heading:
            titles = re.findall(r"^#+ (.*)", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in {re.sub(r"[^\w -]", "", t).lower().replace(" ", "-") for t in titles}


def test_users_come_first() -> None:
    """The first 150 lines of the README are for users."""
    assert README[: README.index("## Development")].count("\n") <= 160


def test_speed_is_what_was_measured() -> None:
    """The numbers of `docs/how-fast.md` are those of the results."""
    measured = results.load(ROOT / account.RESULTS)
    assert measured
    assert account.filled(PAGES["how-fast.md"], measured) == PAGES["how-fast.md"]
