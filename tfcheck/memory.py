"""How much memory a check may use, and how much there is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from numbers import Integral
from pathlib import Path

from tfcheck.errors import ArgumentError, rule

AUTO_SHARE = 4
"""`"auto"` is the free memory divided by this."""

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")

_UNITS = {
    "b": 1,
    **{f"{letter}b": 1000**power for power, letter in enumerate("kmgt", 1)},
    **{f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", 1)},
}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*", re.IGNORECASE | re.ASCII)


def bytes_of(limit: int | str) -> int:
    """The bytes that a memory limit stands for.

    Args:
        limit: a number of bytes; a string such as `"500MB"`, `"2GB"` or `"1.5GiB"`, with a unit
            of `B`, `kB`, `MB`, `GB`, `TB` (powers of 1000), `KiB`, `MiB`, `GiB` or `TiB` (powers
            of 1024), in capitals or not; or `"auto"`, a quarter of the memory that is free now.

    Returns:
        A number of bytes, at least 1.

    Raises:
        ArgumentError: for anything else.

    Example:
        >>> bytes_of("500MB"), bytes_of("1.5 GiB")
        (500000000, 1610612736)
    """
    if isinstance(limit, str) and limit == "auto":
        return max(1, free_memory() // AUTO_SHARE)
    return size_of("memory_limit", limit, '"auto", ')


def size_of(name: str, size: int | str, others: str = "") -> int:
    """The bytes of a size.

    Args:
        name: the option that it is given for.
        size: a number of bytes, or a string with a unit, as for `bytes_of`.
        others: what else the option may be, for the message. Defaults to nothing.

    Returns:
        A number of bytes, at least 1.

    Raises:
        ArgumentError: for anything else.
    """
    number = 0
    if isinstance(size, str):
        if (found := _SIZE.fullmatch(size)) and (unit := _UNITS.get(found[2].lower())):
            number = int(Decimal(found[1]) * unit)
    elif isinstance(size, Integral) and not isinstance(size, bool):
        number = int(size)
    if number < 1:
        raise ArgumentError(
            rule(
                f"{name} must be {others}a positive whole number of bytes, or a size with a unit "
                "from B to TB or TiB",
                name,
                size,
                'Try "2GB"',
            )
        )
    return number


def free_memory() -> int:
    """The bytes this process can still use without swapping.

    That is what the machine has available, and no more than the process's control groups allow:
    in a container the machine's memory is not all its own.
    """
    import psutil

    return max(0, min((psutil.virtual_memory().available, *_allowed())))


def _allowed() -> Iterator[int]:
    """The bytes that each control group of the process still allows, where it has a limit."""
    try:
        own = OWN_CGROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return
    for entry in own:
        _, controllers, path = entry.split(":", 2)
        if not controllers:  # version 2
            root, files = CGROUPS, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root = CGROUPS / "memory"
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        # In a container the path may be the host's, and then only the root is there.
        inside = root / path.lstrip("/")
        for folder in (inside, *inside.parents):
            left = _left(folder, *files) if folder.is_relative_to(root) else None
            if left is not None:
                yield left


def _left(folder: Path, limit: str, used: str, cached: str) -> int | None:
    """What one control group still allows; None where it has no limit or cannot be read."""
    try:
        most, now = (int((folder / name).read_text(encoding="utf-8")) for name in (limit, used))
    except (OSError, ValueError):
        return None
    try:
        # What is cached of files that were read is given up when it is needed.
        stat = dict(map(str.split, (folder / "memory.stat").read_text("utf-8").splitlines()))
        return most - now + int(stat[cached])
    except (OSError, ValueError, KeyError):
        return most - now
