"""The errors tfcheck raises, all under one root.

Every message states the rule, the received value and the remedy, in that order:
``{rule}. Received: {name}={value!r}. {What to do}.``
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class TfcheckError(Exception):
    """Root of every error that tfcheck raises on purpose."""


class ArgumentError(TfcheckError, ValueError):
    """An argument has a value that tfcheck cannot use."""


class ArgumentTypeError(TfcheckError, TypeError):
    """An argument has a type that tfcheck cannot use."""


class BackendError(TfcheckError, RuntimeError):
    """Keras runs on another backend than TensorFlow."""


class ModelError(TfcheckError, ValueError):
    """The model cannot be checked as it is: not built, not compiled, nothing to train."""


class BatchError(TfcheckError, ValueError):
    """The debug batch does not fit the model, or holds values no loss can be computed from."""


class TraceError(TfcheckError, RuntimeError):
    """The training step could not be turned into a graph."""


class NoTapeError(TraceError):
    """The training step differentiates nothing with a tape, so that there is nothing to check.

    Attributes:
        idle: whether it changes no trainable variable in another way, either.
    """

    def __init__(self, message: str, *, idle: bool = False) -> None:
        super().__init__(message)
        self.idle = idle


class ParityError(TfcheckError, RuntimeError):
    """The float64 graph does not compute the loss that is trained."""


class ReportError(TfcheckError, ValueError):
    """A saved report cannot be read."""


class ReproductionError(TfcheckError, ValueError):
    """No test of its own can be made of a culprit, or it cannot be written."""


class GradientCheckFailed(TfcheckError, AssertionError):
    """A gradient check ended in a failure and the caller asked for that to raise.

    Attributes:
        report: the `tfcheck.GradientReport` with the failure.
    """

    def __init__(self, message: str, report: object = None) -> None:
        super().__init__(message)
        self.report = report


_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_PLACES = re.compile(r"^(\{\{[^}]*\}\}\s*)+")
_HEADLINES = re.compile(
    r"^(Exception encountered when calling|Graph execution error|Detected at node|Arguments "
    r"received|File \"|<stack|Stack trace|Call arguments|The above exception)"
)


def telling_line(message: str) -> str:
    """The line of a long error message that says why, as a sentence.

    Keras and TensorFlow begin with a headline that says where, and say why below it.
    """
    lines = [_PLACES.sub("", line.strip()) for line in _ANSI.sub("", message).splitlines()]
    lines = list(filter(None, lines))
    telling = [line for line in lines if not _HEADLINES.match(line)]
    return next(iter(telling or lines), "no reason given").rstrip(".:") + "."


def first_line(error: BaseException) -> str:
    """The first line of an error's message, as a part of a sentence."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else "no message").rstrip(".")


def received(error: Exception) -> str:
    """What an error of tfcheck's received: its message without the rule and the remedy."""
    _, _, rest = str(error).partition("Received: ")
    return (rest.rpartition(". ")[0] or rest or str(error)).rstrip(".")


def rule(rule: str, name: str, value: object, remedy: str) -> str:
    """Say the rule, what was received and what to do, in tfcheck's one form."""
    return f"{rule}. Received: {name}={_shown(value)}. {remedy}."


def _shown(value: object) -> str:
    """A value as Python shows it, cut in the middle where it is too long to be read."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - such as that of integers with more than 4300 digits
        return f"a {type(value).__name__} that cannot be shown"
    half = _LONGEST // 2
    return text if len(text) <= _LONGEST else f"{text[:half]} ... {text[-half:]}"


_LONGEST = 300


def some(names: Sequence[str], shown: int = 4) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
