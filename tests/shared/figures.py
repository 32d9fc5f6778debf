"""Figures that tests come to together, told in a line at the end of a run.

They travel with the tests' reports, so that they are whole where several processes share a run.
"""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import pytest

_PROPERTY = "figures"


def count(request: pytest.FixtureRequest, line: str, **figures: int) -> None:
    """Add to the figures of a line.

    Args:
        request: the request of the test.
        line: the line, with the figures' names in braces.
        figures: what this test adds to each.
    """
    request.node.user_properties.append((_PROPERTY, (line, figures)))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Write the lines: a hook of pytest's."""
    sums: dict[str, Counter[str]] = {}
    for report in itertools.chain(*terminalreporter.stats.values()):
        if getattr(report, "when", None) == "call":
            for name, value in report.user_properties:
                if name == _PROPERTY:
                    line, figures = value
                    sums.setdefault(line, Counter()).update(figures)
    for line, counted in sums.items():
        terminalreporter.write_line(line.format_map(counted))
