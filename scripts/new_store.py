"""A local MLflow store that several audits begin at once: one of them makes it, the others wait.

MLflow makes the tables of a new database in several steps, and an experiment after a look whether
it is there. Two processes that do so at the same time stumble over each other.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import mlflow

WAIT_SECONDS = 25.0


class NewStoreError(OSError):
    """The folder of a store cannot be written to."""


def made_by_one(experiment: str | None) -> None:
    """Make the current store and the experiment, unless they are there; one process at a time.

    Args:
        experiment: its name. Defaults to the one of the environment.

    Raises:
        NewStoreError: if the folder of the store cannot be written to.
    """
    import mlflow

    uri = mlflow.get_tracking_uri()
    if not uri.startswith("sqlite:///"):
        return
    database = Path(uri.removeprefix("sqlite:///").partition("?")[0])
    with _alone(database):
        _make(mlflow.MlflowClient(uri), experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME"))


def _make(client: mlflow.MlflowClient, experiment: str | None) -> None:
    client.search_experiments(max_results=1)
    if experiment is not None and client.get_experiment_by_name(experiment) is None:
        client.create_experiment(experiment)


@contextmanager
def _alone(database: Path) -> Iterator[None]:
    """Hold a lock beside the database, which goes with the process whatever becomes of it.

    It is a lock of SQLite's on a file of its own, as the database itself cannot be locked while
    MLflow makes it.
    """
    lock = database.with_name(f"{database.name}.tfcheck-lock")
    try:
        database.parent.mkdir(parents=True, exist_ok=True)  # as MLflow does
        held = _taken(lock)
    except (OSError, sqlite3.OperationalError) as error:
        raise NewStoreError(
            f"A store's folder must be writable, and its making over within {WAIT_SECONDS:g} s. "
            f"Received: {str(database)!r} ({error}). Name another store"
        ) from error
    with closing(held):
        try:
            yield
        finally:
            with suppress(OSError):
                lock.unlink()


def _taken(lock: Path) -> sqlite3.Connection:
    """A connection that holds the lock, within the time there is."""
    until = time.monotonic() + WAIT_SECONDS
    while True:
        left = max(until - time.monotonic(), 0)
        connection = sqlite3.connect(lock, timeout=left, isolation_level=None)
        try:
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            connection.close()
            # Those who wait are told of an I/O error when the one before removes the file.
            if not left or error.sqlite_errorcode == sqlite3.SQLITE_CANTOPEN:
                raise
        else:
            return connection
