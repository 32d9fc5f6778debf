"""Where in the user's own code something of a step is made: the file, the line, the function.

An operation of a traced graph knows the stack that made it. Of that stack the innermost frame that
is the user's tells what to look at; where all of it is library code, there is none, and the layer
that made the operation has to be named instead.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import sysconfig
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tfcheck.internals import call_stack

_OWN = Path(__file__).resolve().parents[1]
_MODELS = _OWN / "scripts"
"""What comes with tfcheck and is checked like anyone's."""

_STEPS, _TRACING, _LISTENING = (
    str(Path(__file__).with_name(f"{name}.py")) for name in ("steps", "tracing", "listening")
)

_FRAMEWORKS = tuple(Path(library.__file__).resolve().parent for library in (keras, tf))
_PYTHON = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib"))
_PACKAGES = frozenset({"site-packages", "dist-packages"})
_NO_FILES = ("<frozen", "<__array", "__autograph_generated_file")


@dataclass(frozen=True, slots=True)
class Place:
    """A line of code.

    Attributes:
        file: the file, relative to the working directory where it is below it, else its name.
        line: the line's number.
        function: the function that it is in; `""` where that has no name.
    """

    file: str
    line: int
    function: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}".removesuffix(" in ")

    @property
    def quoted(self) -> str:
        """The same as part of a sentence."""
        return f"{self.file}:{self.line} in `{self.function}`".removesuffix(" in ``")


def place_of(operation: tf.Operation, *, in_its_layer: bool = False) -> Place | None:
    """The user's line that made an operation of a graph.

    Args:
        operation: the operation.
        in_its_layer: whether only code that its innermost layer or loss runs will do. Defaults to
            False.

    Returns:
        The line; None where all that made it is code of TensorFlow, Keras, Python or tfcheck.
    """
    return _innermost(operation.traceback, inside_calls=in_its_layer)


def described(operation: tf.Operation, unit: str = "") -> str:
    """An operation as part of a sentence: its type, and its line or else its layer.

    Args:
        operation: the operation.
        unit: the path of the layer that made it. Defaults to `""`, for none that is known.
    """
    place = place_of(operation)
    where = f" at {place.quoted}" if place else f" in {unit}" if unit else ""
    return f"`{operation.type}`{where}"


def function_called(operation: tf.Operation) -> str:
    """The function of a library that the user's line calls to make an operation; `""` for none."""
    called = ""
    for frame in reversed(list(operation.traceback)):
        if _begins_the_step(frame):
            break
        if _origin(frame.filename) == "user":
            return called
        if frame.name not in _WRAPPERS:
            called = frame.name
    return ""


_WRAPPERS = ("error_handler", "op_dispatch_handler", "wrapper")
"""Functions that TensorFlow and Keras put around theirs."""


def place_here() -> Place | None:
    """The user's line that is being executed, as for `place_of`."""
    return _innermost(call_stack())


def place_of_function(function: Callable[..., Any]) -> Place | None:
    """Where a function of the user's is defined; None where it is none in Python or a library's."""
    code = getattr(inspect.unwrap(getattr(function, "__func__", function)), "__code__", None)
    if code is None or _origin(code.co_filename) != "user":
        return None
    name = code.co_qualname.rpartition("<locals>.")[2]
    return _place(code.co_filename, code.co_firstlineno, name)


def place_of_custom_gradient(operation: tf.Operation) -> Place | None:
    """Where the function with a gradient of its own is, whose outputs an operation hands on.

    Such a function has returned when the operation is made, but what it gives was made in it.
    """
    for tensor in operation.inputs:
        frames = list(tensor.op.traceback)
        for caller, frame in reversed(list(itertools.pairwise(frames))):
            if Path(caller.filename).name == "custom_gradient.py":
                if _origin(frame.filename) == "user":
                    return _place(frame.filename, frame.lineno, frame.name)
                break
    return None


def _innermost(frames: Iterable[Any], *, inside_calls: bool = False) -> Place | None:
    """The innermost frame of the user's; else of some library built upon TensorFlow or Keras."""
    of_a_library = None
    for frame in reversed(list(frames)):
        if _begins_the_step(frame) or (inside_calls and _calls_a_layer(frame)):
            break
        origin = _origin(frame.filename)
        if origin == "user":
            return _place(frame.filename, frame.lineno, frame.name)
        if origin == "library" and of_a_library is None:
            of_a_library = _place(frame.filename, frame.lineno, frame.name)
    return of_a_library


def _begins_the_step(frame: Any) -> bool:
    """Whether what is outside of a frame is whoever asked for the check, not the step."""
    return frame.filename == _STEPS or (frame.filename, frame.name) == (_TRACING, "_trace")


def _calls_a_layer(frame: Any) -> bool:
    return (frame.filename, frame.name) == (_LISTENING, "call")


@functools.lru_cache(maxsize=1024)
def _origin(filename: str) -> str:
    """Whose a file is: the `"user"`'s, a `"library"`'s, or a `"framework"`'s."""
    if any(mark in filename for mark in _NO_FILES):
        return "framework"
    path = Path(filename).resolve()
    if _below(path, (_OWN, *_FRAMEWORKS)) and not path.is_relative_to(_MODELS):
        return "framework"
    if not _PACKAGES.isdisjoint(path.parts):
        return "library"
    return "framework" if _below(path, _PYTHON) else "user"


def _below(path: Path, folders: Iterable[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


def _place(filename: str, line: int, function: str) -> Place:
    return Place(_shown(filename), line, "" if function.startswith("<") else function)


def _shown(filename: str) -> str:
    """A file as a reader knows it."""
    if filename.startswith("<"):
        return filename
    path = Path(filename).resolve()
    if path.parent.name.startswith("ipykernel_"):
        return "a cell of the notebook"
    here = Path.cwd().resolve()
    return path.relative_to(here).as_posix() if path.is_relative_to(here) else path.name
