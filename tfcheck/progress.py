"""Progress: what is going on, shown to whoever waits for it, and gone afterwards."""

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

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done and how much there is (0: unknown)."""

PATIENCE = 2.0
"""Seconds of waiting that need no explanation."""

_EVERY = 0.1
_BAR = 24


def silent(_what: str, _done: int, _total: int) -> None:
    """Progress that is shown to nobody."""


@contextmanager
def progress_line(
    first: str = "",
    *,
    title: str = "gradient check",
    verbose: int = 1,
    after: float | None = None,
) -> Iterator[Progress]:
    """One line that says what is going on, and goes away; only where somebody looks.

    That is a terminal at the standard error, or a notebook. In pipes, logs and builds (the
    environment variable `CI`) nothing is written.

    Args:
        first: what is being done when the block begins. Defaults to nothing said.
        title: what all of it is. Defaults to `"gradient check"`.
        verbose: 0 shows nothing. Defaults to 1.
        after: seconds until the line shows. Defaults to `PATIENCE`.

    Yields:
        A function to call as the work goes on.
    """
    shown = verbose and not os.environ.get("CI")
    terminal = _terminal() if shown else None
    if not shown or (terminal is None and "IPython" not in sys.modules):
        yield silent
        return
    line, over = _Line(title, first), threading.Event()
    wait = PATIENCE if after is None else after
    # Whoever works may not call for a long time, so somebody else has to draw.
    artist = threading.Thread(target=_draw, args=(line, terminal, over, wait), daemon=True)
    artist.start()
    try:
        yield line.tell
    finally:
        over.set()
        artist.join()
        if terminal is not None:
            with suppress(OSError):
                terminal.close()


def _terminal() -> TextIO | None:
    """The terminal at the standard error, if it is one.

    A duplicate, so that it shows while what others write there is held back.
    """
    try:
        if not sys.stderr.isatty():
            return None
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

    def drawn(self, width: int) -> Table:
        """The line as it is now.

        Args:
            width: how wide it may be, in characters.
        """
        from rich.progress_bar import ProgressBar
        from rich.spinner import Spinner
        from rich.table import Table
        from rich.text import Text

        now, stage = time.monotonic(), self._stage
        counted = stage.total > 1  # one of one is no measure of how far it is
        left = stage.left(now) if counted else math.nan
        clock = _clock(now - self.began)
        said = [self.title, clock if math.isnan(left) else f"{clock}, {_clock(left)} left"]
        told = " ".join(filter(None, said))
        spinner = Spinner("dots", style="cyan")
        spinner.start_time = self.began
        bar = ProgressBar(
            total=stage.total if counted else None,
            completed=stage.done,
            width=(wide := min(_BAR, width // 5)),
            complete_style="cyan",
            finished_style="cyan",
            pulse_style="cyan",
        )
        what = _shortened(stage.what, width - wide - len(told) - 4)
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


def _shortened(path: str, room: int) -> str:
    """The end of a path, which tells the most, where there is no room for all of it."""
    return path if len(path) <= room else f"…{path[len(path) + 1 - max(room, 1) :]}"


def _draw(line: _Line, terminal: TextIO | None, over: threading.Event, wait: float) -> None:
    """Show the line after a while, until it is over."""
    if over.wait(wait):
        return
    from rich.console import Console

    console = Console(file=terminal)
    if terminal is None and not console.is_jupyter:
        return
    show = _in_notebook if console.is_jupyter else _on_terminal
    with suppress(OSError), show(line, console) as refresh:  # a terminal may go away
        refresh()
        while not over.wait(_EVERY):
            refresh()


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
        get_renderable=lambda: line.drawn(console.width),
        console=console,
        auto_refresh=False,
        transient=True,
        redirect_stdout=sys.stdout.isatty(),
    ) as live:
        yield live.refresh


@contextmanager
def _in_notebook(line: _Line, console: Console) -> Iterator[Callable[[], None]]:
    from IPython.display import display

    shown = display(line.drawn(console.width), display_id=True)
    yield lambda: shown.update(line.drawn(console.width))
    shown.update({"text/plain": ""}, raw=True)
