"""`tfcheck audit`: check a saved model, or one that a function makes, on one batch."""

from __future__ import annotations

import math
import shlex
from pathlib import Path

import click

from tfcheck.errors import ArgumentError, TfcheckError, rule
from tfcheck.memory import bytes_of
from tfcheck.progress import progress_line
from tfcheck.report import GradientReport, Settings
from tfcheck.scripts.audit_inputs import load_model, model_source, read_batch
from tfcheck.scripts.surroundings import (
    command_name,
    import_quietly,
    require_tensorflow_backend,
    standard_output,
)
from tfcheck.verdict import Thresholds, Verdict

TRACEBACK = "tfcheck.traceback"
"""Key in click's `meta`: whether to show the traceback of what is refused."""

PASSED, FAILED, UNDECIDED = 0, 1, 3

_DEFAULTS = Settings()
_FILE = click.Path(path_type=Path)


class OutputError(TfcheckError, OSError):
    """A file that was asked for cannot be written."""


def _epsilon(text: str) -> float | str:
    """`auto`, or a positive number."""
    if text == "auto":
        return text
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise click.BadParameter(f"{text!r} is neither 'auto' nor a positive number.")
    return number


def _memory_limit(text: str) -> int | str:
    """`auto`, a number of bytes, or a size with its unit."""
    limit = int(text) if text.isdecimal() else text
    if limit != "auto":
        try:
            bytes_of(limit)
        except ArgumentError as error:
            raise click.BadParameter(str(error)) from error
    return limit


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
    type=click.IntRange(min=1),
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
    type=click.IntRange(min=0),
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
    "--memory-limit",
    type=_memory_limit,
    metavar="SIZE|auto",
    default=_DEFAULTS.memory_limit,
    show_default=True,
    help="Memory for measuring, such as 2GB; auto is a quarter of what is free.",
)
@click.option("--json", "json_file", type=_FILE, metavar="FILE", help="Write the report as JSON.")
@click.option("--html", "html_file", type=_FILE, metavar="FILE", help="Write it as a web page.")
@click.option(
    "--mlflow", is_flag=True, help="Log it to MLflow: to MLFLOW_TRACKING_URI, or ./mlflow.db."
)
@click.option("--tracking-uri", metavar="URI", help="Log it to this MLflow.")
@click.option("--experiment", metavar="NAME", help="Log it to this MLflow experiment.")
@click.option("--all", "show_all", is_flag=True, help="Show every variable.")
@click.option("--quiet", is_flag=True, help="Print no report; the exit code tells.")
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
    memory_limit: int | str,
    json_file: Path | None,
    html_file: Path | None,
    mlflow: bool,
    tracking_uri: str | None,
    experiment: str | None,
    show_all: bool,
    quiet: bool,
) -> None:
    """Check the gradients of MODEL on one batch.

    MODEL is a saved model (model.keras), or a function without arguments that returns a compiled
    one: package.module:function or path/to/file.py:function.

    The batch is an npz file with the arrays x and, as the loss needs them, y and sample_weight.
    Several inputs are x/0, x/1, ... (a list) or x/left, x/right, ... (a dict); likewise y and
    sample_weight.
    """
    # Whatever can be refused without loading TensorFlow is refused first.
    require_tensorflow_backend()
    source = model_source(model)
    arrays = read_batch(batch)
    thresholds = Thresholds(great, okay, concerning)
    for file in (json_file, html_file):
        _require_writable(file)

    with progress_line("loading TensorFlow", title="", after=0) as progress:
        import_quietly()
        from tfcheck.batch import first_batch
        from tfcheck.check import GradientChecker
        from tfcheck.preconditions import make_settings

        settings = make_settings(
            phase=phase,
            method=method,
            directions=directions,
            epsilon=epsilon,
            thresholds=thresholds,
            expected_mismatch=expected_mismatch,
            seed=seed,
            precision=precision,
            memory_limit=memory_limit,
        )
        progress("loading the model", 0, 0)
        model = load_model(source, imports, unsafe, loss, seed)
        checker = GradientChecker(model, settings, once=True)
        report = checker.check(first_batch(**arrays), progress=progress)

    _show(report, show_all, quiet)
    said = [*_written(report, json_file, html_file)]
    if mlflow or tracking_uri or experiment:
        said.append(_logged(report, tracking_uri, experiment))
    if not quiet:
        for line in said:
            click.echo(line)
    ctx.exit(exit_code(report))


def exit_code(report: GradientReport) -> int:
    """What the shell is told: a failure first, then whether anything is left undecided."""
    if report.verdict in (Verdict.FAIL, Verdict.ERROR):
        return FAILED
    undecided = report.verdict is Verdict.INCONCLUSIVE or report.count(Verdict.INCONCLUSIVE)
    return UNDECIDED if undecided else PASSED


def _require_writable(file: Path | None) -> None:
    if file is not None and (file.is_dir() or not file.absolute().parent.is_dir()):
        raise OutputError(
            rule("A report is a file in a folder that exists", "file", str(file), "Make the folder")
        )


def _show(report: GradientReport, show_all: bool, quiet: bool) -> None:
    from tfcheck.rendering.console import print_report

    if not quiet:
        print_report(report, standard_output(), show_all)
        click.echo()


def _written(report: GradientReport, json_file: Path | None, html_file: Path | None) -> list[str]:
    written = []
    try:
        if json_file is not None:
            report.save(json_file)
            written.append(f"  Written: {json_file}")
        if html_file is not None:
            from tfcheck.rendering.html import report_page

            html_file.write_text(report_page([report]), encoding="utf-8")
            written.append(f"  Written: {html_file}")
    except OSError as error:
        raise OutputError(
            f"A report must be writable. Received: {error}. Name another file."
        ) from error
    return written


def _logged(report: GradientReport, tracking_uri: str | None, experiment: str | None) -> str:
    import mlflow

    from tfcheck.tracking import log_report

    if tracking_uri is not None:
        mlflow.set_tracking_uri(tracking_uri)
    name = f"audit of {report.model}"
    run_id = log_report(report, experiment=experiment, run_name=name)
    # A URI may hold a password, which must not go into the log of a build.
    place = f" {shlex.quote(tracking_uri)}" if tracking_uri and "@" not in tracking_uri else ""
    return f"  Logged to MLflow, run {run_id}. Look at it: {command_name()} ui{place}"
