"""What is measured on: processors and versions, and nothing that tells whose they are."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from pathlib import Path

PACKAGES = ("tfcheck", "tensorflow", "keras", "numpy", "torch", "jax")
NOT_INSTALLED = "not installed"


def facts() -> dict[str, str]:
    """The machine and the versions, by name."""
    return {
        "CPUs": f"{_cores()} × {_processor()}",
        "memory": _memory(),
        "system": platform.system(),
        "Python": platform.python_version(),
        **{package: _version(package) for package in PACKAGES},
    }


def load() -> float | None:
    """How many processes have wanted to run in the last minute; None where nobody tells."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _cores() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    found = re.search(r"^model name\s*: (.*)$", _read("/proc/cpuinfo"), re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def _memory() -> str:
    found = re.search(r"^MemTotal: *(\d+) kB$", _read("/proc/meminfo"), re.MULTILINE)
    return f"{int(found[1]) / 2**20:.0f} GiB" if found else "unknown"


def _read(file: str) -> str:
    path = Path(file)
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return NOT_INSTALLED
