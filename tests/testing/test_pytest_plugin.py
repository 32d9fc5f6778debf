"""The pytest plugin, in sessions of their own: a fixture, a marker, a summary, and no weight."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from wrong_layers_package import run_pytest, write_package

SESSION = """
import numpy as np
import pytest
from shop.layers import Swish, WrongSwish
from tfcheck.errors import GradientCheckFailed
from tfcheck.testing import assert_gradients

X = np.random.default_rng(0).normal(size=(4, 3))


def test_right(check_gradients):
    report = check_gradients(Swish(name="right"), X)
    assert check_gradients.reports == [report]


def test_wrong(check_gradients):
    check_gradients(WrongSwish(name="wrong"), X)


def test_wrong_as_expected(check_gradients):
    with pytest.raises(GradientCheckFailed):
        check_gradients(WrongSwish(name="expected"), X)
    assert [str(report.verdict) for report in check_gradients.reports] == ["fail"]


@pytest.mark.gradients(directions=7, seed=3)
class TestMarked:
    @pytest.mark.gradients(seed=5)
    def test_function(self):
        settings = assert_gradients(Swish(name="plain"), X).settings
        assert (settings.directions, settings.seed) == (7, 5)
        assert assert_gradients(Swish(name="called"), X, directions=2).settings.directions == 2


@pytest.mark.gradients(derections=8)
def test_misspelt(check_gradients):
    check_gradients(Swish(), X)


@pytest.mark.gradients(8)
def test_without_a_name(check_gradients):
    check_gradients(Swish(), X)
"""


@pytest.fixture(scope="module", params=[(), ("-n", "2")], ids=["one process", "xdist"])
def session(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """What such a session prints, and its folder."""
    folder = tmp_path_factory.mktemp("session")
    write_package(folder, wrong=True)
    (folder / "test_layers.py").write_text(SESSION, encoding="utf-8")
    options = ("--strict-markers", "--junit-xml=junit.xml", *request.param)
    finished = run_pytest(folder, *options)
    assert finished.returncode == 1, finished.stdout + finished.stderr
    return finished.stdout, folder


def test_outcomes(session: tuple[str, Path]) -> None:
    """What is right passes, what is wrong fails, and so does a marker with a misspelt option."""
    printed, _ = session
    assert "3 failed, 3 passed" in printed
    failed = set(re.findall(r"^FAILED test_layers.py::(\S+)", printed, re.MULTILINE))
    assert failed == {"test_wrong", "test_misspelt", "test_without_a_name"}


def test_the_message(session: tuple[str, Path]) -> None:
    """A failure says the culprit with its line, shows the row, and no code of tfcheck's."""
    printed, _ = session
    start = printed.index("_ test_wrong _")
    failure = printed[start : printed.index("\n____", start)]
    assert "culprit wrong (shop/layers.py:" in failure
    assert "wrong/dense/kernel" in failure
    assert "✗ fail" in failure
    assert "worst at" in failure
    assert "assertion.py" not in failure
    assert "test_layers.py:" in failure


def test_mistakes_are_sentences(session: tuple[str, Path]) -> None:
    """A marker's mistake is told in one sentence."""
    printed, _ = session
    assert "options that all checks have. Received: option='derections'" in printed
    assert "takes options by name. Received: arguments=(8,)" in printed


def test_the_summary(session: tuple[str, Path]) -> None:
    """There is a line for each check, whoever made it and wherever, the worst last."""
    printed, _ = session
    section = printed.partition(" gradient checks ")[2].partition("\n===")[0]
    lines = [line for line in section.splitlines()[1:] if line.strip()]
    found = [re.split(r"\s{2,}", line.strip()) for line in lines]
    assert {(verdict, subject) for verdict, subject, *_ in found} == {
        ("✓ pass", "right"),
        ("✓ pass", "plain"),
        ("✓ pass", "called"),
        ("✗ fail", "wrong"),
        ("✗ fail", "expected"),
    }
    assert [verdict for verdict, *_ in found] == ["✓ pass"] * 3 + ["✗ fail"] * 2
    for _, subject, score, seconds, test in found:
        assert re.fullmatch(r"\d\.\de-?\d+", score), subject
        assert re.fullmatch(r"[\d.]+ s", seconds)
        assert test.startswith("test_layers.py::")


def test_junit_holds_the_checks(session: tuple[str, Path]) -> None:
    """Pytest's own JUnit file has each check as a property that other tools can read."""
    _, folder = session
    tree = ElementTree.parse(folder / "junit.xml")
    properties = [p.attrib for p in tree.iter("property") if p.attrib["name"] == "gradients"]
    checks = [json.loads(p["value"]) for p in properties]
    assert sorted(check["subject"] for check in checks) == sorted(
        ["right", "plain", "called", "wrong", "expected"]
    )
    assert all(check["seconds"] > 0 for check in checks)


UNUSED = """
import sys


def test_nothing():
    heavy = {"tensorflow", "keras", "numpy", "mlflow", "rich", "tfcheck.check", "tfcheck.settings"}
    assert heavy.isdisjoint(sys.modules)
"""


def test_unused_it_weighs_nothing(tmp_path: Path) -> None:
    """A session without a check loads no library for it, and its summary is as without tfcheck."""
    (tmp_path / "test_nothing.py").write_text(UNUSED, encoding="utf-8")
    finished = run_pytest(tmp_path)
    assert finished.returncode == 0, finished.stdout
    assert "gradient checks" not in finished.stdout
    fixtures = run_pytest(tmp_path, "--fixtures", "--markers").stdout
    assert "@pytest.mark.gradients(**options): " in fixtures


def test_project_defaults_reach_the_fixture(tmp_path: Path) -> None:
    """`[tool.tfcheck]` is read from pytest's root folder, wherever the test has moved to."""
    write_package(tmp_path, wrong=True)
    (tmp_path / "pyproject.toml").write_text(
        "[tool.pytest.ini_options]\n[tool.tfcheck]\ndirections = 3\nconcerning = 0.99\n"
        '[tool.tfcheck.pytest]\nallow = ["suspect"]\n',
        encoding="utf-8",
    )
    test = (
        "import numpy as np\nfrom shop.layers import WrongSwish\n\n\n"
        "def test_moved(check_gradients, monkeypatch, tmp_path):\n"
        "    monkeypatch.chdir(tmp_path)\n"
        "    report = check_gradients(WrongSwish(), np.ones((2, 3)))\n"
        "    assert (report.settings.directions, str(report.verdict)) == (3, 'suspect')\n"
    )
    (tmp_path / "test_moved.py").write_text(test, encoding="utf-8")
    finished = run_pytest(tmp_path)
    assert finished.returncode == 0, finished.stdout
    assert "! suspect" in finished.stdout.partition(" gradient checks ")[2]
