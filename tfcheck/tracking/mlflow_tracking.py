"""Reports into MLflow while a model trains, without ever stopping or blocking the training."""

from __future__ import annotations

import atexit
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tfcheck.report import GradientReport, Settings
from tfcheck.tracking import run_choice, server, spool
from tfcheck.tracking.run_log import RunLog, TrackingError
from tfcheck.tracking.spool import Entry

_logger = logging.getLogger("tfcheck.tracking")


class MlflowTracking:
    """Gradient checks of one training in MLflow.

    Everything needed is logged at every check, because Keras does not call `on_train_end` after
    an exception or Ctrl-C. Nothing here raises: trouble is one warning of the logger
    `"tfcheck.tracking"`. When the server is away, reports wait in a local file and are logged
    at the first later check that finds it.

    Args:
        run_id: the run to log to. Defaults to the active run, else a new run, which is ended by
            `close`.

    Attributes:
        run_id: the run logged to; None before `start`, and until a new run could be made.

    Example:
        >>> tracking = MlflowTracking()
        >>> tracking.start(settings)  # doctest: +SKIP
        >>> tracking.log([first_report])  # doctest: +SKIP
        >>> tracking.log([first_report, second_report])  # doctest: +SKIP
        >>> tracking.close()  # doctest: +SKIP
    """

    def __init__(self, run_id: str | None = None) -> None:
        self._asked_for = run_id
        self._own = False
        self._forget()

    def start(self, settings: Settings | None = None) -> None:
        """Choose the run, and log the options of the checks.

        Call it on the thread that trains, when training begins.

        Args:
            settings: the options, as far as they are known. Those that are not follow with the
                first report.
        """
        if self._own:
            self.close("FAILED")  # the training before this one was interrupted
        self._forget()
        self._guarded(lambda: self._begin(settings))

    def log(self, reports: Sequence[GradientReport]) -> None:
        """Log the reports that are not logged yet.

        Args:
            reports: every report of this training so far, oldest first.
        """
        now = time.time_ns() // 1_000_000
        for report in reports[len(self._entries) :]:
            self._entries.append(Entry(report, now))
        self._guarded(self._follow_active_run)
        self._guarded(self._send)
        self._keep_waiting_reports()

    def close(self, status: str = "FINISHED") -> None:
        """Log what still waits, and end the run if it is our own.

        Args:
            status: MLflow's word for how training ended: `"FINISHED"`, `"FAILED"` or `"KILLED"`.
        """
        self._guarded(self._follow_active_run)
        if self._waiting:
            self._guarded(self._send)
            self._keep_waiting_reports()
        if self._waiting and self._spool is not None:
            _logger.warning(
                "%d gradient checks did not reach MLflow. They are kept in %s; "
                "`tfcheck.tracking.resend` logs them later.",
                self._waiting,
                self._spool,
            )
        if self._own:
            self._guarded(lambda: self._end(status))
        atexit.unregister(self._abandon)
        self._own = False

    @property
    def _waiting(self) -> int:
        return len(self._entries) - (self._log.logged if self._log else 0)

    def _forget(self) -> None:
        self.run_id = self._asked_for
        self._client: Any = None
        self._uri = ""
        self._experiment_id: str | None = None
        self._own = False
        self._log: RunLog | None = None
        self._settings: Settings | None = None
        self._entries: list[Entry] = []
        self._upload: server.Upload | None = None
        self._spool: Path | None = None
        self._warned: set[str] = set()

    def _begin(self, settings: Settings | None) -> None:
        import mlflow

        self._uri = mlflow.get_tracking_uri()
        self._client = mlflow.MlflowClient(self._uri)
        self._settings = settings
        choice = run_choice.choose(self._asked_for)
        self.run_id, self._experiment_id = choice.run_id, choice.experiment_id
        self._own = choice.run_id is None
        if self._own:
            atexit.register(self._abandon)
        self._send()

    def _follow_active_run(self) -> None:
        """Move to a run that was started after ours: the loss goes there.

        `mlflow.keras.MlflowCallback` starts one when it is listed after the gradient check and no
        run is active.
        """
        if not self._own or self._client is None:
            return
        active = run_choice.active_run_id()
        if active is None or active == self.run_id:
            return
        abandoned, self.run_id = self.run_id, active
        self._own = False
        self._log = None  # so that everything is logged again, there
        atexit.unregister(self._abandon)
        if abandoned is not None and self._is_server_there():
            self._bounded(lambda: self._client.delete_run(abandoned))

    def _send(self) -> None:
        """Put everything that waits into MLflow, if it is there."""
        if self._client is None or not self._is_server_there():
            return
        entries = tuple(self._entries)
        self._bounded(lambda: self._write(entries))

    def _write(self, entries: tuple[Entry, ...]) -> None:
        if self.run_id is None and self._experiment_id is not None:
            self.run_id = run_choice.make_run(self._client, self._experiment_id)
        if self.run_id is None:
            return
        if self._log is None:
            self._log = RunLog(self._client, self.run_id)
        if self._settings is not None:
            self._log.write_settings(self._settings)
            self._settings = None
        if len(entries) > self._log.logged:
            for problem in self._log.write(entries):
                self._warn(
                    f"A part of the gradient check is missing in MLflow. {_described(problem)}"
                )

    def _end(self, status: str) -> None:
        if self.run_id is not None and self._client is not None and self._is_server_there():
            run_id = self.run_id
            self._bounded(lambda: self._client.set_terminated(run_id, status))

    def _abandon(self) -> None:
        """At exit of an interrupted training. No thread can be started any more by then."""
        if self.run_id is None or not server.answers(self._uri, server.PROBE_SECONDS):
            return
        try:
            self._client.set_terminated(self.run_id, "FAILED")
        except Exception as error:  # noqa: BLE001 - nobody is left to handle it
            _logger.debug("The run could not be ended: %s", error)

    def _is_server_there(self) -> bool:
        if self._upload is not None and self._upload.running:
            return False
        if server.answers(self._uri, server.PROBE_SECONDS):
            return True
        self._warn_away(f"did not answer within {server.PROBE_SECONDS:g} s")
        return False

    def _bounded(self, work: Callable[[], None]) -> None:
        if server.is_local(self._uri):
            work()
            return
        self._upload = server.Upload(work)
        if not self._upload.wait(server.UPLOAD_SECONDS):
            self._warn_away(f"is still busy after {server.UPLOAD_SECONDS:g} s")

    def _keep_waiting_reports(self) -> None:
        def keep() -> None:
            if self._waiting:
                name = f"gradcheck-waiting-{self.run_id or self._entries[0].made_at}.jsonl"
                path = self._spool or Path(name)
                waiting = self._entries[len(self._entries) - self._waiting :]
                self._spool = spool.write(path, waiting, self.run_id)
            elif self._spool is not None:
                self._spool.unlink(missing_ok=True)
                self._spool = None

        if self._entries:
            self._guarded(keep)

    def _guarded(self, action: Callable[[], None]) -> None:
        """Training goes on whatever happens to its records."""
        try:
            action()
        except Exception as error:  # noqa: BLE001 - said once, below
            self._warn(f"Gradient checks are not logged to MLflow. {_described(error)}")

    def _warn_away(self, what: str) -> None:
        self._warn(
            f"MLflow at {_without_password(self._uri)} {what}: training goes on, and its "
            "gradient checks are kept and logged when it is back."
        )

    def _warn(self, message: str) -> None:
        if message not in self._warned and len(self._warned) < 3:
            self._warned.add(message)
            _logger.warning("%s", message)


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
        run_name: name of a new run. Defaults to one that MLflow makes up.

    Returns:
        The id of the run logged to.

    Raises:
        TrackingError: if MLflow is away, or does not take the report.
    """
    return _log_now([Entry(report, time.time_ns() // 1_000_000)], run_id, experiment, run_name)


def resend(path: str | Path, run_id: str | None = None) -> str:
    """Log reports that waited in a file while MLflow was away, and delete the file.

    Args:
        path: the file; the warning named it.
        run_id: the run to log to. Defaults to the one the reports were made for, else a new one.

    Returns:
        The id of the run logged to.

    Raises:
        ReportError: if the file is not one of waiting reports.
        TrackingError: if MLflow is away, or does not take the reports.
    """
    meant_for, entries = spool.read(path)
    logged_to = _log_now(entries, run_id or meant_for)
    Path(path).unlink()
    return logged_to


def _log_now(
    entries: Sequence[Entry],
    run_id: str | None,
    experiment: str | None = None,
    run_name: str | None = None,
) -> str:
    try:
        import mlflow

        uri = mlflow.get_tracking_uri()
        if not server.answers(uri, server.PROBE_SECONDS):
            raise TrackingError(
                "MLflow must be there to log a report. Received: "
                f"tracking_uri={_without_password(uri)!r}, which does not answer. "
                "Start the server, or set MLFLOW_TRACKING_URI."
            )
        client = mlflow.MlflowClient(uri)
        existing = run_id or (None if experiment else run_choice.choose(None).run_id)
        target = existing or run_choice.make_run(
            client, _experiment_id(client, experiment), run_name
        )
        problems = RunLog(client, target).write(entries)
        if existing is None:
            client.set_terminated(target)
    except TrackingError:
        raise
    except Exception as error:
        raise TrackingError(f"MLflow did not take the report. {_described(error)}") from error
    if problems:
        _logger.warning(
            "A part of the gradient check is missing in MLflow. %s", _described(problems[0])
        )
    return target


def _experiment_id(client: Any, name: str | None) -> str:
    if name is None:
        return run_choice.current_experiment_id()
    found = client.get_experiment_by_name(name)
    return str(client.create_experiment(name) if found is None else found.experiment_id)


def _described(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}"


def _without_password(uri: str) -> str:
    """A tracking URI may hold a user name and a password; a warning must not."""
    scheme, separator, rest = uri.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}" if separator else uri
