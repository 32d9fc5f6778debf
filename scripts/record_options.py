"""What shall become of an audit's report, as options of the command line."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from tfcheck.errors import TfcheckError, rule
from tfcheck.scripts.records import Records

_FILE = click.Path(path_type=Path)


class OutputError(TfcheckError, OSError):
    """A file that was asked for cannot be written."""


_OPTIONS = (
    click.option(
        "--json", "json_file", type=_FILE, metavar="FILE", help="Write the report as JSON."
    ),
    click.option("--html", "html_file", type=_FILE, metavar="FILE", help="Write it as a web page."),
    click.option(
        "--junit",
        "junit_file",
        type=_FILE,
        metavar="FILE",
        help="Write it as JUnit XML: a test for each variable.",
    ),
    click.option(
        "--reproduce",
        "folder",
        type=_FILE,
        metavar="FOLDER",
        help="Write a unit test of each wrong layer into this folder: it fails until mended.",
    ),
    click.option(
        "--github",
        is_flag=True,
        help="Print what is wrong as annotations of GitHub Actions, with file and line.",
    ),
    click.option(
        "--github-auto", is_flag=True, help="The same, but only where GITHUB_ACTIONS is set."
    ),
    click.option(
        "--mlflow", is_flag=True, help="Log it to MLflow: to MLFLOW_TRACKING_URI, or ./mlflow.db."
    ),
    click.option("--tracking-uri", metavar="URI", help="Log it to this MLflow."),
    click.option("--experiment", metavar="NAME", help="Log it to this MLflow experiment."),
    click.option("--all", "show_all", is_flag=True, help="Show every variable."),
    click.option("--quiet", is_flag=True, help="Print warnings only; the exit code tells."),
)


def record_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say what becomes of its report."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def records_from(given: Mapping[str, Any]) -> Records:
    """What the options ask for, if it can be written where it shall be.

    Args:
        given: the values of all options, by name. Others among them stand aside.

    Raises:
        OutputError: for a file or folder that cannot be written.
    """
    for name in ("json_file", "html_file", "junit_file"):
        _require_writable(given[name])
    _require_folder(given["folder"])
    in_actions = os.environ.get("GITHUB_ACTIONS") == "true"
    return Records(
        json_file=given["json_file"],
        html_file=given["html_file"],
        junit_file=given["junit_file"],
        folder=given["folder"],
        github=given["github"] or (given["github_auto"] and in_actions),
        mlflow=given["mlflow"] or bool(given["tracking_uri"] or given["experiment"]),
        tracking_uri=given["tracking_uri"],
        experiment=given["experiment"],
        show_all=given["show_all"],
        quiet=given["quiet"],
    )


def _require_writable(file: Path | None) -> None:
    if file is None:
        return
    folder = file.absolute().parent
    if file.is_dir() or not folder.is_dir():
        raise OutputError(
            rule("A report is a file in a folder that exists", "file", str(file), "Make the folder")
        )
    if not os.access(file if file.exists() else folder, os.W_OK):
        raise OutputError(rule("A report must be writable", "file", str(file), "Name another file"))


def _require_folder(folder: Path | None) -> None:
    """Refuse a folder that is none, or that cannot be made or written to."""
    if folder is None:
        return
    path = folder.absolute()
    there = next(place for place in (path, *path.parents) if place.exists())
    try:
        # Asking for permission is not enough: a file system may be read-only, or none at all.
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        raise OutputError(
            rule(
                "Tests must be written to a folder",
                "folder",
                str(folder),
                "Name one that can be made and written to",
            )
        ) from error
