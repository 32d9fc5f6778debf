"""Results as drawings: a dot for each number, and lines for growth, as SVG on white."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfcheck.scripts.bench.depth import DEVIATION, EACH, LEAST
from tfcheck.scripts.bench.networks import IN_PASSES, WRONG
from tfcheck.scripts.bench.results import Row, Section
from tfcheck.scripts.bench.table import quantity, times

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OWN, PEER, INK, PALE = "#1f6fb4", "#8a8f98", "#24292f", "#d8dce2"
STYLE: Any = {  # matplotlib's type for it lists every key
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "axes.edgecolor": PALE,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "font.size": 10,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.fonttype": "none",
    "svg.hashsalt": "tfcheck",  # the same results give the same file
}
AXES = {"value": "seconds", "per_parameter": "seconds for each parameter"}


def draw(folder: Path, sections: Mapping[str, Section]) -> None:
    """Draw each section into a file of its name."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    for section in sections.values():
        with mpl.rc_context(STYLE):
            figure = Figure(layout="constrained")
            DRAWN.get(section.name, _dots)(figure, section)
            figure.savefig(folder / f"{section.name}.svg", metadata={"Date": None})


def _dots(figure: Figure, section: Section) -> None:
    """One line for each row that has the number that is drawn, under the names of the models."""
    shown = [row for row in section.rows if _number(row, section) is not None]
    lines: list[Row | str] = []
    for row in shown:
        if row.case not in lines:
            lines.append(row.case)
        lines.append(row)
    figure.set_size_inches(9, 1.3 + 0.3 * len(lines))
    axes = figure.subplots()
    for position, line in enumerate(lines):
        if isinstance(line, Row):
            _dot(axes, position, line, section)
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.set_yticks(range(len(lines)), [_label(line) for line in lines])
    for label, line in zip(axes.get_yticklabels(), lines, strict=True):
        label.set_fontweight("bold" if isinstance(line, str) else "normal")
    axes.tick_params(axis="y", length=0)
    if section.logarithmic and shown:
        axes.set_xscale("log")
    axes.margins(x=0.2)
    axes.grid(axis="x", color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)
    unit = "bytes" if any(row.unit == "B" for row in shown) else AXES.get(section.plotted)
    axes.set_xlabel(unit or section.ratio)
    axes.set_title(section.title, fontweight="bold")


def _dot(axes: Axes, position: int, row: Row, section: Section) -> None:
    number = _number(row, section)
    assert number is not None
    colour = OWN if row.own else PEER
    if row.low is not None and row.high is not None:
        axes.plot([row.low, row.high], [position] * 2, color=colour, linewidth=2, alpha=0.5)
    axes.plot(number, position, "o", color=colour, markersize=7)
    said = times(number) if section.plotted == "ratio" else _said(number, row, section)
    goal = f"   (goal {row.goal})" if row.goal and section.plotted == "ratio" else ""
    axes.annotate(
        f"{said}{goal}",
        (number if row.high is None else max(number, row.high), position),
        xytext=(8, 0),
        textcoords="offset points",
        va="center",
        color=colour if row.own else INK,
    )


def _said(number: float, row: Row, section: Section) -> str:
    return quantity(number, "s" if section.plotted == "per_parameter" else row.unit)


def _number(row: Row, section: Section) -> float | None:
    number: float | None = getattr(row, section.plotted)
    return number


def _label(line: Row | str) -> str:
    return line if isinstance(line, str) else line.what


def _growth(figure: Figure, section: Section) -> None:
    """A panel for each series, logarithmic both ways, with a line of slope one."""
    series: dict[str, list[Row]] = {}
    for row in section.rows:
        series.setdefault(row.case, []).append(row)
    figure.set_size_inches(9, 3.4 * ((len(series) + 1) // 2))
    panels = figure.subplots((len(series) + 1) // 2, 2, squeeze=False).ravel()
    for axes, (name, rows) in zip(panels, series.items(), strict=False):
        points = [(row.size, row.value) for row in rows if row.size and row.value]
        axes.set_title(name, fontsize=10, fontweight="bold")
        axes.set_xlabel(name.partition(",")[0])
        axes.set_ylabel("seconds")
        axes.grid(color=PALE, linewidth=0.6)
        if not points:
            continue
        x, y = zip(*points, strict=True)
        axes.loglog(x, y, "o-", color=OWN, label="repeated check")
        reference = [y[-1] * each / x[-1] for each in x]
        axes.loglog(x, reference, "--", color=PEER, label="slope 1")
        axes.set_ylim(min(y) / 3, max(y) * 3)
        axes.xaxis.set_minor_formatter("")
        fitted = [f"{row.what} {row.value:.2f}" for row in rows if row.size is None and row.value]
        axes.legend(title="\n".join(fitted), frameon=False, fontsize=8, title_fontsize=8)
    for axes in panels[len(series) :]:
        axes.remove()
    figure.suptitle(section.title, fontweight="bold", x=0.01, ha="left")


def _networks(figure: Figure, section: Section) -> None:
    """A dot for each network: its repeated check in forward passes, right ones above wrong ones."""
    shown = [row for row in section.rows if row.what == IN_PASSES]
    rows = [
        row.replaced(case=WRONG if row.case.endswith(WRONG) else "right", what=_short(row.case))
        for row in shown
    ]
    title = f"{section.title}: a repeated check, in forward passes in float64"
    _dots(figure, replace(section, rows=tuple(rows), title=title, ratio="forward passes"))


def _short(label: str) -> str:
    return label.removesuffix(f", {WRONG}")


def _depth(figure: Figure, section: Section) -> None:
    """Seconds above forward passes, for each series; no axis is logarithmic, so lines are lines."""
    series = list(dict.fromkeys(row.case for row in section.rows))
    figure.set_size_inches(9, 6)
    panels = figure.subplots(2, len(series), squeeze=False)
    for name, (seconds, passes) in zip(series, panels.T, strict=True):
        rows = [row for row in section.rows if row.case == name]
        fitted = {row.what: row.value for row in rows if row.size is None and row.value is not None}
        points = [row for row in rows if row.size and row.value and row.ratio]
        layers = [row.size or 0.0 for row in points]
        seconds.set_title(name, fontsize=10, fontweight="bold")
        seconds.plot(layers, [row.value for row in points], "o", color=OWN)
        if EACH in fitted:
            line = [fitted[LEAST] + fitted[EACH] * each for each in layers]
            seconds.plot(layers, line, "--", color=PEER, label=_fit(fitted))
            seconds.legend(frameon=False, fontsize=8)
        passes.plot(layers, [row.ratio for row in points], "o-", color=OWN)
        for axes, label in ((seconds, "seconds"), (passes, "forward passes of the model")):
            axes.set_xlabel("layers")
            axes.set_ylabel(label)
            axes.set_xlim(left=0)
            axes.set_ylim(bottom=0)
            axes.grid(color=PALE, linewidth=0.6)
    figure.suptitle(f"{section.title}: a repeated check", fontweight="bold", x=0.01, ha="left")


def _fit(fitted: Mapping[str, float]) -> str:
    """The line in words: what it starts from, what a layer adds, and how well that describes it."""
    least, each, off = fitted[LEAST], fitted[EACH], fitted[DEVIATION]
    said = f"{quantity(least, 's')} + {quantity(each, 's')} a layer"
    return f"{said};\nno point is further off than {quantity(off, '%')}"


DRAWN = {"growth": _growth, "networks": _networks, "depth": _depth}
"""How sections are drawn that have not a dot for each row."""
