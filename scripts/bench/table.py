"""Results as text: tables for the console and for a page of Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from tfcheck.scripts.bench.results import Row, Section

FILE = "results.md"
BUSY = 0.7
"""Load average before the first measurement from which on times are in doubt."""
_SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))


def quantity(value: float | None, unit: str) -> str:
    """A number with its unit, to three digits; empty where there is none."""
    if value is None:
        return ""
    if unit == "B":
        return f"{value / 2**20:,.0f} MiB"
    if unit == "s":
        scale, name = next((s for s in _SECONDS if abs(value) >= s[0]), _SECONDS[-1])
        return f"{_digits(value / scale)} {name}"
    return f"{value:.0f} %" if unit == "%" else f"{value:.2f}"


def times(value: float | None) -> str:
    """A ratio: to four digits where it is small, as a hundredth may matter there."""
    if value is None:
        return ""
    return f"{value:.3f}" if value < 2 else _digits(value)


def _digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def columns(section: Section) -> dict[str, list[str]]:
    """The cells of a section's table by column; a column without any content is left out."""
    rows = section.rows
    found = {
        "model": [row.case for row in rows],
        "measured": [row.what for row in rows],
        "result": [quantity(row.value, row.unit) for row in rows],
        "per parameter": [quantity(row.per_parameter, "s") for row in rows],
        section.ratio: [times(row.ratio) for row in rows],
        "goal": [_goal(row, section.quick) for row in rows],
        "runs": ["" if row.runs is None else str(row.runs) for row in rows],
        "note": [row.note for row in rows],
    }
    return {name: cells for name, cells in found.items() if any(cells)}


def _goal(row: Row, quick: bool) -> str:
    if not row.goal or quick:
        return row.goal
    return f"{row.goal} {'?' if row.met is None else '✓' if row.met else '✗'}"


def is_busy(section: Section) -> bool:
    """Whether something else ran before the first measurement, so that times are in doubt."""
    return section.load is not None and section.load > BUSY


def circumstances(section: Section) -> str:
    """When and how a section was measured, in a sentence or two."""
    taken = (
        f"{section.seconds / 60:.0f} min" if section.seconds >= 90 else f"{section.seconds:.0f} s"
    )
    said = f"Measured on {section.date} by `{section.command}`, in {taken}."
    if is_busy(section):
        said += f" The machine was busy before (load average {section.load:.1f})."
    if section.quick:
        said += " A trial with --quick, on smaller models and samples: no goal is judged."
    elif "--only" in section.command:
        said += " Measured by itself, with --only."
    return said


def view(section: Section) -> RenderableType:
    """A section for the console, its rows under the names of the models."""
    cells = columns(section)
    models = cells.pop("model", [])
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in cells:
        right = name in ("result", "per parameter", "runs", section.ratio)
        table.add_column(
            name,
            justify="right" if right else "left",
            no_wrap=name in ("measured", "result", "goal"),
        )
    for position, line in enumerate(zip(*cells.values(), strict=True)):
        if position == 0 or models[position] != models[position - 1]:
            table.add_row(Text(models[position], "cyan"))
        style = "bold" if section.rows[position].own else ""
        table.add_row(*map(Text, (f"  {line[0]}", *line[1:])), style=style)
    head = Text(f"\n{section.title}", "bold cyan")
    return Group(head, Text(f"{section.how} {circumstances(section)}", "dim"), table)


def show(section: Section, console: Console) -> None:
    """Print a section."""
    console.print(view(section))


def markdown(sections: Mapping[str, Section]) -> str:
    """All sections as a page; each names the plot beside it."""
    return "\n".join(_lines(sections)) + "\n"


def write(folder: Path, sections: Mapping[str, Section]) -> None:
    """Write the page into a folder."""
    (folder / FILE).write_text(markdown(sections), encoding="utf-8")


def _lines(sections: Mapping[str, Section]) -> Iterator[str]:
    yield "# Benchmark"
    yield ""
    yield "Made by `python -m tfcheck.scripts.bench`; every number is measured; times are medians,"
    yield "unless a section says otherwise."
    machines = {_machine(section) for section in sections.values()}
    if len(machines) == 1:
        yield f"Measured on {machines.pop()}."
    for section in sections.values():
        yield from ("", f"## {section.title}", "", section.how, circumstances(section))
        if machines:
            yield f"Measured on {_machine(section)}."
        cells = columns(section)
        yield from ("", line(list(cells)), line(["---"] * len(cells)))
        for row in zip(*cells.values(), strict=True):
            yield line(row)
        yield from ("", f"![{section.title}]({section.name}.svg)")


def _machine(section: Section) -> str:
    return ", ".join(f"{name} {value}" for name, value in section.machine.items())


def line(cells: Sequence[str]) -> str:
    """A line of a table in Markdown."""
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
