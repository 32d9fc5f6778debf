"""`tfcheck sync`: send the checks that waited in files while MLflow was away."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import click

from tfcheck.errors import ArgumentError, ReportError, rule

UNSENT = 2


@click.command()
@click.argument("where", default=".", type=click.Path(path_type=Path), metavar="[FILE|FOLDER]")
@click.option("--tracking-uri", metavar="URI", help="Send it to this MLflow.")
@click.option("--run-id", metavar="ID", help="Log it to this run, which is not ended.")
@click.pass_context
def sync(ctx: click.Context, where: Path, tracking_uri: str | None, run_id: str | None) -> None:
    """Send what waits in FILE, or in all files of a FOLDER, to MLflow.

    Trainings leave files `gradcheck-waiting-*.jsonl` when MLflow could not be reached. They are
    sent where they were meant for, the run is ended if it was made by the training, and a file is
    deleted when all of it has arrived. Defaults to the current folder.
    """
    from tfcheck.tracking.spool import PATTERN

    # A file that is not there any more has been sent by the process that its training left.
    gone = not where.exists() and where.match(PATTERN)
    if not where.exists() and not gone:
        raise ArgumentError(
            rule("A file or folder to send must exist", "where", str(where), "Name another one")
        )
    files = sorted(where.glob(PATTERN)) if where.is_dir() else [where][gone:]
    if not files:
        click.echo(f"Nothing waits in {where}{', which is not there any more' if gone else ''}.")
    # Absolute before the first is sent, which moves to the folder of its training.
    sent = [_sent(file, tracking_uri, run_id) for file in [file.absolute() for file in files]]
    if not all(sent):
        ctx.exit(UNSENT)


def _sent(file: Path, tracking_uri: str | None, run_id: str | None) -> bool:
    from tfcheck.tracking import TrackingError, resend, server, spool

    server.limit_requests()
    try:
        content = spool.read(file)
        with contextlib.suppress(OSError):
            os.chdir(content.target.folder)  # what its settings are relative to
        run = resend(file, run_id, tracking_uri)
    except (TrackingError, ReportError) as error:
        if not file.exists():
            click.echo(f"Sent by the process that the training left: {file.name}.")
            return True
        click.echo(str(error), err=True)
        return False
    count = len(content.entries)
    click.echo(f"Sent: {count} check{'' if count == 1 else 's'} to run {run}.")
    return True
