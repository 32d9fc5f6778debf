"""Checks into MLflow while a model trains, without ever stopping or delaying the training."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from tfcheck.gradient_report import GradientReport
from tfcheck.settings import Settings
from tfcheck.tracking import progress, schema, spool, surroundings
from tfcheck.tracking.attachments import attachments
from tfcheck.tracking.courier import Courier
from tfcheck.tracking.server import without_password
from tfcheck.tracking.spool import Entry

CLOSE_SECONDS = 10.0
LEAVING_SECONDS = 2.0
"""So long does an interrupted training wait at most."""

_POLL_SECONDS = 0.01

_logger = logging.getLogger("tfcheck.tracking")


class Sender(Protocol):
    """Who sends what is in a file."""

    def tell(self, path: Path) -> None:
        """Let a file be looked at."""

    def is_there(self) -> bool:
        """Whether anybody looks."""


class MlflowTracking:
    """Gradient checks of one training in MLflow.

    Every check is written to a file in the working directory, and sent from there by a process of
    its own (`worker.py`), which also ends the run when the training is killed. The file is
    removed when all has arrived. Nothing here raises, and nothing but `close` waits: trouble is a
    warning of the logger `"tfcheck.tracking"`.

    Args:
        run_id: the run to log to. Defaults to the active run, else a new run, which is ended
            after `close`.
        name: what to call these checks beside others in the run. Defaults to `"gradcheck"`, or
            to `about` where that is taken by a training that goes on.
        about: what is checked, in a word.
        close_timeout: how many seconds `close` waits for what is still being sent. Defaults to 10.
        sender: who sends. Defaults to the process that all trainings of this one share.

    Attributes:
        name: the name in use.
        run_id: the run logged to, of the last training that began; None while it is not known.

    Example:
        >>> tracking = MlflowTracking()
        >>> tracking.start(settings)  # doctest: +SKIP
        >>> tracking.log([first_report])  # doctest: +SKIP
        >>> tracking.log([first_report, second_report])  # doctest: +SKIP
        >>> tracking.close()  # doctest: +SKIP
    """

    def __init__(
        self,
        run_id: str | None = None,
        *,
        name: str | None = None,
        about: str = "train",
        close_timeout: float = CLOSE_SECONDS,
        sender: Sender | None = None,
    ) -> None:
        self.name = name or schema.FIRST
        self._asked_for = run_id
        self._asked_name = name
        self._about = about
        self._close_timeout = close_timeout
        self._sender = sender or _COURIER
        self._open: _Open | None = None
        self._last: _Open | None = None
        self._logged = 0
        self._warned: set[str] = set()

    @property
    def run_id(self) -> str | None:
        """The run logged to."""
        return self._asked_for if self._last is None else self._last.run_id()

    def start(self, settings: Settings | None = None, model: str = "training") -> None:
        """Choose the run, and have the options of the checks logged.

        Call it on the thread that trains, when training begins.

        Args:
            settings: the options, as far as they are known. Those that are not follow with the
                first report.
            model: name of the model, for the name of a new run.
        """
        if self._open is not None:
            self.close("FAILED", timeout=0)  # the training before this one was interrupted
        self._logged = 0
        self._warned = set()
        self._guarded(lambda: self._begin(settings, model))

    def log(self, reports: Sequence[GradientReport]) -> None:
        """Log the reports that are not logged yet.

        Args:
            reports: every report of this training so far, oldest first.
        """
        self._guarded(lambda: self._add(reports))

    def close(
        self, status: str = "FINISHED", timeout: float | None = None, last_step: int | None = None
    ) -> None:
        """Have the run ended if it is our own, and wait until everything has arrived.

        What has not arrived by then goes on being sent.

        Args:
            status: MLflow's word for how training ended: `"FINISHED"`, `"FAILED"` or `"KILLED"`.
            timeout: how many seconds to wait. Defaults to `close_timeout`, and to at most two for
                a training that was interrupted.
            last_step: optimizer iterations at the end. Defaults to None, for not known.
        """
        training, self._open = self._open, None
        if training is None:
            return
        training.abandoned.detach()
        _TRAININGS.discard(training)
        seconds = self._close_timeout if timeout is None else timeout
        if status == "KILLED":
            seconds = min(seconds, LEAVING_SECONDS)

        def finish() -> None:
            training.follow()
            training.end(status, last_step)
            if seconds and not training.wait(seconds):
                self._warn(training.what_waits(seconds))

        self._guarded(finish)

    def _begin(self, settings: Settings | None, model: str) -> None:
        self.name = _free_name(self._asked_name, self._about)
        params = surroundings.versions()
        params |= schema.params(settings) if settings is not None else {}
        target = surroundings.target(self._asked_for, self.name, model, params)
        training = _Open(spool.begin(target), target, self._sender)
        # An interrupted training is ended when nobody holds this object any more.
        training.abandoned = weakref.finalize(self, training.abandon, 0.0)
        training.abandoned.atexit = False
        self._open = self._last = training
        _TRAININGS.add(training)
        training.tell()

    def _add(self, reports: Sequence[GradientReport]) -> None:
        training = self._open
        if training is None:
            return
        now = time.time_ns() // 1_000_000
        for report in reports[self._logged :]:
            files = attachments(report, reports[: self._logged])
            spool.add(training.path, Entry(report, now, files))
            training.lines += 1
            self._logged += 1
        training.follow()
        training.tell()
        trouble = progress.load(training.path).trouble
        if trouble:
            self._warn(
                f"MLflow{training.place()} {trouble}: training goes on, and its gradient checks "
                "are kept and sent later."
            )

    def _guarded(self, action: Callable[[], None]) -> None:
        """Training goes on whatever happens to its records."""
        try:
            action()
        except Exception as error:  # noqa: BLE001 - said once, below
            text = " ".join(f"{type(error).__name__}: {error}".split())
            self._warn(f"Gradient checks are not logged to MLflow. {text[:300]}")

    def _warn(self, message: str) -> None:
        if message not in self._warned and len(self._warned) < 3:
            self._warned.add(message)
            _logger.warning("%s", message)


class _Open:
    """A training that goes on, and its file."""

    def __init__(self, path: Path, target: spool.RunTarget, sender: Sender) -> None:
        self.path = path
        self.target = target
        self.lines = 1
        self.abandoned: weakref.finalize[..., MlflowTracking]
        self._sender = sender
        self._moved_to: str | None = None
        self._run_id: str | None = None
        self._ended = False

    def tell(self) -> None:
        self._sender.tell(self.path)

    def follow(self) -> None:
        """Move to a run that was started after the training began: the loss goes there.

        `mlflow.keras.MlflowCallback` starts one when it is listed after the gradient check and no
        run is active. A run of our own is never active.
        """
        active = surroundings.active_run_id()
        if self.target.run_id is None and active not in (None, self._moved_to):
            self._moved_to = active
            spool.move(self.path, str(active))
            self.lines += 1

    def end(self, status: str, last_step: int | None = None) -> None:
        if not self._ended:
            self._ended = True
            spool.end(self.path, status, last_step)
            self.lines += 1
            self.tell()

    def wait(self, seconds: float) -> bool:
        """Wait until all has arrived, or it is known that it cannot now."""
        limit = time.monotonic() + seconds
        while self.path.exists():
            self.run_id()
            if time.monotonic() > limit or not self._sender.is_there():
                return False
            now = progress.load(self.path)
            if now.seen >= self.lines and now.trouble and not now.doing:
                return False
            time.sleep(_POLL_SECONDS)
        self.run_id()
        progress.forget(self.path)
        return True

    def run_id(self) -> str | None:
        """The run logged to, as far as it is known."""
        self._run_id = progress.load(self.path).run_id or self._run_id
        return self._run_id or self._moved_to or self.target.run_id

    def what_waits(self, seconds: float) -> str:
        """Why not everything has arrived, and what to do."""
        now = progress.load(self.path)
        if now.trouble:
            what = f"MLflow{self.place()} {now.trouble}"
        elif not self._sender.is_there():
            what = "The process that sends gradient checks to MLflow has ended"
        else:
            sent = (now.doing or "gradient checks").capitalize()
            what = f"{sent} are still being sent to MLflow{self.place()} after {seconds:g} s"
        return (
            f"{what}. What has not arrived is kept in {self.path}, and sending goes on for two "
            f"minutes; if the file is still there then, run: tfcheck sync {self.path}"
        )

    def place(self) -> str:
        """Where MLflow is, with a space before it."""
        uri = progress.load(self.path).tracking_uri or self.target.tracking_uri
        return f" at {without_password(uri)}" if uri else ""

    def abandon(self, seconds: float) -> None:
        """End a training that nobody closed."""
        if self.target.process != os.getpid():  # a fork leaves its parent's trainings alone
            return
        _TRAININGS.discard(self)
        interrupted = getattr(sys, "last_type", None) is KeyboardInterrupt
        try:
            self.end("KILLED" if interrupted else "FAILED")
            self.wait(seconds)
        except Exception as error:  # noqa: BLE001 - nobody is left to handle it
            _logger.debug("The run could not be ended: %s", error)


_COURIER = Courier()
_TRAININGS: set[_Open] = set()


@atexit.register
def _leave() -> None:
    """End what is open when Python ends, and let the process that sends finish by itself."""
    for training in list(_TRAININGS):
        training.abandoned.detach()
        training.abandon(LEAVING_SECONDS)
    _COURIER.let_go()


def _free_name(asked: str | None, about: str) -> str:
    """A name that no training of this process that goes on has."""
    here = os.getpid()
    taken = {training.target.name for training in _TRAININGS if training.target.process == here}
    wanted = asked or (schema.FIRST if schema.FIRST not in taken else about)
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}-{number}"
    return name
