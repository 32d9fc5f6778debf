"""The run's description in MLflow: a Markdown block of ours, within the user's own text.

MLflow folds a description after a few lines, so the verdict comes first and failing variables
before passing ones. Links start with `#/`: they work on any host, port and path prefix.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from tfcheck.gradient_report import GradientReport
from tfcheck.judge.verdict import Verdict, digits
from tfcheck.rendering.words import moment
from tfcheck.tracking import over_checkpoints, schema, tables
from tfcheck.tracking.views import dashboard_link, run_link

_MAX_ROWS = 15
_SPACE = "&emsp;"
_NO_BUG = (Verdict.PASS, Verdict.INCONCLUSIVE)


def describe(
    reports: Sequence[GradientReport],
    experiment_id: str,
    run_id: str,
    section: str = schema.FIRST,
) -> str:
    """The block for the reports of one callback, markers not included."""
    found = over_checkpoints.worst_first(over_checkpoints.histories(reports))
    verdict = over_checkpoints.overall(reports)
    whose = "" if section == schema.FIRST else f" ({section.removeprefix(f'{schema.FIRST}-')})"
    parts = [
        f"### Gradient check{whose}: {schema.MARKS[verdict]} {verdict}",
        _summary(reports, found),
    ]
    last = reports[-1]
    if last.verdict is Verdict.ERROR:
        parts.append(f"The last check could not be done: {_line(last.error)}")
    if found:
        parts.append(_table(found))
    report, heatmap = (
        run_link(experiment_id, run_id, f"{section}/{name}")
        for name in ("report.html", "heatmap.png")
    )
    parts.append(
        f"[Full report]({report}) · "
        f"[Heatmap]({heatmap}) · "
        f"[All runs]({dashboard_link(experiment_id)}) · "
        f"[Layer × run]({dashboard_link(experiment_id, mode='ARTIFACT')}) · "
        f"[Charts]({dashboard_link(experiment_id, mode='CHART')})"
    )
    return "\n\n".join(parts)


def merged(before: str | None, block: str, section: str = schema.FIRST) -> str:
    """The description with our block in it: replaced where it stands, else put first.

    What the user wrote is kept to the letter; when both are too long for MLflow, ours is cut.
    """
    before = before or ""
    begin, end_mark = (f"[//]: # ({section}: {word})" for word in ("begin", "end"))
    found = re.search(f"{re.escape(begin)}.*?{re.escape(end_mark)}", before, re.DOTALL)
    start, end = found.span() if found else (0, 0)
    left, right = before[:start], before[end:]
    if not found and before:
        right = f"\n\n{before}"
    # A marker must follow an empty line, or Markdown takes it for part of the paragraph above.
    frame = f"{begin}\n\n{{}}\n\n{end_mark}"
    room = schema.MAX_TAG - len(left) - len(right) - len(frame)
    return left + frame.format(_shortened(block, room)) + right if room > 0 else before


def _shortened(block: str, room: int) -> str:
    """Whole lines only: half a table row would be drawn as text."""
    if len(block) <= room:
        return block
    lines: list[str] = []
    for line in block.splitlines():
        room -= len(line) + 1
        if room < 0:
            break
        lines.append(line)
    return "\n".join(lines).rstrip()


def _summary(
    reports: Sequence[GradientReport], found: Sequence[over_checkpoints.VariableHistory]
) -> str:
    checks = "1 check" if len(reports) == 1 else f"{len(reports)} checks"
    failing = [item for item in found if item.failed]
    errors = sum(report.verdict is Verdict.ERROR for report in reports)
    sentences = []
    if failing:
        first = over_checkpoints.first_fail(reports)
        since = f", first at {_line(moment(first))}" if first and moment(first) else ""
        sentences.append(f"**{len(failing)} of {len(found)} variables failed** in {checks}{since}.")
        guilty = over_checkpoints.culprits(reports)
        if guilty:
            places = over_checkpoints.culprit_places(reports)
            named = ", ".join(
                f"**{_code(path)}**" + (f" ({_code(places[path])})" if places.get(path) else "")
                for path in guilty
            )
            sentences.append(f"Wrong by itself: {named}.")
    elif found:
        scores = [item.worst.score for item in found if item.verdict is Verdict.PASS]
        scores = [score for score in scores if math.isfinite(score)]
        agreed = f", agreeing in {digits(max(scores)):.1f} digits or more" if scores else ""
        passed = sum(item.verdict is Verdict.PASS for item in found)
        sentences.append(f"{passed} of {len(found)} variables passed in {checks}{agreed}.")
    if errors:
        sentences.append(f"{errors} of {checks} could not be done.")
    return " ".join(sentences) or "Nothing was checked."


def _table(found: Sequence[over_checkpoints.VariableHistory]) -> str:
    shown, rest = found[:_MAX_ROWS], found[_MAX_ROWS:]
    rows = [
        [
            _code(item.label),
            tables.verdict_text(item),
            f"{item.worst.score:.1e}" if math.isfinite(item.worst.score) else "unknown",
            str(item.worst_step),
            _line(item.worst.note),
        ]
        for item in shown
    ]
    heads = ["variable", "verdict", "worst score", "at step", "note"]
    if not any(row[-1] for row in rows):
        heads, rows = heads[:-1], [row[:-1] for row in rows]
    # MLflow draws cells without any space between them.
    lines = [f"| {f'{_SPACE} | '.join(cells)}{_SPACE} |" for cells in (heads, *rows)]
    lines.insert(1, "|:--" * len(heads) + "|")
    if rest:
        clean = all(item.verdict in _NO_BUG for item in rest)
        more = "none of them failing" if clean else "see the full report"
        lines += ["", f"… and {len(rest)} more, {more}."]
    return "\n".join(lines)


def _code(text: str) -> str:
    return f"`{text.replace('`', chr(39)).replace('|', '¦')}`"


def _line(text: str, length: int = 160) -> str:
    """Text of any kind as one short line that cannot break a table or turn into HTML."""
    flat = " ".join(text.split())
    for mark in "\\`*_|<>[]":
        flat = flat.replace(mark, f"\\{mark}")
    return schema.cut(flat, length)
