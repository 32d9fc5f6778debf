"""The process that sends: started by a training, it outlives it until all has arrived.

It is a process and not a thread of the training's, because MLflow and what it is built on draw
from Python's `random`, hold the interpreter's lock, wait for minutes, and because what waits is to
arrive, and the run to be ended, also when the training is killed. It loads no TensorFlow.

A line on the standard input is JSON: `path`, a file to look at, and `environment`, variables that
the training has changed. The end of the input is the end of the training's process.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from tfcheck.errors import ReportError
from tfcheck.tracking import progress, server, spool
from tfcheck.tracking.delivery import Delivery

FIRST_RETRY_SECONDS = 0.5  # doubled each time
RETRY_SECONDS = 5.0
LAST_SECONDS = 120.0  # after the end of a training, or of its process
IDLE_SECONDS = 30.0
_TICK = 0.5
_KEPT_SECONDS = 2.0  # so long is a note of what arrived kept for who waits for it


class Worker:
    """Sends what trainings append to their files, and lets no number wait for a picture.

    Args:
        lines: what the training's process says.
        parent: that process's number.
    """

    def __init__(self, lines: IO[str], parent: int) -> None:
        self._inbox: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._parent = parent
        self._deliveries: dict[Path, Delivery] = {}
        self._told: set[Path] = set()
        self._next_try: dict[Path, float] = {}
        self._tries: Counter[Path] = Counter()
        self._give_up: dict[Path, float] = {}
        self._arrived: list[tuple[float, Path]] = []
        # Files have a store of their own, which may be away: numbers do not wait for it.
        self._filer = ThreadPoolExecutor(1)
        self._filing: dict[Path, Future[None]] = {}
        self._alone = False
        self._busy_at = time.monotonic()
        threading.Thread(target=self._hear, args=(lines,), daemon=True).start()

    def run(self) -> None:
        """Work until there is nothing left to do."""
        while self._deliveries or self._told or not self._is_idle():
            self._listen(_TICK)
            for path in [path for path in self._told if path not in self._deliveries]:
                self._open(path)
            for path in [path for path in self._deliveries if self._is_due(path)]:
                self._send(path)
            for path in [path for path, job in self._filing.items() if job.done()]:
                del self._filing[path]
                self._settle(path)
            self._forget_arrived()
        self._forget_arrived(at_once=True)

    def _hear(self, lines: Iterable[str]) -> None:
        """On a thread of its own, because Windows cannot wait for a pipe and a time together."""
        with contextlib.suppress(OSError, ValueError):
            for line in lines:
                self._inbox.put(line)
        self._inbox.put(None)

    def _listen(self, seconds: float) -> None:
        """Take in what was said; wait for it so long at most."""
        waits = [
            max(0.0, at - time.monotonic())
            for path, at in self._next_try.items()
            if path in self._deliveries
        ]
        with contextlib.suppress(queue.Empty):
            self._take(self._inbox.get(timeout=0 if self._told else min([seconds, *waits])))
            while True:
                self._take(self._inbox.get_nowait())
        # A fork of the training's process holds the other end of the input open.
        if os.name == "posix" and os.getppid() != self._parent:
            self._be_alone()

    def _take(self, line: str | None) -> None:
        if line is None:
            self._be_alone()
            return
        if not line:  # files have been sent
            return
        message: dict[str, Any] = json.loads(line)
        for name, value in message.get("environment", {}).items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self._told.add(Path(message["path"]))
        self._busy_at = time.monotonic()

    def _be_alone(self) -> None:
        """The training's process is gone: what it left is brought to an end, within bounds."""
        if self._alone:
            return
        self._alone = True
        limit = threading.Timer(LAST_SECONDS, os._exit, (0,))
        limit.daemon = True
        limit.start()
        for path, delivery in self._deliveries.items():
            self._told.add(path)
            with contextlib.suppress(ReportError, OSError):
                delivery.read()
                if not delivery.content.ended:
                    spool.end(path, "KILLED")

    def _open(self, path: Path) -> None:
        self._told.discard(path)
        try:
            self._deliveries[path] = Delivery(path)
        except (ReportError, OSError):  # gone, or sent by another process
            return
        self._next_try[path] = 0.0
        if self._alone and not self._deliveries[path].content.ended:
            spool.end(path, "KILLED")

    def _is_due(self, path: Path) -> bool:
        return path in self._told or time.monotonic() >= self._next_try[path]

    def _send(self, path: Path) -> None:
        """Send numbers, and have files sent after them."""
        self._told.discard(path)
        self._next_try[path] = math.inf  # until it is settled
        delivery = self._deliveries[path]
        if not self._prepared(delivery):
            return
        try:
            delivery.send_numbers()
        except ReportError:  # another process has sent it all
            self._drop(path)
            return
        if path not in self._filing:
            self._filing[path] = job = self._filer.submit(delivery.send_files)
            job.add_done_callback(lambda _: self._inbox.put(""))

    def _prepared(self, delivery: Delivery) -> bool:
        """Go where the training is: what is relative in its settings is relative to that."""
        if not delivery.path.exists():  # another process has sent it all
            self._drop(delivery.path)
            return False
        with contextlib.suppress(OSError):
            os.chdir(delivery.content.target.folder)
        return True

    def _settle(self, path: Path) -> None:
        """Note how far a file has come, and decide when to look at it again, if ever."""
        if path not in self._deliveries:
            return
        delivery, now = self._deliveries[path], time.monotonic()
        delivery.conclude(delivery.content.lines)
        self._busy_at = now
        if delivery.progress.done:
            self._arrived.append((now, path))
            self._drop(path)
        elif delivery.arrived:
            self._tries.pop(path, None)
        elif delivery.progress.trouble:
            self._tries[path] += 1
            pause = min(RETRY_SECONDS, FIRST_RETRY_SECONDS * 2 ** min(self._tries[path], 9))
            self._next_try[path] = now + pause
        else:
            self._next_try[path] = now  # numbers arrived while files were sent
        if path in self._deliveries and delivery.content.ended:
            limit = self._give_up.setdefault(path, now + LAST_SECONDS)
            if now > limit:
                self._drop(path)

    def _drop(self, path: Path) -> None:
        self._deliveries.pop(path).close()
        self._next_try.pop(path, None)

    def _is_idle(self) -> bool:
        return self._alone or time.monotonic() > self._busy_at + IDLE_SECONDS

    def _forget_arrived(self, *, at_once: bool = False) -> None:
        now = time.monotonic()
        for entry in list(self._arrived):
            at, path = entry
            if at_once or self._alone or now > at + _KEPT_SECONDS:
                progress.forget(path)
                self._arrived.remove(entry)


def main() -> None:
    """Work for the process that started this one, whose number is the argument."""
    for name in ("SIGTERM", "SIGINT", "SIGHUP"):
        # A cluster that ends a job signals all of its processes: the training's end is told by
        # its input, and the time after that is bounded.
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(os, "nice"):
        os.nice(10)
    server.limit_requests()
    Worker(sys.stdin, int(sys.argv[1])).run()


if __name__ == "__main__":
    main()
