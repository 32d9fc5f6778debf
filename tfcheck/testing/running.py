"""The test that is running, as far as a check needs to know of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfcheck.gradient_report import GradientReport


def _not_noted(_report: GradientReport) -> None:
    """A test that is not known wants to hear of nothing."""


@dataclass(frozen=True, slots=True)
class RunningTest:
    """What a test says of its checks, and wants to hear of them.

    Attributes:
        folder: where to begin looking for a `pyproject.toml`.
        options: the options that the test itself gives, asked for at every check.
        note: is told every report.
    """

    folder: Path
    options: Callable[[], Mapping[str, Any]] = dict
    note: Callable[[GradientReport], None] = _not_noted


_TEST: ContextVar[RunningTest | None] = ContextVar("tfcheck_test", default=None)


def running_test() -> RunningTest:
    """The test that is running; one that says nothing where none is known."""
    return _TEST.get() or RunningTest(Path.cwd())


@contextmanager
def running(test: RunningTest | None) -> Iterator[None]:
    """Have the checks within this block be those of a test; None for one that is not known."""
    token = _TEST.set(test)
    try:
        yield
    finally:
        _TEST.reset(token)
