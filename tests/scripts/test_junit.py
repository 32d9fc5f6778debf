"""An audit as JUnit XML: what fails there, what is skipped, and that it is XML."""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree import ElementTree

import hypothesis
from any_report import REPORTS
from reports import PASSING, WRONG_BIAS, report, variable

from tfcheck import GradientReport, Verdict
from tfcheck.scripts.junit import write_junit

FAILING = report(
    variable("net/conv/kernel"),
    variable("net/dense/kernel", 2e-4),
    WRONG_BIAS,
    variable("net/late/kernel", math.nan),
    variable("net/gate/kernel", 0.9, reason="declared"),
    culprits=("net/swish", "net/other"),
    culprit_places=("layers.py:12 in Swish.call", ""),
)


def written(one: GradientReport, folder: Path) -> ElementTree.Element:
    """The suite that is written for a report."""
    write_junit(one, folder / "junit.xml")
    (suite,) = ElementTree.parse(folder / "junit.xml").getroot().findall("testsuite")
    return suite


def case(suite: ElementTree.Element, layer: str, name: str) -> ElementTree.Element:
    """The one test of this name."""
    cases = suite.findall("testcase")
    (found,) = [c for c in cases if (c.get("classname"), c.get("name")) == (layer, name)]
    return found


def test_counts(tmp_path: Path) -> None:
    """Failures and what is skipped are counted, and nothing else is one."""
    suite = written(FAILING, tmp_path)
    assert {k: suite.get(k) for k in ("tests", "failures", "errors", "skipped")} == {
        "tests": "7",
        "failures": "3",
        "errors": "0",
        "skipped": "2",
    }
    assert suite.get("name") == "gradient check of mnist_cnn"
    assert suite.get("time") == "1.3"
    assert [element.tag for element in suite][:2] == ["properties", "testcase"]
    clean = written(PASSING, tmp_path)
    assert (clean.get("tests"), clean.get("failures"), clean.get("skipped")) == ("3", "0", "0")


def test_a_failure_says_all(tmp_path: Path) -> None:
    """It has the row, the worst coordinate, and the culprits with their lines."""
    suite = written(FAILING, tmp_path)
    (failure,) = case(suite, "dense", "bias").findall("failure")
    assert failure.get("message") == "✗ fail, score 3.3e-1"
    text = failure.text or ""
    assert "score 3.3e-1, ‖analytic‖ 1.50, ‖numerical‖ 1.75, error bar 4e-11" in text
    assert "Wrong by a constant factor." in text
    assert "Worst at [3]: analytic 0.0123450, numerical 0.0246900 ± 2.0e-12." in text
    assert "culprit: net/swish (layers.py:12 in Swish.call)\nculprit: net/other" in text


def test_culprits_are_tests(tmp_path: Path) -> None:
    """A layer without variables can fail, too."""
    suite = written(FAILING, tmp_path)
    (failure,) = case(suite, "net/swish", "backward pass").findall("failure")
    said = "The backward pass of net/swish (layers.py:12 in Swish.call) is wrong"
    assert failure.get("message") == said


def test_what_is_no_failure(tmp_path: Path) -> None:
    """A suspect gradient passes, as in the exit code; what was not judged is skipped."""
    suite = written(FAILING, tmp_path)
    suspect = case(suite, "net/dense", "kernel")
    assert [child.tag for child in suspect] == ["system-out"]
    assert "! suspect" in (suspect.findtext("system-out") or "")
    for layer in ("net/late", "net/gate"):
        assert case(suite, layer, "kernel").find("skipped") is not None


@hypothesis.given(one=REPORTS)
@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
def test_any_report_is_xml(one: GradientReport, tmp_path: Path) -> None:
    """Whatever names and numbers are in a report, it can be parsed, and no failure is lost."""
    suite = written(one, tmp_path)
    expected = one.count(Verdict.FAIL) + len(one.culprits)
    assert len(suite.findall("testcase")) == len(one.variables) + len(one.culprits)
    assert len(suite.findall("testcase/failure")) == expected == int(suite.get("failures") or -1)
