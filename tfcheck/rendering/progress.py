"""Progress: what is going on, shown to whoever waits for it, and gone afterwards.

Where nobody looks, as in the log of a job, a line every half a minute tells that it goes on.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from tfcheck.progress import Progress, silent

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PATIENCE = 2.0
"""Seconds of waiting that need no explanation."""

LOG_EVERY = 30.0
"""Seconds between two lines in a log."""

_EVERY = 0.1
_BAR = 24


@contextmanager
def progress_line(
    first: str = "",
    *,
    title: str = "gradient check",
    verbose: int = 1,
    after: float | None = None,
) -> Iterator[Progress]:
    """Say what is going on: in one line that goes away where somebody looks, else in a log.

    Somebody looks at a terminal at the standard error, or at a notebook. Elsewhere (pipes, logs,
    builds with the environment variable `CI`), in terminals that cannot redraw a line and with
    `NO_COLOR`, a plain line is written to the standard error every 30 seconds, so nothing where
    the work is done before.

    Args:
        first: what is being done when the block begins. Defaults to nothing said.
        title: what all of it is. Defaults to `"gradient check"`.
        verbose: 0 shows nothing. Defaults to 1.
        after: seconds until the line shows where somebody looks. Defaults to `PATIENCE`.

    Yields:
        A function to call as the work goes on.
    """
    if not verbose:
        yield silent
        return
    built = bool(os.environ.get("CI"))
    terminal = None if built or not _can_redraw() else _terminal()
    notebook = not built and terminal is None and "IPython" in sys.modules
    line, over = _Line(title, first), threading.Event()
    wait = PATIENCE if after is None else after
    # Whoever works may not call for a long time, so somebody else has to draw.
    drawing = terminal is not None or notebook
    work, details = (_draw, (terminal, over, wait)) if drawing else (_log, (over,))
    artist = threading.Thread(
        target=work, args=(line, *details), name="tfcheck-progress", daemon=True
    )
    artist.start()
    try:
        yield line.tell
    finally:
        over.set()
        artist.join()
        if terminal is not None:
            with suppress(OSError):
                terminal.close()


def _can_redraw() -> bool:
    """Whether a terminal, if there is one, understands codes, and may be sent any."""
    from tfcheck.rendering.letters import wants_plain_text

    return not wants_plain_text() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


def _terminal() -> TextIO | None:
    """The terminal at the standard error, if it is one."""
    try:
        return _standard_error() if sys.stderr.isatty() else None
    except (AttributeError, ValueError):  # none, or closed
        return None


def _standard_error() -> TextIO | None:
    """A duplicate, which shows while what others write there is held back; None without a file."""
    try:
        encoding = sys.stderr.encoding or "utf-8"
        return os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding=encoding, errors="replace")
    except (AttributeError, OSError, ValueError):  # none, closed, or a stand-in without a file
        return None


@dataclass(frozen=True)
class _Stage:
    """What is being done, how much of how much; and when that was told.

    Attributes:
        since: when counting up to this total began.
        start: from where.
    """

    what: str
    done: int
    total: int
    told: float
    since: float
    start: int

    def left(self, now: float) -> float:
        """Seconds that are left if it goes on as before; `nan` where nothing tells."""
        if self.done <= self.start:
            return math.nan
        pace = (self.told - self.since) / (self.done - self.start)
        return max(0.0, pace * (self.total - self.done) - (now - self.told))


class _Line:
    """What the line says, told by one thread and drawn by another."""

    def __init__(self, title: str, first: str) -> None:
        self.title = title
        self.began = time.monotonic()
        self._stage = _Stage(first, 0, 0, self.began, self.began, 0)

    def tell(self, what: str, done: int, total: int) -> None:
        """Note what is being done from now on."""
        now, before = time.monotonic(), self._stage
        goes_on = total == before.total and done >= before.done
        since, start = (before.since, before.start) if goes_on else (now, done)
        self._stage = _Stage(what, done, total, now, since, start)

    def logged(self, encoding: str) -> str:
        """What is going on now, for a log in this encoding."""
        from tfcheck.rendering.letters import spelled
        from tfcheck.rendering.words import printable

        now, stage = time.monotonic(), self._stage
        counted = stage.total > 1
        left = stage.left(now) if counted else math.nan
        said = [
            f"{self.title or 'tfcheck'}, {_clock(now - self.began)}: {stage.what}",
            f"{stage.done} of {stage.total}" if counted else "",
            "" if math.isnan(left) else f"about {_clock(left)} left",
        ]
        return spelled(printable(", ".join(filter(None, said))), encoding)

    def drawn(self, console: Console) -> Table:
        """The line as it is now.

        Args:
            console: where it is drawn, which limits its width and its letters.
        """
        from rich.progress_bar import ProgressBar
        from rich.spinner import Spinner
        from rich.table import Table
        from rich.text import Text

        from tfcheck.rendering.letters import spelled
        from tfcheck.rendering.words import printable, shortened

        now, stage = time.monotonic(), self._stage
        counted = stage.total > 1  # one of one is no measure of how far it is
        left = stage.left(now) if counted else math.nan
        clock = _clock(now - self.began)
        said = [self.title, clock if math.isnan(left) else f"{clock}, {_clock(left)} left"]
        told = " ".join(filter(None, said))
        width, letters = console.width, console.encoding
        spinner = Spinner("dots" if letters.startswith("utf") else "line", style="cyan")
        spinner.start_time = self.began
        bar = ProgressBar(
            total=stage.total if counted else None,
            completed=stage.done,
            width=(wide := min(_BAR, width // 5)),
            complete_style="cyan",
            finished_style="cyan",
            pulse_style="cyan",
        )
        what = spelled(printable(stage.what), letters)
        what = shortened(what, max(width - wide - len(told) - 4, 1), spelled("…", letters))
        text = Text.assemble(told, (f" {what}", "dim"), no_wrap=True, overflow="crop")
        grid = Table.grid(padding=(0, 1, 0, 0), pad_edge=False)
        grid.add_row(spinner, bar, text)
        return grid


def _clock(seconds: float) -> str:
    """A time as in 0:07 or 1:02:07."""
    minutes, rest = divmod(int(seconds), 60)
    return (
        f"{minutes}:{rest:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
    )


def _draw(line: _Line, terminal: TextIO | None, over: threading.Event, wait: float) -> None:
    """Show the line after a while, until it is over."""
    if over.wait(wait):
        return
    from rich.console import Console

    console = Console(file=terminal)
    if terminal is None and not console.is_jupyter:  # IPython may be loaded elsewhere, too
        _log(line, over)
        return
    show = _in_notebook if console.is_jupyter else _on_terminal
    with suppress(OSError), show(line, console) as refresh:  # a terminal may go away
        refresh()
        while not over.wait(_EVERY):
            refresh()


def _log(line: _Line, over: threading.Event) -> None:
    """Write a line every half a minute, until it is over."""
    own = _standard_error()
    stream = own or sys.stderr
    while not over.wait(LOG_EVERY):
        with suppress(AttributeError, OSError, ValueError):  # nobody may be there to read it
            stream.write(f"{line.logged(stream.encoding or 'utf-8')}\n")
            stream.flush()
    if own is not None:
        with suppress(OSError):
            own.close()


@contextmanager
def _on_terminal(line: _Line, console: Console) -> Iterator[Callable[[], None]]:
    from rich.control import Control
    from rich.file_proxy import FileProxy
    from rich.live import Live
    from rich.segment import ControlType

    others = isinstance(sys.stdout, FileProxy) or isinstance(sys.stderr, FileProxy)
    if others or not console.is_interactive:  # what others draw live is not drawn over
        yield lambda: None
        return
    # Keras leaves the cursor at the end of its own progress bar, which it writes anew each time.
    console.control(Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2)))
    with Live(
        get_renderable=lambda: line.drawn(console),
        console=console,
        auto_refresh=False,
        transient=True,
        redirect_stdout=sys.stdout.isatty(),
    ) as live:
        yield live.refresh


@contextmanager
def _in_notebook(line: _Line, console: Console) -> Iterator[Callable[[], None]]:
    from IPython.display import display

    shown = display(line.drawn(console), display_id=True)
    yield lambda: shown.update(line.drawn(console))
    shown.update({"text/plain": ""}, raw=True)
