"""A server that is away, silent or in trouble, and local stores that are."""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from tfcheck.tracking import (
    new_database,
    server,
)


def test_silent_server_counts_as_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes the connection and never answers is away after the time given."""
    monkeypatch.setattr(server, "PROBE_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begin = time.monotonic()
        trouble = server.trouble(f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert time.monotonic() - begin < 2
    assert trouble == "did not answer within 0.3 s"


def test_local_stores_are_asked_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that another process has locked, and one in a folder that cannot be written."""
    monkeypatch.setattr(server, "PROBE_SECONDS", 0.2)
    uri = f"sqlite:///{tmp_path / 'some.db'}"
    assert server.trouble(uri) == ""
    with contextlib.closing(sqlite3.connect(tmp_path / "some.db")) as connection:
        connection.execute("CREATE TABLE t (a)")
        connection.execute("BEGIN IMMEDIATE")
        assert server.trouble(uri) == "is locked by another process"
        connection.rollback()
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert server.trouble(uri) == "cannot be written"
    assert server.trouble(str(tmp_path / "mlruns")) == "cannot be written"


def test_a_new_database_is_whole_when_it_is_seen(tmp_path: Path) -> None:
    """Another process finds no database or a whole one; one that it is making is left to it."""
    path = tmp_path / "new.db"
    uri = f"sqlite:///{path.as_posix()}"
    making = threading.Thread(target=new_database.prepare, args=(uri,))
    making.start()
    while not path.exists() and making.is_alive():
        time.sleep(0.001)
    assert new_database._is_whole(path)
    making.join()
    assert new_database.prepare(uri) == ""
    assert [file.name for file in tmp_path.iterdir()] == ["new.db"]

    path.write_bytes(b"")
    assert new_database.prepare(uri) == "is being made by another process"
    os.utime(path, (0, 0))  # whoever began it gave up long ago
    assert new_database.prepare(uri) == ""


@pytest.mark.parametrize(
    ("text", "clause"),
    [
        ("HTTPConnectionPool: ResponseError('too many 500 error responses')", "answered 500"),
        ("507 Server Error: Insufficient Storage for url", "answered 507"),
        ("[Errno 111] Connection refused", "refused the connection"),
        ("Read timed out. (read timeout=10)", "did not answer in time"),
        ("(sqlite3.OperationalError) database is locked", "is locked by another process"),
        ("attempt to write a readonly database", "cannot be written"),
        ("what nobody foresaw", "said OSError: what nobody foresaw"),
    ],
)
def test_what_happened_is_told(text: str, clause: str) -> None:
    """A warning says what happened, not that "something" did."""
    assert server.said(OSError(text)) == clause
