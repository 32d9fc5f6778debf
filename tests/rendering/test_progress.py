"""Progress: who sees it, what it says, and that nothing of it remains."""

# mypy: allow-subclassing-any

from __future__ import annotations

import builtins
import io
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import keras
import numpy as np
import pytest

import tfcheck.rendering.progress
from tfcheck import check_gradients, check_layer
from tfcheck.callbacks import GradientCheck
from tfcheck.errors import ArgumentError
from tfcheck.rendering.progress import progress_line

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo terminal")

X = np.ones((8, 3), "float32")
Y = np.ones((8, 1), "float32")
WIDTH = 80


class Screen:
    """A pseudo terminal: what is written to it, but for colours, and what is seen in the end."""

    def __init__(self) -> None:
        import pty

        self._ours, theirs = pty.openpty()
        self.file = os.fdopen(theirs, "w", encoding="utf-8")
        self.written = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        raw = b""
        while True:
            try:
                raw += os.read(self._ours, 4096)
            except OSError:  # the other end is closed
                return
            self.written = re.sub(r"\x1b\[[\d;]*m", "", raw.decode(errors="ignore"))

    def until(self, text: str) -> None:
        """Wait until this was written; a test that waits in vain fails."""
        deadline = time.monotonic() + 10
        while text not in self.written:
            assert time.monotonic() < deadline, f"{text!r} not in …{self.written[-400:]!r}"
            time.sleep(0.005)

    def close(self) -> str:
        """All that was written."""
        if not self.file.closed:
            self.file.close()
            self._reader.join(20)
            os.close(self._ours)
        return self.written

    def left(self) -> list[str]:
        """The lines that are to be seen in the end, without the empty ones."""
        lines, row, column = [""], 0, 0
        for part in re.findall(r"\x1b\[[?\d;]*[A-Za-z]|[^\x1b]", self.close()):
            if part == "\r":
                column = 0
            elif part == "\b":
                column -= 1
            elif part == "\n":
                row += 1
                lines += [""] * (row + 1 - len(lines))
            elif part == "\x1b[2K":
                lines[row] = ""
            elif part == "\x1b[1A":
                row -= 1
            elif len(part) == 1:
                line = lines[row].ljust(column)
                lines[row], column = line[:column] + part + line[column + 1 :], column + 1
                assert column <= WIDTH, f"wider than the terminal: {lines[row]!r}"
        return [line.rstrip() for line in lines if line.strip()]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Screen]]:
    """Opens a terminal at the standard error, whose user has no patience at all.

    A function to be called in the test, as pytest sets the standard error when a test begins.
    """
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(tfcheck.rendering.progress, "PATIENCE", 0.0)
    made: list[Screen] = []

    def opened() -> Screen:
        made.append(Screen())
        monkeypatch.setattr(sys, "stderr", made[-1].file)
        return made[-1]

    yield opened
    for screen in made:
        screen.close()


