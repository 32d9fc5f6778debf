"""What the callback says while a model trains: warnings that point at the user's own line."""

from __future__ import annotations

import inspect
import warnings

from tfcheck.gradient_report import GradientReport
from tfcheck.judge.reasons import shown as shown_as
from tfcheck.judge.verdict import Verdict
from tfcheck.rendering.words import moment, placed_culprits, scientific
from tfcheck.report.rows import VariableReport

_NOT_THE_USERS = ("keras", "tensorflow", "tfcheck")
_NAMED = 3


class GradientCheckWarning(UserWarning):
    """A gradient check during training found something, or could not be carried out."""


def warn(message: str) -> None:
    """Warn at the line of the user's that called `fit`, every time."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_back is not None:
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package not in _NOT_THE_USERS:
            break
        frame = frame.f_back
    file, line = ("fit", 0) if frame is None else (frame.f_code.co_filename, frame.f_lineno)
    # `warnings.warn` would show a second warning of the same words at this line no more.
    warnings.warn_explicit(message, GradientCheckWarning, file, line, module="tfcheck")


def finding(report: GradientReport) -> str:
    """What a report with a failing or suspect verdict found, in a few sentences."""
    blamed = [variable for variable in report.worst_first if variable.verdict is report.verdict]
    paths = [f"{variable.path} ({_how(variable)})" for variable in blamed[:_NAMED]]
    named = f" for {', '.join(paths)}" if paths else ""
    more = f" and {len(blamed) - _NAMED} more" if len(blamed) > _NAMED else ""
    is_what = "wrong" if report.verdict is Verdict.FAIL else "suspect"
    culprits = f" Culprit: {', '.join(placed_culprits(report))}." if report.culprits else ""
    note = next((f" {variable.note}" for variable in blamed if variable.note), "")
    return (
        f"Gradient check at {moment(report)}: the gradient is {is_what}{named}{more}."
        f"{culprits}{note} print(callback.reports[-1]) shows all."
    )


def _how(variable: VariableReport) -> str:
    """The reason where there is one: then the score is not what is wrong."""
    if variable.reason:
        return shown_as(variable.reason)
    return f"score {scientific(variable.score)}"
