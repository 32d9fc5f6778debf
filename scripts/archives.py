"""Zip files from strangers: how large they will be is known before anything of them is read."""

from __future__ import annotations

import mmap
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ENTRY = b"PK\x01\x02"
"""How each entry of a zip file's directory begins."""

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""What NumPy and Keras write. Python unpacks these two piece by piece, the others at once."""


class TooLargeError(Exception):
    """More than the limit, by what the file itself says."""


@contextmanager
def opened(path: Path, max_bytes: int, most_members: int) -> Iterator[zipfile.ZipFile]:
    """Open a zip file whose members, unpacked, take no more than the limit all together.

    A member never unpacks to more than its entry declares: there, reading ends.

    Args:
        path: the file.
        max_bytes: the limit.
        most_members: how many members there may be.

    Raises:
        TooLargeError: for more bytes or members.
        ValueError: for members that are there twice, or packed in unusual ways.
        zipfile.BadZipFile: for another kind of file.
    """
    require_size(path.stat().st_size, max_bytes, "the file itself")
    # Each entry costs some hundred bytes of memory, and opening the file reads them all.
    if _entries(path, most_members) > most_members:
        raise TooLargeError(f"more than {most_members:,} members")
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        require_size(sum(member.file_size for member in members), max_bytes, "unpacked")
        if len({member.filename for member in members}) < len(members):
            raise ValueError("two members of one name")
        if any(member.compress_type not in _METHODS for member in members):
            raise ValueError("a member that is neither stored nor deflated")
        yield archive


def require_size(size: int, max_bytes: int, what: str) -> None:
    """Raise a `TooLargeError` for more than the limit."""
    if size > max_bytes:
        raise TooLargeError(f"{what}, {size_in_words(size)}")


def size_in_words(size: int) -> str:
    """Bytes with a unit: `"4.7 MB"`.

    Example:
        >>> size_in_words(2_000_000_000), size_in_words(15_800), size_in_words(7)
        ('2 GB', '15.8 kB', '7 bytes')
    """
    for power, unit in enumerate(("TB", "GB", "MB", "kB")):
        if size >= (scale := 1000 ** (4 - power)):
            return f"{size / scale:.3g} {unit}"
    return f"{size} bytes"


def _entries(path: Path, most: int) -> int:
    """How many entries a zip file can have at the most; not counted on once there are too many."""
    count, place = 0, -1
    if path.stat().st_size == 0:
        return 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        while count <= most and (place := content.find(_ENTRY, place + 1)) >= 0:
            count += 1
    return count
