"""The account of how fast tfcheck is: its numbers are those of the results.

    python -m tfcheck.scripts.bench.account

writes it anew, between two marks in `docs/how-fast.md`, after the benchmark has been run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click

from tfcheck.scripts.bench import depth, networks
from tfcheck.scripts.bench.cases import CNN, MLP
from tfcheck.scripts.bench.machine import NOT_INSTALLED
from tfcheck.scripts.bench.results import Row, Section, load
from tfcheck.scripts.bench.table import is_busy, line, quantity

BEGIN, END = "<!-- measured -->", "<!-- end of what is measured -->"
RESULTS = Path("scripts/bench/results")
PAGE = Path("docs/how-fast.md")
Sections = Mapping[str, Section]


def filled(page: str, sections: Sections) -> str:
    """A page with what was measured between its marks.

    Args:
        page: its text.
        sections: the results, by name; what has none is left out.
    """
    before, _, rest = page.partition(f"{BEGIN}\n")
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{account(sections)}{END}{after}"


def account(sections: Sections) -> str:
    """The tables and sentences, in Markdown."""
    parts = [_machine(sections), _beside_others(sections), _networks(sections), _depth(sections)]
    return "\n\n".join("\n".join(part) for part in map(list, parts) if part) + "\n"


def _machine(sections: Sections) -> Iterator[str]:
    """On what, how long it took, and what was measured beside other work."""
    machines = [section.machine for section in sections.values()]
    on = sorted({f"{each['CPUs']}, TensorFlow {each['tensorflow']}" for each in machines})
    torch = sorted({each["torch"] for each in machines} - {NOT_INSTALLED})
    on += [f"PyTorch {version}" for version in torch]
    minutes = sum(section.seconds for section in sections.values()) / 60
    yield f"Measured in float64 on {', '.join(on)}, in {minutes:.0f} minutes altogether;"
    yield "ratios carry over to other machines, seconds do not."
    busy = [section.title for section in sections.values() if is_busy(section)]
    if busy:
        yield f"The machine had other work before: {', '.join(busy)}."


def _beside_others(sections: Sections) -> Iterator[str]:
    """The models that tfcheck is compared on with its peers, and with training."""
    yield line(["", "tfcheck", "beside it"])
    yield line(["---"] * 3)
    for case in (MLP, CNN):
        rows = [row for row in _rows(sections, "coordinates") if row.case == case.label]
        yield from _against(rows, f"every derivative of {case.label}", "after tracing")
    yield from _against(_rows(sections, "directions"), f"directions: {MLP.label}", "repeated check")
    for row in _rows(sections, "forward"):
        if row.what == "repeated check" and row.value is not None:
            passes = f"{_times(row.ratio)} bare forward passes"
            yield line([f"a repeated default check: {row.case}", quantity(row.value, "s"), passes])
    traced = [row for row in _rows(sections, "tracing") if row.own and row.ratio]
    if traced:
        beside = f"{_range(traced)}× of what Keras needs for its own `train_function`"
        seconds = [row.value for row in traced if row.value is not None]
        span = f"{quantity(min(seconds), 's')} to {quantity(max(seconds), 's')}"
        yield line(["tracing, once a training", span, beside])
    for name, what, beside in (
        ("steps", "a training step without a checkpoint", "× of one without the callback"),
        ("memory", "memory of a default check", "× of a first training step"),
    ):
        rows = [row for row in _rows(sections, name) if row.own and row.ratio]
        rows = [row for row in rows if name == "steps" or row.what == "first default check"]
        if rows:
            yield line([what, "", f"{_range(rows)}{beside}"])


def _against(rows: Sequence[Row], what: str, own: str) -> Iterator[str]:
    """One line: tfcheck's own time, and how many times that the others take."""
    for mine in [row for row in rows if row.own and row.what.endswith(own)]:
        others = [row for row in rows if not row.own and row.ratio and "first" not in row.what]
        said = "; ".join(
            f"{row.what.removesuffix(', repeated check')} {_times(row.ratio)}×" for row in others
        )
        yield line([what, quantity(mine.value, "s"), said])


def _networks(sections: Sections) -> Iterator[str]:
    """A line for each large network."""
    rows = _rows(sections, "networks")
    if not rows:
        return
    yield "Large networks, right and with one wrong layer in the middle:"
    yield ""
    yield line(
        [
            "network",
            "repeated check",
            "in forward passes (float64)",
            "in training steps",
            "tracing, of Keras's first step",
            "memory, of a first step",
            "variables compared",
            "says",
        ]
    )
    yield line(["---"] * 8)
    for case in dict.fromkeys(row.case for row in rows):
        of = {row.what: row for row in rows if row.case == case}
        again, compared = of[networks.IN_PASSES], of[networks.COMPARED]
        measured = again.value is not None
        yield line(
            [
                case,
                quantity(again.value, "s") if measured else again.note,
                _times(again.ratio),
                _times(of[networks.IN_STEPS].ratio),
                _cell(of[networks.TRACING]),
                _cell(of[networks.MEMORY]),
                compared.note if measured else "",
                of[networks.SAID].note if measured else "",
            ]
        )
    yield ""
    yield f"![Large networks](../{RESULTS.as_posix()}/networks.svg)"


def _cell(row: Row) -> str:
    return f"{_times(row.ratio)}×" if row.ratio else ""


def _depth(sections: Sections) -> Iterator[str]:
    """How the check grows with depth: a sentence for each series."""
    rows = _rows(sections, "depth")
    for series in dict.fromkeys(row.case for row in rows):
        own = [row for row in rows if row.case == series]
        fitted = {row.what: quantity(row.value, row.unit) for row in own if row.size is None}
        points = [row for row in own if row.size and row.ratio]
        if depth.EACH in fitted:
            yield (
                f"- Residual networks of {points[0].what.split()[0]} to {points[-1].what}, "
                f"{series}: {fitted[depth.LEAST]} and {fitted[depth.EACH]} for each layer, within "
                f"{fitted[depth.DEVIATION]}; {_range(points)} forward passes of the model."
            )
    if rows:
        yield ""
        yield f"![Depth](../{RESULTS.as_posix()}/depth.svg)"


def _rows(sections: Sections, name: str) -> tuple[Row, ...]:
    return sections[name].rows if name in sections else ()


def _range(rows: Sequence[Row]) -> str:
    ratios = [row.ratio for row in rows if row.ratio is not None]
    low, high = _times(min(ratios)), _times(max(ratios))
    return low if low == high else f"{low} to {high}"


def _times(number: float | None) -> str:
    """A ratio as a reader wants it, who has the results for more digits."""
    if number is None:
        return ""
    return f"{number:.2f}" if number < 10 else f"{number:,.0f}"


@click.command()
@click.argument("page", type=click.Path(exists=True, dir_okay=False, path_type=Path), default=PAGE)
def main(page: Path) -> None:
    """Write what was measured into PAGE, between its marks."""
    text = page.read_text(encoding="utf-8")
    if not re.search(f"{BEGIN}\n.*{END}", text, re.DOTALL):
        raise click.UsageError(
            f"The page has a place for what is measured. Received: {page.name} without it. "
            f"Put the lines {BEGIN} and {END} where it should be."
        )
    page.write_text(filled(text, load(RESULTS)), encoding="utf-8")


if __name__ == "__main__":
    main()
