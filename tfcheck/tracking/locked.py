"""One process at a time sends a file. The lock ends with the process, however that ends."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO

# Beyond any content: Windows keeps others from reading and writing the bytes that are locked.
_PLACE = 1 << 40


class Lock:
    """A file, locked for this process until `release` or the end of the process.

    Args:
        path: the file; it must exist.

    Raises:
        BlockingIOError: if another process has locked it.
        OSError: if it is missing, or cannot be locked at all.
    """

    def __init__(self, path: Path) -> None:
        self._file: IO[bytes] = path.open("r+b")
        try:
            _lock(self._file)
        except OSError as error:
            self._file.close()
            raise BlockingIOError(f"{path} is locked") from error

    def release(self) -> None:
        """Let others have it."""
        self._file.close()


if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[bytes]) -> None:
        file.seek(_PLACE)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
