"""An audit's findings as workflow commands of GitHub Actions, shown beside the code.

Source: "Workflow commands for GitHub Actions", in GitHub's documentation.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tfcheck.gradient_report import GradientReport
from tfcheck.judge.verdict import Verdict
from tfcheck.rendering import words
from tfcheck.rendering.row_text import row_text
from tfcheck.rendering.rows import needs_attention
from tfcheck.report.places import Place, place_of, place_within
from tfcheck.report.rows import VariableReport

_MOST_ROWS = 5


@dataclass(frozen=True, slots=True)
class Annotation:
    """One message beside the code.

    Attributes:
        level: `"error"`, `"warning"` or `"notice"`.
        title: what it is about.
        message: what it says.
        place: the line; None where none is known.
    """

    level: str
    title: str
    message: str
    place: Place | None = None

    def __str__(self) -> str:
        file = None if self.place is None else _in_repository(self.place.file)
        properties = {"title": self.title}
        if self.place is not None and file is not None:
            properties = {"file": file, "line": str(self.place.line), **properties}
        given = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
        return f"::{self.level} {given}::{_data(self.message)}"


def annotations_of(report: GradientReport) -> tuple[Annotation, ...]:
    """What to say of a report beside the code, the most serious first.

    Each culprit is one error at its line. Rows that are wrong for a reason of their own, or
    without any culprit, are one annotation a layer, at the line that their note names.
    """
    found = [*_culprits(report), *_layers(report)]
    if left := report.count(Verdict.INCONCLUSIVE):
        counted = words.plural(left, "variable")
        found.append(
            Annotation("warning", _title(report), f"The gradient of {counted} was not judged.")
        )
    return tuple(sorted(found, key=lambda annotation: annotation.level != "error"))


def _culprits(report: GradientReport) -> Iterator[Annotation]:
    level = _LEVELS.get(report.verdict, "warning")
    rows = _rows(report, [v for v in report.worst_first if _is_wrong(v) and not v.reason])
    placed = words.placed_culprits(report)
    for place, told in zip(report.culprit_places or [""] * len(placed), placed, strict=False):
        message = f"The backward pass of {told} does not match its forward pass.\n{rows}"
        yield Annotation(level, _title(report), message.rstrip(), place_of(place))


def _layers(report: GradientReport) -> Iterator[Annotation]:
    for layer in report.layers:
        own = [v for v in layer.variables if v.reason or not report.culprits]
        wrong = [v for v in own if _is_wrong(v)]
        if wrong:
            level = "error" if any(v.verdict is Verdict.FAIL for v in wrong) else "warning"
            place = next(filter(None, map(place_within, wrong)), None)
            yield Annotation(level, _title(report), _rows(report, wrong), place)


_LEVELS = {Verdict.FAIL: "error", Verdict.SUSPECT: "warning"}


def _is_wrong(variable: VariableReport) -> bool:
    return needs_attention(variable) and variable.verdict in _LEVELS


def _rows(report: GradientReport, variables: Sequence[VariableReport]) -> str:
    shown = [row_text(report, variable) for variable in variables[:_MOST_ROWS]]
    if len(variables) > _MOST_ROWS:
        shown.append(f"… and {words.plural(len(variables) - _MOST_ROWS, 'more variable')}.")
    return "\n\n".join(shown)


def _title(report: GradientReport) -> str:
    return f"gradient check of {report.model}"


def _in_repository(file: str) -> str | None:
    """A file as GitHub knows it, from the root of the repository; None for one not there."""
    path = Path(file).resolve()
    if not path.is_file():
        return None
    root = Path(os.environ.get("GITHUB_WORKSPACE") or Path.cwd()).resolve()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def _data(text: str) -> str:
    return words.printable(text.replace("\r", "")).replace("%", "%25").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