def small_model() -> keras.Model:
    """A compiled model."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, name="only")], name="net")
    model.compile(loss="mse")
    return model


def loss_after(wait: Callable[[], None]) -> Callable[..., Any]:
    """A loss that takes its time: until `wait` returns."""

    def loss(model: Any, x: Any, y: Any, _weight: Any) -> Any:
        wait()
        return keras.ops.mean((model(x) - y) ** 2)

    return loss


class Waiting(keras.layers.Layer):
    """A layer that takes its time: until `wait` returns."""

    wait: Callable[[], None] = staticmethod(lambda: None)

    def call(self, x: Any) -> Any:
        self.wait()
        return x * x


# -- in a check ----------------------------------------------------------------------------------


def test_a_long_check_shows_what_it_does(terminal: Callable[[], Screen]) -> None:
    """`check_gradients` says in a terminal what it is at, and leaves nothing of it there."""
    screen = terminal()
    loss = loss_after(lambda: screen.until("gradient check 0:00 tracing"))
    report = check_gradients(small_model(), X, Y, loss_fn=loss, directions=1)
    assert report.verdict == "pass"
    assert screen.left() == []
    assert "verbose" not in report.to_dict()["settings"]


def test_a_long_check_of_a_layer_shows_what_it_does(terminal: Callable[[], Screen]) -> None:
    """So does `check_layer`."""
    screen = terminal()
    layer = Waiting()
    layer(X)
    layer.wait = lambda: screen.until("gradient check 0:00 tracing")
    assert check_layer(layer, X, directions=1).verdict == "pass"
    assert screen.left() == []


def test_training_keeps_its_own_bar(
    terminal: Callable[[], Screen], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The callback says which check it is at, and the bar of `fit` looks as it does without."""
    screen = terminal()
    monkeypatch.setattr(sys, "stdout", screen.file)
    moments = iter(["start", "step 2", "epoch 1"])
    callback = GradientCheck(
        X, Y, tracking=None, directions=1, steps=2, epochs=1, loss_fn=lambda *_: None
    )
    check = callback_check(lambda: screen.until(f"gradient check at {next(moments)}"))
    monkeypatch.setattr(tfcheck.checker.GradientChecker, "check", check)
    small_model().fit(X, Y, batch_size=2, epochs=2, verbose=1, callbacks=[callback])
    assert [report.checkpoint for report in callback.reports] == ["start", "step 2", "epoch 1"]
    seen = screen.left()
    assert [line[:3] for line in seen] == ["Epo", "4/4", "Epo", "4/4"], seen
    assert not any("gradient check" in line for line in seen)


def callback_check(wait: Callable[[], None]) -> Callable[..., Any]:
    """Stands in for a check that takes its time: until `wait` returns."""
    from tfcheck.gradient_report import GradientReport
    from tfcheck.judge.verdict import Verdict
    from tfcheck.report.rows import ObjectiveSummary

    def check(_self: Any, _batch: Any, *, step: int, checkpoint: str, progress: Any) -> Any:
        progress("tracing", 0, 0)
        wait()
        summary = ObjectiveSummary("train_step", "train")
        return GradientReport(
            Verdict.PASS, 0.0, (), (), (), summary, step=step, checkpoint=checkpoint
        )

    return check


