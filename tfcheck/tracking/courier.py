"""The training's side of the process that sends: it is started, and told where to look.

Nothing is left behind in the training's process: no thread, no handler of a signal, no variable.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

# The modules that the training finds are found here, too, wherever it has them from. With `-P`,
# because the folder that Python would put first need not be in that list.
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.stdin.readline()); "
    "from tfcheck.tracking.worker import main; main()"
)


class _Left(subprocess.Popen[bytes]):
    """A process that is meant to go on when this one ends, without a warning that it does."""

    def __del__(self) -> None:
        pass


class Courier:
    """Tells the process that sends which file to look at, and starts it when it is not there."""

    def __init__(self) -> None:
        self._owner = 0
        self._process: _Left | None = None
        self._wire: Any = None
        self._environment: dict[str, str] = {}

    def tell(self, path: Path) -> None:
        """Let a file be looked at. Takes well under a millisecond where the process is there.

        Raises:
            OSError: if no process can be started.
        """
        if not self.is_there() or not self._said(path):
            self._start()
            self._said(path)

    def is_there(self) -> bool:
        """Whether the process is."""
        # A fork has its parent's file descriptor but is not the one the process works for.
        mine = self._process is not None and self._owner == os.getpid()
        return mine and self._process is not None and self._process.poll() is None

    def _start(self) -> None:
        if self._wire is not None:
            self._wire.close()
        if not sys.executable:
            raise OSError("there is no Python to start a process with")
        command = [sys.executable, "-P", "-c", _START, str(os.getpid())]
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        if os.name == "posix":
            # Its own session keeps Ctrl-C away; a socket can be written to without the signal
            # that ends a process where nobody reads.
            mine, other = socket.socketpair()
            with other:
                options = {**quiet, "stdin": other, "start_new_session": True}
                self._process = _Left(command, **options)
            mine.setblocking(False)
            self._wire = mine
        else:
            flags = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
            options = {**quiet, "stdin": subprocess.PIPE, "bufsize": 0, "creationflags": flags}
            self._process = _Left(command, **options)
            self._wire = self._process.stdin
        self._owner = os.getpid()
        self._environment = dict(os.environ)
        self._write(sys.path)

    def _said(self, path: Path) -> bool:
        now = dict(os.environ)
        changed = {
            name: now.get(name)
            for name in {*now, *self._environment}
            if now.get(name) != self._environment.get(name)
        }
        self._environment = now
        return self._write({"path": str(path), **({"environment": changed} if changed else {})})

    def _write(self, message: Any) -> bool:
        """Send a line; a process too busy to take it looks at the file anyway."""
        line = f"{json.dumps(message)}\n".encode()
        try:
            if isinstance(self._wire, socket.socket):
                self._wire.send(line, getattr(socket, "MSG_NOSIGNAL", 0))
            else:
                self._wire.write(line)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True

    def let_go(self) -> None:
        """Close the line: the process brings to an end what it has, and goes."""
        if self._wire is not None and self._owner == os.getpid():
            with contextlib.suppress(OSError):
                self._wire.close()
