"""The MLflow store that a command reads, which it leaves as it is."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tfcheck.dashboard.store import Store


store_option = click.option(
    "--tracking-uri",
    metavar="STORE",
    help="The MLflow store: a folder, a database file or an address.  [default: "
    "MLFLOW_TRACKING_URI, ./mlflow.db or ./mlruns]",
)
"""Where commands that read runs look for them."""


def read_store(where: str | None) -> Store:
    """The store that is meant, once MLflow is told to be quiet and not to wait for minutes.

    Args:
        where: a folder, a database file or an address. Defaults to the current store.

    Raises:
        StoreError: if there is none.
    """
    from tfcheck.dashboard.store import find_store
    from tfcheck.tracking import server

    server.limit_requests()
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    # Looking into a database takes MLflow some 30 lines.
    for name in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return find_store(where, os.environ.get("MLFLOW_TRACKING_URI"))


@contextmanager
def records_of(store: Store) -> Iterator[str]:
    """A tracking URI to read a store by: a server itself, or a copy of the records of a local one.

    The copy's records lead to the artifacts wherever the store was moved.
    """
    from tfcheck.dashboard.snapshot import snapshot

    if store.kind == "server":
        yield store.uri
        return
    with snapshot(store) as uri:
        yield uri
