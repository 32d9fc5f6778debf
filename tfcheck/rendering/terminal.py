"""What a terminal can show: its letters, its colours, its width."""

from __future__ import annotations

import shutil
import sys
from typing import IO, Any

from rich.console import Console

from tfcheck.rendering.letters import wants_plain_text

NARROWEST, WIDEST = 40, 110
WIDTH_WITHOUT_TERMINAL = 100


class _Terminal(Console):
    """A console that leaves it to whoever prints what to do when the reader goes away."""

    def on_broken_pipe(self) -> None:
        """Let the `BrokenPipeError` through. Rich would end the process, with a code of its own."""
        raise  # noqa: PLE0704 - rich calls this while it handles the error


def terminal_console(file: IO[str] | None = None) -> Console:
    """A console on a stream, by default standard output, which keeps to `NO_COLOR`.

    Rich leaves out colours then, but not bold or dim letters: here nothing but text is written.
    """
    options: dict[str, Any] = {"color_system": None} if wants_plain_text() else {}
    return _Terminal(file=file, highlight=False, **options)


def encoding_of(console: Console) -> str:
    """The encoding whose letters a console can show.

    A legacy Windows console takes any letter, but most of its fonts lack the symbols.
    """
    return "ascii" if console.legacy_windows else console.encoding


def output_encoding() -> str:
    """The encoding of standard output; UTF-8 where it has none, as a string in memory has."""
    return (getattr(sys.stdout, "encoding", None) or "utf-8").lower()


def output_width() -> int:
    """The width of the terminal within 40 to 110 characters; 100 where there is none."""
    columns = shutil.get_terminal_size((WIDTH_WITHOUT_TERMINAL, 24)).columns
    return min(WIDEST, max(NARROWEST, columns))
