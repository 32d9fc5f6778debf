"""Annotations of GitHub Actions: at which line, how serious, and that each is one line."""

from __future__ import annotations

import re
from pathlib import Path

import hypothesis
import pytest
from any_report import REPORTS
from reports import PASSING, report, variable

from tfcheck import GradientReport
from tfcheck.scripts.annotations import annotations_of

COMMAND = re.compile(r"::(error|warning) ((?:\w+=[^,:]*,?)+)::(.*)")


def said(one: GradientReport) -> list[tuple[str, dict[str, str], str]]:
    """The level, the properties and the message of each annotation."""
    found = []
    for annotation in annotations_of(one):
        match = COMMAND.fullmatch(str(annotation))
        assert match is not None, str(annotation)
        properties = dict(pair.split("=", 1) for pair in match[2].split(","))
        found.append((match[1], properties, match[3]))
    return found


def test_a_culprit_at_its_line(tmp_path: Path) -> None:
    """The rows that are wrong through it are in its message, none has an annotation of its own."""
    Path("src").mkdir()
    Path("src/layers.py").touch()
    one = report(
        variable("net/a/kernel", 0.4),
        variable("net/b/kernel"),
        culprits=("net/swish",),
        culprit_places=("src/layers.py:12 in Swish.call",),
    )
    ((level, properties, message),) = said(one)
    assert level == "error"
    assert properties == {
        "file": "src/layers.py",
        "line": "12",
        "title": "gradient check of mnist_cnn",
    }
    assert "net/swish (src/layers.py:12 in Swish.call) does not match" in message
    assert "%0Anet/a/kernel: ✗ fail%0Ascore 4.0e-1" in message
    assert "net/b/kernel" not in message


def test_the_root_of_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are named from GITHUB_WORKSPACE, wherever the audit runs; unknown ones not at all."""
    here = tmp_path / "python"
    here.mkdir()
    (here / "layers.py").touch()
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    monkeypatch.chdir(here)
    one = report(
        variable("a/kernel", 0.4),
        culprits=("swish", "gone", "unknown"),
        culprit_places=("layers.py:3", "elsewhere.py:7 in f", ""),
    )
    known, gone, unknown = said(one)
    assert (known[1]["file"], known[1]["line"]) == ("python/layers.py", "3")
    assert set(gone[1]) == set(unknown[1]) == {"title"}
    assert "gone (elsewhere.py:7 in f)" in gone[2]


def test_layers_without_a_culprit() -> None:
    """A row that is wrong for a reason of its own is told at the line of its note."""
    Path("train.py").touch()
    blocked = variable(
        "net/b/kernel",
        0.5,
        reason="blocked",
        note="It is blocked by `ArgMax` at train.py:57 in `pick`.",
    )
    one = report(variable("net/a/kernel", 5e-4), blocked, variable("net/c/kernel"))
    (first, second) = said(one)
    assert (first[0], first[1]["file"], first[1]["line"]) == ("error", "train.py", "57")
    assert "net/b/kernel: ✗ fail, blocked" in first[2]
    assert (second[0], "file" in second[1]) == ("warning", False)
    assert "net/a/kernel: ! suspect" in second[2]


def test_what_could_not_be_judged() -> None:
    """It is one warning; what passes is silent."""
    ((level, _, message),) = said(report(variable("a/kernel", float("nan")), variable("b/kernel")))
    assert (level, message) == ("warning", "The gradient of 1 variable was not judged.")
    assert said(PASSING) == []


def test_names_cannot_write_commands() -> None:
    """A colon, a comma, a percent sign and a new line in a name are spelled."""
    one = report(variable("a/kernel", 0.4), model="m,file=x::\n::error::50%")
    ((_, properties, _),) = said(one)
    assert properties["title"] == ("gradient check of m%2Cfile=x%3A%3A%0A%3A%3Aerror%3A%3A50%25")


@hypothesis.given(one=REPORTS)
def test_any_report(one: GradientReport) -> None:
    """Whatever is in a report, each annotation is one line."""
    for annotation in annotations_of(one):
        assert len(str(annotation).splitlines()) == 1
