"""`tfcheck audit`: check a saved model, or one that a function makes, on one batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from tfcheck.gradient_report import GradientReport
from tfcheck.judge.verdict import Verdict
from tfcheck.memory import size_of
from tfcheck.rendering.progress import progress_line
from tfcheck.scripts.check_options import check_options, checked_type, settings_from
from tfcheck.scripts.model_sources import load_model, model_source
from tfcheck.scripts.project_command import ProjectCommand
from tfcheck.scripts.record_options import record_options, records_from
from tfcheck.scripts.surroundings import import_quietly, require_tensorflow_backend

TRACEBACK = "tfcheck.traceback"
"""Key in click's `meta`: whether to show the traceback of what is refused."""

PASSED, FAILED, UNDECIDED = 0, 1, 3

_FILE = click.Path(path_type=Path)

_max_bytes = checked_type(lambda size: size_of("max-bytes", size), int)


def _files(_ctx: click.Context, _param: click.Parameter, begun: str) -> list[CompletionItem]:
    """Let the shell complete the names of files."""
    return [CompletionItem(begun, type="file")]


def _note_traceback(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    ctx.meta[TRACEBACK] = value


@click.command(
    cls=ProjectCommand,
    epilog="""
    \b
    Exit codes:
      0  no gradient is wrong (a suspect one is printed, and is no failure)
      1  a gradient is wrong
      2  there was nothing to check: wrong usage, or a model or batch that does not fit
      3  no gradient is wrong, but some could not be judged

    Once there is a verdict, the exit code is the verdict. A report that cannot be printed, written
    or logged is a warning.
    """,
)
@click.argument("model", shell_complete=_files)
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
@check_options
@click.option(
    "--max-bytes",
    type=_max_bytes,
    metavar="SIZE",
    default="2GB",
    show_default=True,
    help="Refuse a batch or a saved model that takes more memory.",
)
@record_options
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
    /,
    model: str,
    batch: Path,
    imports: tuple[str, ...],
    unsafe: bool,
    loss: str | None,
    max_bytes: int,
    **given: Any,
) -> None:
    """Check the gradients of MODEL on one batch.

    MODEL is a saved model (model.keras or model.h5), or a function without arguments that returns
    a compiled one: package.module:function or path/to/file.py:function.

    The batch is an npz file with the arrays x and, as the loss needs them, y and sample_weight.
    Several inputs are x/0, x/1, ... (a list) or x/left, x/right, ... (a dict); likewise y and
    sample_weight.

    Defaults of a project stand in [tool.tfcheck] of the nearest pyproject.toml.
    """
    from tfcheck.scripts.batch_files import read_batch

    # Whatever can be refused without loading TensorFlow is refused first.
    require_tensorflow_backend()
    source = model_source(model)
    settings = settings_from(given)
    records = records_from(given)
    arrays = read_batch(batch, max_bytes)

    verbose = int(not records.quiet)
    with progress_line("loading TensorFlow", title="", verbose=verbose, after=0) as progress:
        import_quietly()
        from tfcheck.checker import GradientChecker
        from tfcheck.trace.batch import first_batch

        progress("loading the model", 0, 0)
        model = load_model(source, imports, unsafe, loss, seed=settings.seed, max_bytes=max_bytes)
        checker = GradientChecker(model, settings, once=True)
        report = checker.check(first_batch(**arrays), progress=progress)

    records.keep(report)
    ctx.exit(exit_code(report))


def exit_code(report: GradientReport) -> int:
    """What the shell is told: a failure first, then whether anything is left undecided."""
    if report.verdict in (Verdict.FAIL, Verdict.ERROR):
        return FAILED
    undecided = report.verdict is Verdict.INCONCLUSIVE or report.count(Verdict.INCONCLUSIVE)
    return UNDECIDED if undecided else PASSED
