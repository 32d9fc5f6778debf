"""What was measured: rows of sections, and the file they are kept in."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tfcheck.scripts.bench.cases import Effort

FILE = "results.json"


@dataclass(frozen=True)
class Row:
    """One measured number.

    Attributes:
        case: the model and batch, or what grows.
        what: the tool and what it does.
        value: the number; None where there is none, and then `note` says why.
        unit: `"s"`, `"B"`, `"%"` or `""`.
        per_parameter: seconds for each checked parameter.
        ratio: compared with another row; the section says which.
        goal: what `value` or `ratio` should be.
        met: whether it is; None where that is not judged.
        runs: how many runs the number is the median of.
        low, high: quartiles of what is drawn, where there are many runs.
        own: whether it is tfcheck that was measured.
        size: where the section is about growth, how large the case is.
        note: what else a reader should know.
    """

    case: str
    what: str
    value: float | None = None
    unit: str = "s"
    per_parameter: float | None = None
    ratio: float | None = None
    goal: str = ""
    met: bool | None = None
    runs: int | None = None
    low: float | None = None
    high: float | None = None
    own: bool = False
    size: float | None = None
    note: str = ""

    def replaced(self, **fields: Any) -> Row:
        """The row with other values."""
        return replace(self, **fields)

    def at_most(self, bound: float, measured: float | None, unit: str = "×") -> Row:
        """The row with a goal: a number of it that should not be larger."""
        met = None if measured is None else measured <= bound
        return replace(self, goal=f"≤ {bound:g} {unit}", met=met)

    def at_least(self, bound: float, measured: float | None, unit: str = "×") -> Row:
        """The row with a goal: a number of it that should not be smaller."""
        met = None if measured is None else measured >= bound
        return replace(self, goal=f"≥ {bound:g} {unit}", met=met)


@dataclass(frozen=True)
class Subject:
    """A part of the benchmark.

    Attributes:
        name: what `--only` calls it.
        title: its heading.
        how: how it is measured, in a sentence or two.
        ratio: what the column of ratios says; empty where there is none.
        plotted: the number of the rows that is drawn.
        rows: measures.
        logarithmic: whether the drawing's axis is logarithmic.
    """

    name: str
    title: str
    how: str
    ratio: str
    plotted: str
    rows: Callable[[Effort], Iterator[Row]]
    logarithmic: bool = False


@dataclass(frozen=True)
class Section:
    """The rows of a subject, with the circumstances.

    Attributes:
        name, title, how, ratio, plotted, logarithmic: as the subject has them.
        date: the day of the measurement.
        command: how the benchmark was called.
        quick: whether models and samples were only those of a trial.
        seconds: how long measuring took.
        load: the system's load average before the benchmark, which should be near zero; None where
            the system does not tell.
        machine: what it was measured on.
        rows: the numbers.
    """

    name: str
    title: str
    how: str
    ratio: str
    plotted: str
    logarithmic: bool
    date: str
    command: str
    quick: bool
    seconds: float
    load: float | None = None
    machine: dict[str, str] = field(default_factory=dict)
    rows: tuple[Row, ...] = ()


def ratio(number: float | None, reference: float | None) -> float | None:
    """How many times larger; None where either is missing."""
    return None if number is None or not reference else number / reference


def load(folder: Path) -> dict[str, Section]:
    """The sections measured so far, by name; none where there is no file yet."""
    file = folder / FILE
    if not file.exists():
        return {}
    content: dict[str, dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    return {
        name: Section(**{**section, "rows": tuple(Row(**row) for row in section["rows"])})
        for name, section in content.items()
    }


def merge(folder: Path, section: Section) -> dict[str, Section]:
    """Put a section into the file, in the place of its former self; the others stay.

    Returns:
        All sections, by name.
    """
    sections = {**load(folder), section.name: section}
    folder.mkdir(parents=True, exist_ok=True)
    content = {name: asdict(each) for name, each in sections.items()}
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / FILE).write_text(f"{text}\n", encoding="utf-8")
    return sections
