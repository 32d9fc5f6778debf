"""`tfcheck ui`: the gradient checks of a store in MLflow's pages."""

from __future__ import annotations

import os
import signal
import sys
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click


@click.command()
@click.argument("store", required=False)
@click.option("--port", type=click.IntRange(1, 65535), help="Port to listen on.  [default: 5055]")
@click.option("--live", is_flag=True, help="Serve the store itself instead of a copy of it.")
@click.option("--browser/--no-browser", default=True, show_default=True, help="Open a browser.")
def ui(store: str | None, port: int | None, live: bool, browser: bool) -> None:
    """Open the gradient checks of a STORE in MLflow.

    STORE is a folder with an MLflow file store, a folder with mlflow.db, a database file or the
    address of a tracking server. Defaults to MLFLOW_TRACKING_URI, ./mlflow.db or ./mlruns.

    A store is shown as it is now, from a copy: nothing in its folder changes, and what you change
    in MLflow's pages is not kept. Use --live to watch a training, or to keep your changes.
    """
    from tfcheck.dashboard.serve import dashboard
    from tfcheck.dashboard.store import find_store

    try:
        found = find_store(store, os.environ.get("MLFLOW_TRACKING_URI"))
        if found.kind != "server":
            shown = "live" if live else "from a copy: changes are not kept"
            click.echo(f"Opening {found.name} ({shown}) ...")
        with _ending_politely(), dashboard(found, port, live) as board:
            click.echo(f"\n  {board.url}\n")
            if browser:
                webbrowser.open(board.url)
            if board.process is not None:
                click.echo("Press Ctrl-C to stop.")
                board.wait()
    except KeyboardInterrupt:
        click.echo("Stopped.")


@contextmanager
def _ending_politely() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, so that the server and the copy go as well."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        sys.exit(0)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
