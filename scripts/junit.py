"""An audit's report as JUnit XML, which CI servers show as a list of tests."""

from __future__ import annotations

import math
from pathlib import Path

from junitparser import Failure, JUnitXml, Skipped, TestCase, TestSuite

from tfcheck.gradient_report import GradientReport
from tfcheck.judge.verdict import Verdict
from tfcheck.rendering import words
from tfcheck.rendering.row_text import row_text
from tfcheck.report.rows import VariableReport

OWN = "backward pass"
"""The test that a culprit has for itself: it may own no variables."""


def write_junit(report: GradientReport, file: Path) -> None:
    """Write a report as JUnit XML: a test for each variable, named by layer and variable.

    A wrong gradient is a failure, with its row and the culprit's line. One that could not be
    judged, or is meant to differ, is skipped. Each culprit is a failing test of its own.

    Args:
        report: the report.
        file: where to write it.
    """
    suite = TestSuite(words.printable(f"gradient check of {report.model}"))
    suite.add_property("verdict", str(report.verdict))
    suite.add_testcases([*_culprits(report), *(_variable(report, v) for v in report.variables)])
    suite.time = round(report.seconds, 3) if math.isfinite(report.seconds) else 0.0
    document = JUnitXml("tfcheck")
    document.add_testsuite(suite)
    document.time = suite.time
    document.write(str(file), pretty=True)


def _culprits(report: GradientReport) -> list[TestCase]:
    cases = []
    placed = words.placed_culprits(report)
    for path, told in zip(report.culprits, placed, strict=True):
        case = _case(path, OWN)
        said = f"The backward pass of {told} is wrong"
        case.result = [_failed(said, said)]
        cases.append(case)
    return cases


def _variable(report: GradientReport, variable: VariableReport) -> TestCase:
    case = _case(variable.layer, variable.name)
    text = row_text(report, variable)
    said = words.verdict_words(variable, report.settings.thresholds)
    match words.kind(variable):
        case Verdict.FAIL:
            score = f"score {words.scientific(variable.score)}"
            blamed = "".join(f"\nculprit: {told}" for told in words.placed_culprits(report))
            case.result = [_failed(f"{said}, {score}", f"{text}{blamed}")]
        case Verdict.INCONCLUSIVE | "declared":
            case.result = [Skipped(words.printable(said))]
            case.system_out = text
        case _:
            case.system_out = text
    return case


def _case(layer: str, name: str) -> TestCase:
    return TestCase(words.printable(name), classname=words.printable(layer))


def _failed(message: str, text: str) -> Failure:
    failure = Failure(words.printable(message), "wrong gradient")
    failure.text = words.printable(text)
    return failure
