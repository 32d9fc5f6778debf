"""Sending now, and saying whether it arrived: a single report, or what waits in files."""

from __future__ import annotations

import logging
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from tfcheck.errors import ReportError, TfcheckError
from tfcheck.gradient_report import GradientReport
from tfcheck.tracking import (
    destination,
    new_database,
    progress,
    schema,
    server,
    spool,
    surroundings,
)
from tfcheck.tracking.attachments import attachments
from tfcheck.tracking.delivery import Delivery
from tfcheck.tracking.progress import Progress
from tfcheck.tracking.run_log import RunLog
from tfcheck.tracking.spool import Content, Entry

WAIT_SECONDS = 130.0
"""So long does a process that had to give up a training go on trying, and a little more."""

_POLL_SECONDS = 0.2

_logger = logging.getLogger("tfcheck.tracking")


class TrackingError(TfcheckError, RuntimeError):
    """A report could not be put into MLflow, or MLflow could not be asked."""


def log_report(
    report: GradientReport,
    run_id: str | None = None,
    experiment: str | None = None,
    run_name: str | None = None,
) -> str:
    """Log a single report, as `tfcheck audit --mlflow` does. Unlike in training, trouble raises.

    Args:
        report: the report.
        run_id: the run to log to. Defaults to the active run, else a new one, which is ended.
        experiment: name of the experiment for a new run; made if there is none. Defaults to the
            current experiment.
        run_name: name of a new run. Defaults to the model's name and some digits.

    Returns:
        The id of the run logged to.

    Raises:
        TrackingError: if MLflow is away, or does not take the report.
    """
    import mlflow

    uri = str(mlflow.get_tracking_uri())
    trouble = _trouble(uri)
    if trouble:
        raise TrackingError(
            "MLflow must be there to log a report. Received: "
            f"tracking_uri={server.without_password(uri)!r}, which {trouble}. "
            "Start the server, or set MLFLOW_TRACKING_URI."
        )
    target = surroundings.target(
        run_id, schema.FIRST, report.model or "report", surroundings.versions()
    )
    entry = Entry(report, target.made_at, attachments(report))
    content = Content(target, (entry,))
    try:
        return _log_now(mlflow.MlflowClient(uri), content, run_id, experiment, run_name)
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise TrackingError(f"MLflow did not take the report. {text[:300]}") from error


def _trouble(uri: str) -> str:
    try:
        return server.trouble(uri) or new_database.prepare(uri)
    except Exception as error:  # noqa: BLE001 - told by the caller
        return server.said(error)


def _log_now(
    client: Any,
    content: Content,
    run_id: str | None,
    experiment: str | None,
    run_name: str | None,
) -> str:
    target = content.target
    if experiment and run_id is None:
        found = destination.named_experiment(client, experiment)
        target = replace(target, run_id=None, experiment_id=found, experiment_name="")
    target = replace(target, run_name=run_name or target.run_name)
    content = replace(content, target=target)
    now = destination.settled(client, content, Progress(tags=destination.tags_of(target)))
    log = RunLog(client, str(now.run_id), target.name)
    now = replace(now, **log.write_numbers(content, now))
    try:
        now = replace(now, **log.place_files(content, now))
        log.write_files(content, now)
        log.prepare_views(content, now)
    except Exception as error:  # noqa: BLE001 - the numbers are there
        _logger.warning("Pictures and tables are missing in MLflow, which %s.", server.said(error))
    if now.own:
        client.set_terminated(now.run_id)
    return str(now.run_id)


def resend(path: str | Path, run_id: str | None = None, tracking_uri: str | None = None) -> str:
    """Send what waits in a file, end the run if it was ours, and delete the file.

    The file stays where not everything arrived, also where only pictures are missing.

    Args:
        path: the file; the warning named it.
        run_id: the run to log to. Defaults to the one the checks were made for.
        tracking_uri: where to send to. Defaults to where they were meant for, or, with a
            `run_id`, to the current one.

    Returns:
        The id of the run logged to.

    Raises:
        ReportError: if the file is not one of waiting checks.
        TrackingError: if not everything arrived, if another process is sending the file, or if
            its training goes on.
    """
    path = Path(path).absolute()
    _refuse_while_training(path)
    if run_id is not None and tracking_uri is None:
        import mlflow

        tracking_uri = str(mlflow.get_tracking_uri())
    limit = time.monotonic() + WAIT_SECONDS
    sent_to = progress.load(path).run_id
    while True:
        try:
            delivery = Delivery(path, tracking_uri, run_id)
            break
        except BlockingIOError as error:
            if time.monotonic() > limit:
                raise TrackingError(
                    "A file of waiting checks is sent by one process at a time. Received: "
                    f"path={str(path)!r}, which another is sending. Try again later."
                ) from error
        except ReportError:
            # Perhaps it has been sent by the process that had it.
            sent_to = progress.load(path).run_id or sent_to
            if sent_to is None or path.exists():
                raise
            return sent_to
        sent_to = progress.load(path).run_id or sent_to
        time.sleep(_POLL_SECONDS)
    try:
        return _send_all(delivery)
    finally:
        delivery.close()


def _send_all(delivery: Delivery) -> str:
    if not delivery.content.ended:
        spool.end(delivery.path, "KILLED")
    delivery.send_numbers()
    delivery.send_files()
    delivery.conclude(delivery.content.lines)
    now = delivery.progress
    if not now.done:
        entries = len(delivery.content.entries)
        raise TrackingError(
            "MLflow must take everything before a file of waiting checks is deleted. Received: "
            f"numbers of {now.numbers} and pictures of {now.files} of {entries} checks; MLflow at "
            f"{now.tracking_uri} {now.trouble or 'is still busy'}. Send the file again later."
        )
    progress.forget(delivery.path)
    return str(now.run_id)


def _refuse_while_training(path: Path) -> None:
    content = spool.read(path)
    if not content.ended and _is_training(content.target):
        raise TrackingError(
            "A file of waiting checks can be sent when its training has ended. Received: "
            f"path={str(path)!r}, whose training goes on as process {content.target.process}. "
            "It sends them itself."
        )


def _is_training(target: spool.RunTarget) -> bool:
    if target.host != socket.gethostname():
        return False
    try:
        began = psutil.Process(target.process).create_time()
    except psutil.Error:
        return False
    return began * 1000 <= target.made_at <= time.time() * 1000  # else the number was given anew
