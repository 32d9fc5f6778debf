"""A new SQLite database, made whole before anybody sees it.

MLflow makes one table by table. Two processes that make one at once fail, so that a training that
starts its own MLflow at the wrong moment would be ended by ours.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from pathlib import Path

from tfcheck.tracking.server import local_path

_UNFINISHED_SECONDS = 30.0  # longer than making one takes, where nobody gave up


def prepare(tracking_uri: str) -> str:
    """Make the database of a store where there is none yet.

    Returns:
        Why the store cannot be used now, as a clause with it as the subject; `""` where it can.
    """
    path = local_path(tracking_uri) if tracking_uri.startswith("sqlite:") else None
    if path is None:
        return ""
    if not path.exists():
        _make(path)
    if _is_whole(path) or time.time() > path.stat().st_mtime + _UNFINISHED_SECONDS:
        return ""
    return "is being made by another process"


def _make(path: Path) -> None:
    from mlflow import MlflowClient

    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.unlink(missing_ok=True)
    try:
        MlflowClient(f"sqlite:///{beside.as_posix()}").search_experiments(max_results=1)
        with contextlib.suppress(FileExistsError):
            _put(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _put(beside: Path, path: Path) -> None:
    """Give a file its name, unless another has it by now."""
    try:
        os.link(beside, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if not path.exists():
            beside.rename(path)


def _is_whole(path: Path) -> bool:
    """Whether MLflow has finished making it: the default experiment is the last that it makes."""
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=0.1)) as connection:
            return connection.execute("SELECT 1 FROM experiments LIMIT 1").fetchone() is not None
    except sqlite3.Error:
        return False
