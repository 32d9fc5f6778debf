"""One file of waiting checks on its way into MLflow: the same code whoever sends.

Numbers go first, then files, then the end of the run; each is noted as it arrives, and what goes
wrong with one keeps nothing else from arriving.
"""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tfcheck.tracking import destination, new_database, progress, server, spool
from tfcheck.tracking.locked import Lock
from tfcheck.tracking.progress import Progress
from tfcheck.tracking.run_log import RunLog
from tfcheck.tracking.spool import Content

NUMBERS, FILES, END, VIEWS = "numbers", "pictures", "ends of runs", "saved views"
_TRUSTED_SECONDS = 1.0  # so long an answer is taken for one now


class Delivery:
    """Sends what waits in one file, as often as it is asked to.

    Files may be sent on another thread than numbers, at the same time.

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
        self._doing: set[str] = set()
        self._troubles: dict[str, str] = {}
        self._noting = threading.Lock()
        self._answered_at = -math.inf
        self._shown = 0
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
        return self._has_numbers and not self.wants_files and self.progress.ended >= self._over

    @property
    def wants_files(self) -> bool:
        """Whether there are files to send for numbers that have arrived."""
        return self.progress.files < self.progress.numbers

    @property
    def _over(self) -> bool:
        return bool(self.content.ended)

    @property
    def _has_numbers(self) -> bool:
        there = self.progress.numbers == len(self.content.entries)
        moves = self.content.run_id not in (None, self.progress.run_id)
        return there and self.progress.run_id is not None and not moves

    def send_numbers(self) -> None:
        """Send the numbers that have not arrived, make the run where there is none, end it."""
        self.read()
        if not self._has_numbers:
            self._attempt(NUMBERS, self._numbers)
        if self._over and not self.progress.ended and self.progress.run_id is not None:
            if self.progress.own or self.content.last_step is not None:
                self._attempt(END, self._end)
            else:
                self._note(ended=True)

    def send_files(self) -> None:
        """Send the files of the checks whose numbers have arrived, and have them shown."""
        now = self.progress.numbers
        content = replace(self.content, entries=self.content.entries[:now])
        if not now or self.progress.run_id != (content.run_id or self.progress.run_id):
            return
        if self.wants_files:
            self._attempt(FILES, lambda: self._files(content))
        first = self.progress.shown is None
        if (first or (content.ended and self._shown < now)) and not self.wants_files:
            self._attempt(VIEWS, lambda: self._views(content))

    def conclude(self, lines: int) -> None:
        """Note that so many lines were tried; when all have arrived, the file is not needed more.

        The note of what arrived stays, for who waits for it.
        """
        done = self._over and self.arrived
        self._note(seen=lines, done=done)
        if done:
            self.close()  # Windows removes no file that is open
            self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let others send it."""
        self._lock.release()

    def _attempt(self, what: str, send: Callable[[], None]) -> None:
        self._doing.add(what)
        self._note()
        try:
            self._troubles[what] = self._connect()
            if not self._troubles[what]:
                send()
        except Exception as error:  # noqa: BLE001 - told by who reads the note
            self._troubles[what] = server.said(error)
            self._answered_at = -math.inf
        self._doing.discard(what)
        self._note()

    def _connect(self) -> str:
        uri = self._uri or destination.tracking_uri(self.content.target, self.progress)
        if self.progress.tags is None and self.content.run_id is None:
            self._note(tags=destination.tags_of(self.content.target))
        self._note(tracking_uri=server.without_password(uri))
        if time.monotonic() < self._answered_at + _TRUSTED_SECONDS:
            return ""
        trouble = server.trouble(uri) or new_database.prepare(uri)
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
        if settled is not before:
            self._log = None
            self._note(**dataclasses.asdict(settled))
        self._note(**self._writer.write_numbers(self.content, self.progress))

    def _files(self, content: Content) -> None:
        run_id, log = self.progress.run_id, self._writer
        self._note_of(run_id, log.place_files(content, self.progress))
        self._note_of(run_id, log.write_files(content, self.progress))

    def _views(self, content: Content) -> None:
        self._shown = len(content.entries)  # not tried again: what counts has arrived
        self._note_of(self.progress.run_id, self._writer.prepare_views(content, self.progress))

    def _end(self) -> None:
        if self._has_numbers:
            self._writer.write_end(self.content, self.progress)
        if self.progress.own:
            self._client.set_terminated(self.progress.run_id, self.content.ended)
        self._note(ended=True)

    @property
    def _writer(self) -> RunLog:
        if self._log is None:
            name = self.content.target.name
            self._log = RunLog(self._client, str(self.progress.run_id), name)
        return self._log

    def _note_of(self, run_id: str | None, fields: Mapping[str, Any]) -> None:
        """Note what arrived in a run, unless all goes to another one by now."""
        if self.progress.run_id == run_id:
            self._note(**fields)

    def _note(self, **fields: Any) -> None:
        with self._noting:
            troubles = (self._troubles.get(what, "") for what in (NUMBERS, END, FILES, VIEWS))
            doing = next((what for what in (NUMBERS, END, FILES, VIEWS) if what in self._doing), "")
            told = {"doing": doing, "trouble": next(filter(None, troubles), "")}
            self.progress = replace(self.progress, **{**fields, **told})
            progress.save(self.path, self.progress)
