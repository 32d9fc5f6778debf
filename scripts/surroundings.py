"""What the commands run in: quiet libraries, a terminal or none, and what they were called."""

from __future__ import annotations

import io
import logging
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tfcheck.errors import BackendError

if TYPE_CHECKING:
    from rich.console import Console

WIDTH_WITHOUT_TERMINAL = 100


def require_tensorflow_backend() -> None:
    """Raise a `BackendError` if the user has chosen another backend for Keras."""
    backend = os.environ.get("KERAS_BACKEND") or "tensorflow"
    if backend != "tensorflow":
        raise BackendError(
            "tfcheck checks Keras models on the TensorFlow backend. Received: "
            f"KERAS_BACKEND={backend!r}. Set the environment variable KERAS_BACKEND=tensorflow."
        )


def import_quietly() -> None:
    """Import TensorFlow and Keras without what they print, and keep them and MLflow quiet after.

    What the user has set of their environment variables stays.

    Raises:
        BackendError: if the user has chosen another backend for Keras.
    """
    require_tensorflow_backend()
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Making a database takes MLflow some 30 lines.
    for name in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # What it tries again and again is told once, by what comes of it.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    if "tensorflow" not in sys.modules:
        with native_noise_held_back():
            import keras  # noqa: F401 - loads TensorFlow


@contextmanager
def native_noise_held_back() -> Iterator[None]:
    """Hold back what is written to the process's standard error, and show it if the block fails.

    TensorFlow's first messages come from C++ before it has read any setting.
    """
    try:
        kept = os.dup(2)
    except OSError:  # a process without standard error
        yield
        return
    with tempfile.TemporaryFile() as noise:
        os.dup2(noise.fileno(), 2)
        try:
            yield
        except BaseException:
            noise.seek(0)
            os.write(kept, noise.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def standard_output() -> Console:
    """A console on standard output: as wide as the terminal, or 100 where there is none."""
    from tfcheck.rendering.terminal import terminal_console

    console = terminal_console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = WIDTH_WITHOUT_TERMINAL
    return console


def encode_what_can_be() -> None:
    """Let standard output and error show as an escape what their encoding does not have.

    Names of layers and files may hold any letter, and a letter must not end a command.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def output_given_up() -> None:
    """Write no more to standard output, whose reader is gone or whose disk is full.

    What is left in its buffer would otherwise fail once more when Python ends, with an exit code
    of its own.
    """
    with suppress(AttributeError, OSError, ValueError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)


def command_name() -> str:
    """What to type to run tfcheck again, as it was run this time."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        on_path = shutil.which("python")
        same = on_path is not None and Path(on_path).absolute() == Path(sys.executable).absolute()
        return f"{'python' if same else shlex.quote(sys.executable)} -m tfcheck"
    if called.stem != "tfcheck":  # called from Python
        return "tfcheck"
    on_path = shutil.which("tfcheck")
    if on_path is not None and Path(on_path).absolute() == called.absolute():
        return "tfcheck"
    return shlex.quote(nearby(called))


def nearby(path: Path) -> str:
    """A path as short as it can be typed here: relative where it lies below this folder."""
    absolute = path.expanduser().absolute()
    here = Path.cwd()
    return str(absolute.relative_to(here) if absolute.is_relative_to(here) else absolute)
