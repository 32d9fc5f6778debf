"""Where in the user's own code an operation or a call is made."""

from __future__ import annotations

import inspect
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import Any

import tensorflow as tf

_LIBRARIES = (
    str(Path(__file__).parent),
    *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")),
    "<",
)

_STEPS = str(Path(__file__).with_name("steps.py"))


def place_of(operation: tf.Operation) -> str | None:
    """The user's line that made an operation of a graph; None where none of its stack is theirs."""
    return _innermost((frame.filename, frame.lineno) for frame in reversed(operation.traceback))


def place_here() -> str | None:
    """The user's line that is being executed."""
    return _innermost(_stack(inspect.currentframe()))


def _stack(frame: FrameType | None) -> Iterable[tuple[str, int]]:
    while frame is not None:
        yield frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back


def _innermost(frames: Iterable[tuple[str, Any]]) -> str | None:
    for filename, line in frames:
        if filename == _STEPS:  # outside of it is whoever asks for the check
            return None
        if not filename.startswith(_LIBRARIES):
            return f"{Path(filename).name}:{line}"
    return None
