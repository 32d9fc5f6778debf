"""`tfcheck history` and `tfcheck compare`: what changed from run to run, and since when."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tfcheck.errors import TfcheckError, first_line
from tfcheck.scripts.stores import read_store, records_of, store_option
from tfcheck.scripts.surroundings import output_given_up, standard_output

if TYPE_CHECKING:
    from tfcheck.tracking import History

_FILE = click.Path(dir_okay=False, path_type=Path)


class OutputError(TfcheckError, OSError):
    """A file that was asked for cannot be written."""


def _outputs(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that both have: where to look, and what to write."""
    for option in reversed(
        [
            store_option,
            click.option("--html", type=_FILE, metavar="FILE", help="Write it as a page."),
            click.option("--json", "json_file", type=_FILE, metavar="FILE", help="Write as JSON."),
            click.option("--all", "show_all", is_flag=True, help="Print every layer."),
        ]
    ):
        command = option(command)
    return command


@click.command()
@click.argument("experiment", required=False)
@click.option(
    "--last",
    type=click.IntRange(1, 1000),
    default=20,
    show_default=True,
    help="So many of the newest runs that were checked.",
)
@_outputs
def history(experiment: str | None, last: int, tracking_uri: str | None, **outputs: Any) -> None:
    """Show what regressed and what was fixed in the runs of an EXPERIMENT, and since when.

    EXPERIMENT is a name or an id. Defaults to MLFLOW_EXPERIMENT_NAME, else to the experiment with
    the latest gradient check.
    """
    from tfcheck.tracking import history as past

    with records_of(read_store(tracking_uri)) as uri:
        _show(past(experiment, last=last, tracking_uri=uri), **outputs)


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN [RUN]...")
@click.option("--base", metavar="RUN", help="Compare all with this run.")
@_outputs
def compare(
    runs: tuple[str, ...], base: str | None, tracking_uri: str | None, **outputs: Any
) -> None:
    """Compare RUNs: layers, the batch, what is declared, parameters, versions and the code.

    RUN is an id, the beginning of one, or a name. All are compared with the first; a single one
    with the last run of its experiment before it that passed.
    """
    from tfcheck.tracking import compare as compared

    with records_of(read_store(tracking_uri)) as uri:
        _show(compared(*runs, base=base, tracking_uri=uri), **outputs)


def _show(found: History, html: Path | None, json_file: Path | None, show_all: bool) -> None:
    from tfcheck.rendering.console import print_timeline

    if html is not None:
        _written(html, lambda: found.save_html(html))
    if json_file is not None:
        content = json.dumps(found.to_dict(), indent=1, allow_nan=False)
        _written(json_file, lambda: json_file.write_text(content, encoding="utf-8"))
    try:
        print_timeline(found, standard_output(), show_all)
    except BrokenPipeError:  # such as that of `| head`: whoever read has seen enough
        output_given_up()


def _written(file: Path, write: Callable[[], object]) -> None:
    try:
        write()
    except OSError as error:
        raise OutputError(
            "A file to write to must be in a folder that can be written. Received: "
            f"{str(file)!r} ({first_line(error)}). Name another file."
        ) from error
