"""The pytest plugin: a fixture, a marker, and a section of the summary for gradient checks.

pytest loads it in every project that has tfcheck installed, so it imports next to nothing: what a
check needs is loaded by the first check.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pytest

from tfcheck.errors import ArgumentError, GradientCheckFailed, rule
from tfcheck.testing.assertion import assert_gradients
from tfcheck.testing.options import require_shared
from tfcheck.testing.running import RunningTest, running

if TYPE_CHECKING:
    import keras

    from tfcheck.gradient_report import GradientReport

PROPERTY = "gradients"
"""Under this name a test's properties hold a line of JSON for each of its checks. pytest-xdist
brings them from its workers, and `--junit-xml` writes them."""

_MARKER = "gradients(**options): options of a test's gradient checks, such as directions=8"

_COLOURS = {"pass": "green", "suspect": "yellow", "fail": "red"}


class CheckGradients:
    """What the fixture `check_gradients` gives: called as `tfcheck.testing.assert_gradients` is.

    Attributes:
        reports: the reports of this test so far, oldest first.
    """

    def __init__(self) -> None:
        self.reports: list[GradientReport] = []

    def __call__(self, model_or_layer: keras.Layer, *inputs: Any, **options: Any) -> GradientReport:
        """Check the gradients of a model or a layer, and fail the test unless they pass.

        Args:
            model_or_layer: what to check.
            inputs: the batch of a model (`x`, `y`, `sample_weight`), or the inputs of a layer.
            options: those of the check, and `allow`.

        Returns:
            The report.
        """
        __tracebackhide__ = True
        try:
            report = assert_gradients(model_or_layer, *inputs, **options)
        except GradientCheckFailed as error:
            self.reports.append(error.report)  # type: ignore[arg-type]
            raise
        self.reports.append(report)
        return report


@pytest.fixture
def check_gradients() -> CheckGradients:
    """Check the gradients of a model or a layer, and fail the test unless they pass."""
    return CheckGradients()


def pytest_configure(config: pytest.Config) -> None:
    """Tell pytest of the marker."""
    config.addinivalue_line("markers", _MARKER)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, None, None]:
    """Let the checks of a test have the options of its markers, and note them with it."""

    def note(report: GradientReport) -> None:
        from tfcheck.testing.summary import noted

        item.user_properties.append((PROPERTY, noted(report)))

    with running(RunningTest(item.config.rootpath, lambda: _marked(item), note)):
        yield


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Write one line for each check, the worst last."""
    found = list(_noted(terminalreporter.stats))
    if not found or terminalreporter.verbosity < -1:
        return
    from tfcheck.testing.summary import aligned, check_lines

    lines = check_lines(found)
    terminalreporter.write_sep("=", "gradient checks")
    for line, text in zip(lines, aligned(lines), strict=True):
        terminalreporter.write_line(text, **{_COLOURS.get(line.verdict, "cyan"): True})


def _marked(item: pytest.Item) -> Mapping[str, Any]:
    """The options of all markers of a test, of which the nearest wins."""
    options: dict[str, Any] = {}
    for mark in reversed(list(item.iter_markers("gradients"))):
        if mark.args:
            remedy = "Write @pytest.mark.gradients(directions=8)"
            raise ArgumentError(
                rule("The marker gradients takes options by name", "arguments", mark.args, remedy)
            )
        options.update(require_shared(mark.kwargs, "The marker gradients"))
    return options


def _noted(stats: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What the tests noted, each with the test: the last report of a test has all of it."""
    for reports in stats.values():
        for report in reports:
            if getattr(report, "when", None) == "teardown":
                for name, value in report.user_properties:
                    if name == PROPERTY:
                        yield report.nodeid, value
