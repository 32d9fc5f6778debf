"""Measure tfcheck and its peers side by side, on the same models and in one run.

    python -m tfcheck.scripts.bench

PyTorch and JAX are measured where they are installed: pip install -e ".[bench]".
"""

from __future__ import annotations

import datetime
import shlex
import time
from pathlib import Path

import click
from rich.console import Console

from tfcheck.scripts.bench import (
    coordinates,
    depth,
    directions,
    forward,
    growth,
    machine,
    memory,
    networks,
    plots,
    steps,
    table,
    tracing,
)
from tfcheck.scripts.bench.cases import FULL, QUICK, Effort
from tfcheck.scripts.bench.results import Row, Section, Subject, merge

COMMAND = "python -m tfcheck.scripts.bench"
WIDTH_WITHOUT_TERMINAL = 140
SUBJECTS = {
    module.SUBJECT.name: module.SUBJECT
    for module in (
        coordinates,
        directions,
        forward,
        tracing,
        steps,
        memory,
        networks,
        depth,
        growth,
    )
}


def measure(
    subject: Subject, effort: Effort, command: str, load: float | None, console: Console
) -> Section:
    """Measure all rows of a subject.

    Args:
        subject: what.
        effort: how thoroughly.
        command: how the benchmark was called, for the record.
        load: the load average before the first section.
        console: shows how it goes on.
    """
    started = time.perf_counter()
    rows: list[Row] = []
    with console.status(f"{subject.title}: …") as status:
        for row in subject.rows(effort):
            rows.append(row)
            status.update(f"{subject.title}: after {row.case}, {row.what} …")
    return Section(
        name=subject.name,
        title=subject.title,
        how=subject.how,
        ratio=subject.ratio,
        plotted=subject.plotted,
        logarithmic=subject.logarithmic,
        date=datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        command=command,
        quick=effort.quick,
        seconds=time.perf_counter() - started,
        load=load,
        machine=machine.facts(),
        rows=tuple(rows),
    )


@click.command()
@click.option("--quick", is_flag=True, help="A trial of some minutes: small models and samples.")
@click.option(
    "--only",
    type=click.Choice(list(SUBJECTS)),
    multiple=True,
    help="Measure this section, and keep the others' results. Repeatable.",
)
@click.option(
    "--results",
    type=click.Path(file_okay=False, path_type=Path),
    default="scripts/bench/results",
    show_default=True,
    help="Folder for tables and plots; sections that are in there stay until measured again.",
)
def main(quick: bool, only: tuple[str, ...], results: Path) -> None:
    """Measure tfcheck and its peers, print tables, and write tables and plots."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDTH_WITHOUT_TERMINAL
    options = [*(["--quick"] if quick else []), *(f"--only {name}" for name in only)]
    command = " ".join([COMMAND, *options])
    load = machine.load()
    for name in only or SUBJECTS:
        section = measure(SUBJECTS[name], QUICK if quick else FULL, command, load, console)
        table.show(section, console)
        # After each section, so that whatever happens next loses nothing.
        sections = merge(results, section)
        ordered = {each: sections[each] for each in SUBJECTS if each in sections}
        table.write(results, ordered)
        plots.draw(results, ordered)
    console.print(f"\nWritten to {shlex.quote(str(results))}: tables and plots.")


if __name__ == "__main__":
    main()