def test_a_short_check_shows_nothing(
    terminal: Callable[[], Screen], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing flickers where a check is done before anybody wonders."""
    screen = terminal()
    monkeypatch.setattr(tfcheck.rendering.progress, "PATIENCE", 60.0)
    began = time.monotonic()
    check_gradients(small_model(), X, Y, directions=1)
    assert screen.close() == ""
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(("ours", "of_fit"), [(0, 1), (1, 0), (0, 0)])
def test_silent_training(terminal: Callable[[], Screen], ours: int, of_fit: int) -> None:
    """`verbose=0` of the callback or of `fit` shows no progress of checks."""
    screen = terminal()
    loss = loss_after(lambda: time.sleep(0.05))
    callback = GradientCheck(X, Y, tracking=None, directions=1, loss_fn=loss, verbose=ours)
    small_model().fit(X, Y, verbose=of_fit, callbacks=[callback])
    assert callback.reports[0].verdict == "pass"
    assert screen.close() == ""


def test_silent_checks(terminal: Callable[[], Screen]) -> None:
    """`verbose=0` shows no progress of `check_gradients` and `check_layer`."""
    screen = terminal()
    loss = loss_after(lambda: time.sleep(0.05))
    check_gradients(small_model(), X, Y, loss_fn=loss, directions=1, verbose=0)
    check_layer(keras.layers.Dense(1), X, directions=1, verbose=0)
    assert screen.close() == ""


@pytest.mark.parametrize("verbose", [2, -1, 0.5, "auto", None])
def test_other_verbosities(verbose: Any) -> None:
    """What is neither 0 nor 1 is refused before any work."""
    said = rf"^verbose must be 0 or 1\. Received: verbose={verbose!r}\. Choose 0 "
    checks: list[Callable[..., Any]] = [check_gradients, check_layer, GradientCheck]
    for check in checks:
        with pytest.raises(ArgumentError, match=said):
            check(None, X, verbose=verbose)


# -- the line ------------------------------------------------------------------------------------


def test_it_needs_no_news_to_show(terminal: Callable[[], Screen]) -> None:
    """What lasts is shown though nothing is told meanwhile, and goes on moving."""
    screen = terminal()
    with progress_line("thinking", after=0):
        screen.until("thinking")
        first = screen.written.count("thinking")
        while screen.written.count("thinking") < first + 2:
            time.sleep(0.01)
    assert screen.left() == []


def test_time_that_is_left(terminal: Callable[[], Screen]) -> None:
    """The time that is left is said once something is done of what is known to be all."""
    screen = terminal()
    with progress_line("starting", after=0) as progress:
        screen.until("starting")
        progress("one", 0, 4)
        screen.until("one")
        progress("group", 0, 1)
        screen.until("group")
        assert "left" not in screen.written
        progress("two", 0, 4)
        progress("three", 1, 4)
        screen.until("left three")


@pytest.mark.parametrize("width", [80, 60, 30, 5])
def test_long_paths(
    terminal: Callable[[], Screen], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    """A path that is too long ends as it ends; no line is wider than the terminal."""
    screen = terminal()
    monkeypatch.setenv("COLUMNS", str(width))
    with progress_line("x/" * 60 + "[k]", after=0):
        screen.until("\x1b[2K" if width < 60 else "/[k]")
        time.sleep(0.15)
    screen.left()
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", screen.close()))
    assert max(map(len, lines)) <= width


def test_prints_stay(terminal: Callable[[], Screen], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is printed meanwhile stays, whole, above the line."""
    screen = terminal()
    monkeypatch.setattr(sys, "stdout", screen.file)
    with progress_line("thinking", after=0):
        screen.until("thinking")
        sys.stdout.write("one line\n")
        screen.until("one line")
        sys.stderr.write("begun")
    assert sys.stdout is screen.file
    assert sys.stderr is screen.file
    assert screen.left() == ["one line", "begun"]


def test_it_shows_while_noise_is_held_back(terminal: Callable[[], Screen]) -> None:
    """What the process writes to its standard error may go elsewhere in the meantime."""
    screen = terminal()
    with progress_line("loading", after=0) as progress:
        with open(os.devnull, "w", encoding="utf-8") as nothing:  # noqa: PTH123 - not a Path
            os.dup2(nothing.fileno(), screen.file.fileno())
        progress("still there", 0, 0)
        screen.until("still there")


def test_errors_leave_the_terminal_clean(terminal: Callable[[], Screen]) -> None:
    """A block that raises raises, and the cursor is back."""
    screen = terminal()

    def interrupted() -> None:
        with progress_line("thinking", after=0):
            screen.until("thinking")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert screen.left() == []
    assert screen.written.rindex("\x1b[?25h") > screen.written.rindex("\x1b[?25l")


def test_another_live_display(terminal: Callable[[], Screen]) -> None:
    """Where somebody else draws, in a loop over checks, nothing is drawn over it."""
    screen = terminal()
    from rich.console import Console
    from rich.live import Live

    with (
        Live("theirs", console=Console(stderr=True), transient=True),
        progress_line("ours", after=0),
        progress_line("again", after=0),
    ):
        screen.until("theirs")
        time.sleep(0.1)
    assert "ours" not in screen.close()
    assert "again" not in screen.written


@pytest.mark.parametrize(
    ("name", "value"), [("CI", "true"), ("TERM", "dumb"), ("TERM", "unknown"), ("NO_COLOR", "1")]
)
def test_nobody_looks(
    terminal: Callable[[], Screen], monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """Builds that pretend to have a terminal, and terminals to be sent no codes, get none."""
    screen = terminal()
    monkeypatch.setenv(name, value)
    with progress_line("thinking", after=0) as progress:
        progress("dense/kernel", 1, 4)
        time.sleep(0.1)
    assert screen.close() == ""


def test_no_terminal(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """In a log nothing is drawn, whatever forces colours, and though IPython is loaded."""
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    with progress_line("loading", after=0) as progress:
        progress("dense/kernel", 1, 4)
        time.sleep(0.1)
    assert capfd.readouterr() == ("", "")


# -- logs ----------------------------------------------------------------------------------------


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs get a line every 50 ms."""
    monkeypatch.setattr(tfcheck.rendering.progress, "LOG_EVERY", 0.05)


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("ci", ["", "true"])
def test_a_long_check_in_a_log(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, ci: str
) -> None:
    """Without a terminal, plain lines say what is done, how far it is and how long it takes."""
    monkeypatch.setenv("CI", ci)
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress_line(title="gradient check at epoch 5") as progress:
        progress("dense/kernel", 0, 4)
        time.sleep(0.3)
        progress("dense/bias", 3, 4)
        time.sleep(0.3)
    out, err = capfd.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert "gradient check at epoch 5, 0:00: dense/kernel, 0 of 4" in lines
    assert "gradient check at epoch 5, 0:00: dense/bias, 3 of 4, about 0:00 left" in lines


def test_a_short_check_in_a_log(capfd: pytest.CaptureFixture[str]) -> None:
    """What is over before a line is due writes nothing, and is not held up by its thread."""
    assert tfcheck.rendering.progress.LOG_EVERY == 30
    began = time.monotonic()
    check_gradients(small_model(), X, Y, directions=1)
    assert capfd.readouterr() == ("", "")
    assert time.monotonic() - began < 20


@pytest.mark.usefixtures("often")
def test_silence_in_a_log(capfd: pytest.CaptureFixture[str]) -> None:
    """`verbose=0` and `fit(verbose=0)` write no lines, however long it takes."""
    loss = loss_after(lambda: time.sleep(0.2))
    check_gradients(small_model(), X, Y, loss_fn=loss, directions=1, verbose=0)
    callback = GradientCheck(X, Y, tracking=None, directions=1, loss_fn=loss)
    small_model().fit(X, Y, verbose=0, callbacks=[callback])
    assert callback.reports[0].verdict == "pass"
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("often")
def test_no_thread_outlives_a_check() -> None:
    """Whoever writes the lines is gone when the check is, also when it raises."""
    before = set(threading.enumerate())

    def failing() -> None:
        with progress_line():
            time.sleep(0.1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        failing()
    check_gradients(small_model(), X, Y, directions=1)
    assert not {t for t in threading.enumerate() if "progress" in t.name} - before


class Closed:
    """A standard error that is gone."""

    encoding = None

    def write(self, _text: str) -> int:
        raise ValueError("I/O operation on closed file")


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("stream", [None, Closed()])
def test_nobody_to_tell(monkeypatch: pytest.MonkeyPatch, stream: Any) -> None:
    """A process without a standard error, or with one that is closed, works as any other."""
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_line() as progress:
        progress("dense/kernel", 1, 4)
        time.sleep(0.2)


@pytest.mark.usefixtures("often")
def test_letters_of_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that the log's encoding lacks, or that would steer a terminal, is written plainly."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(raw, encoding="ascii"))
    with progress_line() as progress:
        progress("grün/層\x1b[2J", 0, 0)
        time.sleep(0.2)
    assert b"gradient check, 0:00: grun/\\u5c64?[2J\n" in raw.getvalue()


# -- notebooks -----------------------------------------------------------------------------------


class ZMQInteractiveShell:
    """What IPython is in a notebook, by its name."""


def test_notebook(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """In a notebook one display is updated, and empty in the end; no stream is written to."""
    displayed: list[Any] = []
    shown = threading.Event()

    class Handle:
        def update(self, content: Any, raw: bool = False) -> None:
            displayed.append(content if raw else content._repr_mimebundle_([], [])["text/plain"])
            shown.set()

    def display(content: Any, *, display_id: bool) -> Handle:
        assert display_id
        handle = Handle()
        handle.update(content)
        return handle

    ipython = ModuleType("IPython.display")
    ipython.display = display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", ipython)
    monkeypatch.setattr(builtins, "get_ipython", ZMQInteractiveShell, raising=False)
    monkeypatch.delenv("CI", raising=False)
    with progress_line("tracing", after=0):
        assert shown.wait(20)
    assert "gradient check" in displayed[0]
    assert "tracing" in displayed[0]
    assert displayed[-1] == {"text/plain": ""}
    assert capfd.readouterr() == ("", "")
