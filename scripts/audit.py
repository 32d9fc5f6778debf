"""`tfcheck audit`: check a saved model, or one that a function makes, on one batch."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tfcheck import settings as allowed
from tfcheck.errors import ArgumentError, TfcheckError, rule
from tfcheck.gradient_report import GradientReport
from tfcheck.judge.verdict import Thresholds, Verdict
from tfcheck.memory import size_of
from tfcheck.rendering.progress import progress_line
from tfcheck.scripts.model_sources import load_model, model_source
from tfcheck.scripts.records import Records
from tfcheck.scripts.surroundings import import_quietly, require_tensorflow_backend
from tfcheck.settings import Settings

TRACEBACK = "tfcheck.traceback"
"""Key in click's `meta`: whether to show the traceback of what is refused."""

PASSED, FAILED, UNDECIDED = 0, 1, 3

_DEFAULTS = Settings()
_FILE = click.Path(path_type=Path)


class OutputError(TfcheckError, OSError):
    """A file that was asked for cannot be written."""


def _checked(check: Callable[[Any], Any], convert: Callable[[str], Any]) -> Callable[[str], Any]:
    """A type for click: what is written is converted, if it can be, and then checked."""

    def take(text: str) -> Any:
        try:
            value: Any = convert(text)
        except ValueError:
            value = text
        try:
            return check(value)
        except ArgumentError as error:
            raise click.BadParameter(str(error)) from error

    return take


_epsilon = _checked(allowed.step, float)
_memory_limit = _checked(allowed.memory, int)
_time_limit = _checked(allowed.duration, float)
_max_bytes = _checked(lambda size: size_of("max-bytes", size), int)


