"""One file of waiting checks on its way into MLflow: the same code whoever sends.

Numbers go first, then files, then the end of the run; each is noted as it arrives, and what goes
wrong with one keeps nothing else from arriving.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tfcheck.tracking import destination, progress, server, spool
from tfcheck.tracking.locked import Lock
from tfcheck.tracking.progress import Progress
from tfcheck.tracking.run_log import RunLog

NUMBERS, FILES, END, VIEWS = "numbers", "pictures", "ends of runs", "saved views"
_TRUSTED_SECONDS = 1.0  # so long an answer is taken for one now


class Delivery:
    """Sends what waits in one file, as often as it is asked to.

    Args:
        path: the file, which is locked from here on.
        tracking_uri: where to send to. Defaults to where the checks were meant for.
        run_id: the run to write to. Defaults to the one they were meant for.

    Attributes:
        content: what the file holds.
        progress: what has arrived.

    Raises:
        BlockingIOError: if another process is sending it.
        ReportError: if it is not a file of waiting checks.
    """

    def __init__(self, path: Path, tracking_uri: str | None = None, run_id: str | None = None):
        self.path = path
        self.content = spool.read(path)
        self._lock = Lock(path)
        self.progress = progress.load(path)
        if run_id not in (None, self.progress.run_id):
            self.progress = Progress()
        self._uri = tracking_uri
        self._run_id = run_id
        self._trouble = ""
        self._away = False
        self._answered_at = -math.inf
        self._shown_at = 0
        self._client: Any = None
        self._log: RunLog | None = None

    def read(self) -> None:
        """Look for what has been added to the file."""
        self.content = spool.read(self.path)
        if self._run_id is not None:
            self.content = replace(self.content, moved_to=self._run_id)

    @property
    def arrived(self) -> bool:
        """Whether everything that is there now has arrived."""
        return self._has_numbers and self._has_files and self.progress.ended >= self._over

    @property
    def _over(self) -> bool:
        return bool(self.content.ended)

    @property
    def _has_numbers(self) -> bool:
        there = self.progress.numbers == len(self.content.entries)
        return there and self.progress.run_id is not None and not self._moves

    @property
    def _moves(self) -> bool:
        return self.content.run_id not in (None, self.progress.run_id)

    @property
    def _has_files(self) -> bool:
        return self.progress.files == len(self.content.entries)

    @property
    def _views_are_due(self) -> bool:
        """At the first check, and when there will be no more."""
        once = self.progress.shown is None or (self._over and self._shown_at < self.progress.files)
        return bool(self.content.entries) and once

    def send_numbers(self) -> None:
        """Send the numbers that have not arrived, make the run where there is none, end it."""
        self.read()
        self._trouble = ""
        if not self._has_numbers:
            self._attempt(NUMBERS, self._numbers)
        if self._over and not self.progress.ended and self.progress.run_id is not None:
            if not self.progress.own:
                self._note(ended=True)
            elif not self._away:
                self._attempt(END, self._end)

    def send_files(self) -> None:
        """Send the files of the checks whose numbers have arrived, and have them shown."""
        if not self._has_numbers:
            return
        if not self._has_files:
            self._attempt(FILES, self._files)
        if self._has_files and self._views_are_due:
            self._attempt(VIEWS, self._views)

    def conclude(self, lines: int) -> None:
        """Note that so many lines were tried; when all have arrived, the file is not needed more.

        The note of what arrived stays, for who waits for it.
        """
        done = self._over and self.arrived
        self._note(seen=lines, doing="", trouble=self._trouble, done=done)
        if done:
            self.close()  # Windows removes no file that is open
            self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let others send it."""
        self._lock.release()

    def _attempt(self, what: str, send: Callable[[], None]) -> None:
        self._note(doing=what)
        try:
            trouble = self._connect()
            self._away = bool(trouble)
            if not trouble:
                send()
        except Exception as error:  # noqa: BLE001 - told by who reads the note
            trouble = server.said(error)
            self._answered_at = -math.inf
        self._trouble = self._trouble or trouble
        self._note(doing="", trouble=self._trouble or self.progress.trouble)

    def _connect(self) -> str:
        uri = self._uri or destination.tracking_uri(self.content.target, self.progress)
        if self.progress.tags is None and self.content.run_id is None:
            self._note(tags=destination.tags_of(self.content.target))
        self._note(tracking_uri=server.without_password(uri))
        if time.monotonic() < self._answered_at + _TRUSTED_SECONDS:
            return ""
        trouble = server.trouble(uri)
        if not trouble and self._client is None:
            from mlflow import MlflowClient

            self._client = MlflowClient(uri)
        if not trouble:
            self._answered_at = time.monotonic()
        return trouble

    def _numbers(self) -> None:
        before = self.progress
        if before.run_id is None and self.content.run_id is None:
            self._note(asked=True)  # should the answer be lost, the run is looked for
        settled = destination.settled(self._client, self.content, before)
        if self._log is None or self._log.run_id != settled.run_id:
            self._log = self._log_of(settled)
        self.progress = settled
        self._note()
        self.progress = self._log.write_numbers(self.content, self.progress)

    def _files(self) -> None:
        if self._log is None:
            self._log = self._log_of(self.progress)
        self.progress = self._log.place_files(self.content, self.progress)
        self._note()
        self.progress = self._log.write_files(self.content, self.progress)

    def _views(self) -> None:
        self._shown_at = self.progress.files  # not tried again: what counts has arrived
        if self._log is None:
            self._log = self._log_of(self.progress)
        self.progress = self._log.prepare_views(self.content, self.progress)

    def _end(self) -> None:
        if self.progress.own:
            self._client.set_terminated(self.progress.run_id, self.content.ended)
        self._note(ended=True)

    def _log_of(self, settled: Progress) -> RunLog:
        return RunLog(self._client, str(settled.run_id), self.content.target.name)

    def _note(self, **fields: Any) -> None:
        self.progress = replace(self.progress, **fields)
        progress.save(self.path, self.progress)


def deliver(delivery: Delivery) -> None:
    """Try once to send all that waits in a file."""
    delivery.send_numbers()
    lines = delivery.content.lines
    delivery.send_files()
    delivery.conclude(lines)
