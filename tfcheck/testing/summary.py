"""The checks of a test session, one line each."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfcheck.gradient_report import GradientReport
from tfcheck.judge.reasons import shown as shown_as
from tfcheck.judge.verdict import Verdict
from tfcheck.rendering.facts import worst_variable
from tfcheck.rendering.letters import spelled
from tfcheck.rendering.terminal import output_encoding
from tfcheck.rendering.words import SYMBOLS, number, printable, scientific


@dataclass(frozen=True, slots=True)
class CheckLine:
    """One check.

    Attributes:
        subject: the layer or the model.
        verdict: the verdict.
        score: the worst score; `nan` where unknown.
        reason: why the worst gradient is not simply judged by its score; `""` where it is.
        seconds: how long it took.
        test: the test that it was made in.
    """

    subject: str
    verdict: str
    score: float
    reason: str
    seconds: float
    test: str

    @property
    def cells(self) -> tuple[str, ...]:
        """What the line says, column by column."""
        return (
            f"{SYMBOLS[self.verdict]} {self.verdict}",
            self.subject,
            shown_as(self.reason) if self.reason else scientific(self.score),
            f"{number(self.seconds, 2)} s",
            self.test,
        )


def noted(report: GradientReport) -> str:
    """A check as a line of strict JSON, which a test's properties can hold."""
    worst = worst_variable(report)
    score = math.nan if worst is None else worst.score
    return json.dumps(
        {
            "subject": printable(report.model),
            "verdict": str(report.verdict),
            "score": score if math.isfinite(score) else str(score),
            "reason": "" if worst is None else str(worst.reason),
            "seconds": round(report.seconds, 3),
        }
    )


def check_lines(noted: Iterable[tuple[str, str]]) -> list[CheckLine]:
    """The checks of a session, the worst last, and otherwise in the order they come in.

    Args:
        noted: the test and what `noted` made, of each.
    """
    lines = [CheckLine(test=test, **_read(text)) for test, text in noted]
    return sorted(lines, key=lambda line: Verdict(line.verdict).severity)


def _read(text: str) -> Mapping[str, Any]:
    content = json.loads(text)
    return {**content, "score": float(content["score"])}


def aligned(lines: Sequence[CheckLine]) -> list[str]:
    """The lines as text, in columns, in the letters that standard output has."""
    rows = [[spelled(cell, output_encoding()) for cell in line.cells] for line in lines]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = (2, 3)
    return [
        "  ".join(
            cell.rjust(width) if place in right else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
