"""What becomes of an audit's report: printed, written to files, logged to MLflow.

By then the verdict is known, and nothing that happens here changes it: whatever cannot be done is
a warning on standard error, and everything else is done all the same.
"""

from __future__ import annotations

import logging
import shlex
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import click

from tfcheck.errors import TfcheckError, first_line
from tfcheck.gradient_report import GradientReport
from tfcheck.scripts.surroundings import command_name, output_given_up, standard_output

MLFLOW_SECONDS = 30.0
"""How long MLflow may take: a server or a database that hangs does so for many minutes."""


@dataclass(frozen=True, slots=True)
class Records:
    """What was asked for.

    Attributes:
        json_file: the report as JSON.
        html_file: the report as a page.
        junit_file: the report as JUnit XML.
        folder: where unit tests of the culprits are written.
        github: print annotations for GitHub Actions, whether quiet or not.
        mlflow: whether to log it to MLflow.
        tracking_uri: which MLflow; None for the current one.
        experiment: which experiment; None for the current one.
        show_all: print every variable.
        quiet: print nothing but warnings.
    """

    json_file: Path | None = None
    html_file: Path | None = None
    junit_file: Path | None = None
    folder: Path | None = None
    github: bool = False
    mlflow: bool = False
    tracking_uri: str | None = None
    experiment: str | None = None
    show_all: bool = False
    quiet: bool = False

    def keep(self, report: GradientReport) -> None:
        """Print, write and log the report."""
        if not self.quiet:
            _printed(lambda: _print(report, self.show_all))
        if (json_file := self.json_file) is not None:
            self._kept("written", lambda: _saved(report, json_file))
        if (html_file := self.html_file) is not None:
            self._kept("written", lambda: _saved_page(report, html_file))
        if (junit_file := self.junit_file) is not None:
            self._kept("written", lambda: _saved_junit(report, junit_file))
        if self.github:
            _printed(lambda: _annotated(report))
        if self.folder is not None:
            self._reproduced(report, self.folder)
        if self.mlflow:
            self._kept(
                "logged to MLflow", lambda: _logged(report, self.tracking_uri, self.experiment)
            )

    def _reproduced(self, report: GradientReport, folder: Path) -> None:
        """Write a unit test of each culprit; say how to run them, and of which there is none."""
        tests: list[str] = []
        for evidence in report.evidence:
            try:
                tests.append(shlex.quote(str(evidence.save(folder))))
            except Exception as error:  # noqa: BLE001 - said, and the exit code is the verdict
                warn(f"There is no test of {evidence.culprit}. {_reason(error)}")
        said = "There is nothing to reproduce: no layer is to blame."
        if tests:
            said = f"Written: {', '.join(tests)}. Run what fails until it is mended:\n\n"
            said += f"    python -m pytest {' '.join(tests)}\n"
        if (tests or not report.culprits) and not self.quiet:
            _printed(lambda: click.echo(f"  {said}"))

    def _kept(self, how: str, work: Callable[[], str]) -> None:
        try:
            said = work()
        except Exception as error:  # noqa: BLE001 - said, and the exit code is the verdict
            warn(f"The report is not {how}, but the verdict stands. {_reason(error)}")
            return
        if not self.quiet:
            _printed(lambda: click.echo(f"  {said}"))


def _printed(write: Callable[[], None]) -> None:
    try:
        write()
    except BrokenPipeError:  # such as that of `| head`: whoever read has seen enough
        output_given_up()
    except Exception as error:  # noqa: BLE001 - said, and the exit code is the verdict
        output_given_up()
        warn(f"The report cannot be printed, but the verdict stands. {_reason(error)}")


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, TfcheckError) else first_line(error)


def warn(text: str) -> None:
    """Say something on standard error, if anybody can still be told."""
    with suppress(OSError, ValueError):
        click.echo(f"Warning: {text.rstrip('.')}.", err=True)


def _print(report: GradientReport, show_all: bool) -> None:
    from tfcheck.rendering.console import print_report

    print_report(report, standard_output(), show_all)
    click.echo()


def _saved(report: GradientReport, file: Path) -> str:
    report.save(file)
    return f"Written: {file}"


def _saved_page(report: GradientReport, file: Path) -> str:
    from tfcheck.rendering.html import report_page

    file.write_text(report_page([report]), encoding="utf-8")
    return f"Written: {file}"


def _saved_junit(report: GradientReport, file: Path) -> str:
    from tfcheck.scripts.junit import write_junit

    write_junit(report, file)
    return f"Written: {file}"


def _annotated(report: GradientReport) -> None:
    from tfcheck.scripts.annotations import annotations_of

    for annotation in annotations_of(report):
        click.echo(str(annotation))


def _logged(report: GradientReport, tracking_uri: str | None, experiment: str | None) -> str:
    import mlflow

    from tfcheck.scripts.new_store import made_by_one
    from tfcheck.tracking import log_report

    if tracking_uri is not None:
        mlflow.set_tracking_uri(tracking_uri)

    def log() -> str:
        made_by_one(experiment)
        return log_report(report, experiment=experiment, run_name=f"audit of {report.model}")

    run_id = _within(MLFLOW_SECONDS, log)
    # A URI may hold a password, which must not go into the log of a build.
    place = f" {shlex.quote(tracking_uri)}" if tracking_uri and "@" not in tracking_uri else ""
    return f"Logged to MLflow, run {run_id}. Look at it: {command_name()} ui{place}"


def _within(seconds: float, work: Callable[[], str]) -> str:
    """What the work returns or raises, or a `TimeoutError`; then it is left behind.

    On a thread that ends with the process: one of a pool would be waited for.
    """
    outcome: list[str | Exception] = []

    def run() -> None:
        try:
            outcome.append(work())
        except Exception as error:  # noqa: BLE001 - raised by the waiting thread
            outcome.append(error)

    thread = threading.Thread(target=run, name="tfcheck-log", daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        logging.disable()  # what it still has to say would come after the end
        raise TimeoutError(f"MLflow is not done after {seconds:g} s.")
    (found,) = outcome
    if isinstance(found, Exception):
        raise found
    return found