def _note_traceback(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    ctx.meta[TRACEBACK] = value


@click.command(
    epilog="""
    \b
    Exit codes:
      0  no gradient is wrong (a suspect one is printed, and is no failure)
      1  a gradient is wrong
      2  there was nothing to check: wrong usage, or a model or batch that does not fit
      3  no gradient is wrong, but some could not be judged

    Once there is a verdict, the exit code is the verdict. A report that cannot be printed, written
    or logged is a warning.
    """
)
@click.argument("model")
@click.option("--batch", required=True, type=_FILE, metavar="FILE", help="The batch, an npz file.")
@click.option(
    "--import",
    "imports",
    multiple=True,
    metavar="MODULE",
    help="Import this first: it registers custom layers. Repeatable.",
)
@click.option("--unsafe", is_flag=True, help="Run Python code stored in MODEL (lambda layers).")
@click.option("--loss", metavar="NAME", help="Keras loss for a MODEL that is not compiled.")
@click.option(
    "--phase",
    type=click.Choice(["train", "inference"]),
    default=_DEFAULTS.phase,
    show_default=True,
    help="Differentiate the training step, or the loss at inference.",
)
@click.option(
    "--method",
    type=click.Choice(["directions", "full"]),
    default=_DEFAULTS.method,
    show_default=True,
    help="Random directions, or every entry (slow).",
)
@click.option(
    "--directions",
    type=click.IntRange(1, allowed.MOST_DIRECTIONS),
    metavar="N",
    default=_DEFAULTS.directions,
    show_default=True,
    help="Random directions a variable.",
)
@click.option(
    "--epsilon",
    type=_epsilon,
    metavar="NUMBER|auto",
    default=_DEFAULTS.epsilon,
    show_default=True,
    help="Step of the differences.",
)
@click.option(
    "--great",
    type=float,
    metavar="SCORE",
    default=_DEFAULTS.thresholds.great,
    show_default=True,
    help="Up to here the gradients are the same.",
)
@click.option(
    "--okay",
    type=float,
    metavar="SCORE",
    default=_DEFAULTS.thresholds.okay,
    show_default=True,
    help="Up to here they pass; above, they are suspect.",
)
@click.option(
    "--concerning",
    type=float,
    metavar="SCORE",
    default=_DEFAULTS.thresholds.concerning,
    show_default=True,
    help="From here on they fail.",
)
@click.option(
    "--expected-mismatch",
    multiple=True,
    metavar="PATTERN",
    help="Variables or layers whose gradient is meant to differ, such as 'gate/*'. Repeatable.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, allowed.LARGEST_SEED),
    metavar="N",
    default=_DEFAULTS.seed,
    show_default=True,
    help="Seeds the directions and a function's weights.",
)
@click.option(
    "--precision",
    type=float,
    metavar="SCORE",
    default=_DEFAULTS.precision,
    show_default=True,
    help="Name layers whose gradients in training are further than this from float64.",
)
@click.option(
    "--dropout",
    type=click.Choice(allowed.DROPOUT),
    default=_DEFAULTS.dropout,
    show_default=True,
    help="Silence dropout, or leave it on with its masks held fixed.",
)
@click.option(
    "--memory-limit",
    type=_memory_limit,
    metavar="SIZE|auto",
    default=_DEFAULTS.memory_limit,
    show_default=True,
    help="Memory for measuring, such as 2GB; auto is a quarter of what is free.",
)
@click.option(
    "--time-limit",
    type=_time_limit,
    metavar="DURATION",
    default=_DEFAULTS.time_limit,
    help="End then with what is known: seconds, or 500ms, 30s, 2m, 1h.  [default: no limit]",
)
@click.option(
    "--max-bytes",
    type=_max_bytes,
    metavar="SIZE",
    default="2GB",
    show_default=True,
    help="Refuse a batch or a saved model that takes more memory.",
)
@click.option("--json", "json_file", type=_FILE, metavar="FILE", help="Write the report as JSON.")
@click.option("--html", "html_file", type=_FILE, metavar="FILE", help="Write it as a web page.")
@click.option(
    "--reproduce",
    "folder",
    type=_FILE,
    metavar="FOLDER",
    help="Write a unit test of each wrong layer into this folder: it fails until that is mended.",
)
@click.option(
    "--mlflow", is_flag=True, help="Log it to MLflow: to MLFLOW_TRACKING_URI, or ./mlflow.db."
)
@click.option("--tracking-uri", metavar="URI", help="Log it to this MLflow.")
@click.option("--experiment", metavar="NAME", help="Log it to this MLflow experiment.")
@click.option("--all", "show_all", is_flag=True, help="Show every variable.")
@click.option("--quiet", is_flag=True, help="Print warnings only; the exit code tells.")
@click.option(
    "--traceback",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_note_traceback,
    help="When your code raises, show where.",
)
@click.pass_context
def audit(  # noqa: PLR0917 - click gives them by name
    ctx: click.Context,
    model: str,
    batch: Path,
    imports: tuple[str, ...],
    unsafe: bool,
    loss: str | None,
    phase: str,
    method: str,
    directions: int,
    epsilon: float | str,
    great: float,
    okay: float,
    concerning: float,
    expected_mismatch: tuple[str, ...],
    seed: int,
    precision: float,
    dropout: str,
    memory_limit: int | str,
    time_limit: float | None,
    max_bytes: int,
    json_file: Path | None,
    html_file: Path | None,
    folder: Path | None,
    mlflow: bool,
    tracking_uri: str | None,
    experiment: str | None,
    show_all: bool,
    quiet: bool,
) -> None:
    """Check the gradients of MODEL on one batch.

    MODEL is a saved model (model.keras or model.h5), or a function without arguments that returns
    a compiled one: package.module:function or path/to/file.py:function.

    The batch is an npz file with the arrays x and, as the loss needs them, y and sample_weight.
    Several inputs are x/0, x/1, ... (a list) or x/left, x/right, ... (a dict); likewise y and
    sample_weight.
    """
    from tfcheck.scripts.batch_files import read_batch

    # Whatever can be refused without loading TensorFlow is refused first.
    require_tensorflow_backend()
    source = model_source(model)
    settings = allowed.make_settings(
        phase=phase,
        method=method,
        directions=directions,
        epsilon=epsilon,
        thresholds=Thresholds(great, okay, concerning),
        expected_mismatch=expected_mismatch,
        seed=seed,
        precision=precision,
        dropout=dropout,
        memory_limit=memory_limit,
        time_limit=time_limit,
    )
    for file in (json_file, html_file):
        _require_writable(file)
    _require_folder(folder)
    arrays = read_batch(batch, max_bytes)

    verbose = int(not quiet)
    with progress_line("loading TensorFlow", title="", verbose=verbose, after=0) as progress:
        import_quietly()
        from tfcheck.checker import GradientChecker
        from tfcheck.trace.batch import first_batch

        progress("loading the model", 0, 0)
        model = load_model(source, imports, unsafe, loss, seed=seed, max_bytes=max_bytes)
        checker = GradientChecker(model, settings, once=True)
        report = checker.check(first_batch(**arrays), progress=progress)

    logged = mlflow or bool(tracking_uri or experiment)
    records = Records(
        json_file, html_file, folder, logged, tracking_uri, experiment, show_all, quiet
    )
    records.keep(report)
    ctx.exit(exit_code(report))


def exit_code(report: GradientReport) -> int:
    """What the shell is told: a failure first, then whether anything is left undecided."""
    if report.verdict in (Verdict.FAIL, Verdict.ERROR):
        return FAILED
    undecided = report.verdict is Verdict.INCONCLUSIVE or report.count(Verdict.INCONCLUSIVE)
    return UNDECIDED if undecided else PASSED


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
