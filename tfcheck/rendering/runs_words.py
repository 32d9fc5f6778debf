"""What there is to say of runs beside each other, for console and page alike."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tfcheck.judge.verdict import Verdict
from tfcheck.rendering.words import SYMBOLS, plural
from tfcheck.runs.changes import REGRESSED, Change
from tfcheck.runs.differences import Differences
from tfcheck.runs.record import ABSENT, RunRecord, badness
from tfcheck.runs.timeline import Timeline

MOST_LAYERS = 30
MOST_VALUES = 12

LEGEND = ("pass", "suspect", "fail", "inconclusive", "declared", "error")


@dataclass(frozen=True, slots=True)
class Cell:
    """What one run found of one layer.

    Attributes:
        kind: a verdict, `"declared"` or `"absent"`.
        symbol: what to write where there is little room.
        culprit: whether the layer is wrong by itself there.
        title: the finding in words.
    """

    kind: str
    symbol: str
    culprit: bool
    title: str


@dataclass(frozen=True, slots=True)
class ChangedTogether:
    """Layers that changed in the same way, in the same run, at the same check.

    Attributes:
        what: `"regressed"`, `"fixed"` or `"declared"`.
        layers: their paths; those that are wrong by themselves first.
        told: the sentence.
    """

    what: str
    layers: tuple[str, ...]
    told: str


def headline(timeline: Timeline) -> str:
    """What is shown, in a line."""
    what = f"{plural(len(timeline.runs), 'run')} with gradient checks"
    where = f" of {timeline.experiment}" if timeline.experiment else ""
    return f"{what}{where}"


def standing(timeline: Timeline) -> str:
    """How things stand: the newest run, the last good one, and what was never checked."""
    newest, good = timeline.runs[-1], timeline.last_good
    parts = [f"Newest: {_quoted(newest)}, {newest.verdict}."]
    if good is None:
        parts.append("None of them passed.")
    elif good is not newest:
        parts.append(f"Last good: {_quoted(good)}.")
    if timeline.unchecked:
        verb = "was" if timeline.unchecked == 1 else "were"
        more = plural(timeline.unchecked, "more run")
        parts.append(f"{more} since the first of these {verb} never checked.")
    return " ".join(parts)


def since(run: RunRecord) -> str:
    """When a run first had its verdict: `"epoch 5 (step 285)"`; `""` where that is unknown."""
    found = (check for check in run.checks if check.verdict is run.verdict)
    first = next(found, None)
    return "" if first is None or run.verdict is Verdict.PASS else first.moment


def culprits(run: RunRecord) -> str:
    """The culprits of a run with the lines of their code, as far as known."""
    places = run.places
    named = (f"{path} ({places[path]})" if path in places else path for path in run.culprits)
    return ", ".join(named)


def _quoted(run: RunRecord) -> str:
    """A run's name within a sentence: in quotes where it could be taken for more than a name."""
    return run.label if re.fullmatch(r"[\w.\-]+", run.label) else f'"{run.label}"'


def cell(run: RunRecord, layer: str) -> Cell:
    """What one run found of one layer."""
    story = run.story(layer)
    if story is None:
        return Cell(ABSENT, "", False, f"{layer}, {run.label}: not checked, or nothing to tell")
    later = f", later {story.latest}" if story.latest != story.kind else ""
    place = f" ({story.place})" if story.place else ""
    wrong = f", wrong by itself{place}" if story.culprit else ""
    title = f"{layer}, {run.label}: {story.kind} at {story.first.moment}{later}{wrong}"
    return Cell(story.kind, SYMBOLS[story.kind], story.culprit, title)


def rows(timeline: Timeline, most: int | None) -> tuple[tuple[str, ...], int]:
    """The layers to show, in the model's order, and how many are left out: they always pass.

    Args:
        timeline: the runs.
        most: how many to show before those that always pass are left out; None shows all.
    """
    layers = timeline.layers
    telling = {layer for layer in layers if _badness(timeline, layer) != badness("pass")}
    room = len(layers) if most is None else max(0, most - len(telling))
    quiet = [layer for layer in layers if layer not in telling][:room]
    shown = tuple(layer for layer in layers if layer in telling or layer in quiet)
    return shown, len(layers) - len(shown)


def _badness(timeline: Timeline, layer: str) -> int:
    return max(badness(cell(run, layer).kind) for run in timeline.runs)


def changed_together(timeline: Timeline) -> tuple[ChangedTogether, ...]:
    """What changed, told once for the layers that changed together."""
    groups: dict[tuple[str, str, str, str], list[Change]] = {}
    for change in timeline.changes:
        moment = "" if change.since is None else change.since.moment
        groups.setdefault((change.run.run_id, change.what, change.base.run_id, moment), []).append(
            change
        )
    return tuple(_told(moment, found) for (_, _, _, moment), found in groups.items())


def _told(moment: str, found: Sequence[Change]) -> ChangedTogether:
    first = found[0]
    run, base = first.run, first.base
    ordered = sorted(found, key=lambda change: change.layer not in run.culprits)
    layers = tuple(change.layer for change in ordered)
    named = ", ".join(layers[:6]) + (f" and {len(layers) - 6} more" if len(layers) > 6 else "")
    at = f" since {moment}" if moment else ""
    told = f"{named}: {first.now} in {_quoted(run)}{at}, {first.before} in {_quoted(base)}."
    blamed = run if first.what == REGRESSED else base
    if blamed.culprits:
        told += f" Culprit{'' if blamed is run else ' there'}: {culprits(blamed)}."
    return ChangedTogether(first.what, layers, told)


def answers(pair: Differences, brief: bool = False) -> tuple[tuple[str, str], ...]:
    """Questions on two runs with their answers.

    Args:
        pair: what differs.
        brief: whether to leave out values of which none differs. Defaults to False.
    """
    asked = [("same batch?", pair.batch), ("declared?", pair.declared), ("code", pair.code)]
    for label, kind in (
        ("versions", "version"),
        ("parameters", "parameter"),
        ("options", "option"),
    ):
        values = pair.of(kind)
        told = [f"{value.name} {_became(value.base, value.run)}" for value in values[:MOST_VALUES]]
        told += [f"and {len(values) - MOST_VALUES} more"] if len(values) > MOST_VALUES else []
        if told or not brief:
            asked.append((label, "; ".join(told) or "the same, as far as they are logged"))
    return tuple(asked)


def _became(before: str, now: str) -> str:
    shown = [_short(value) if value else "(not logged)" for value in (before, now)]
    return f"{shown[0]} became {shown[1]}"


def _short(value: str, most: int = 60) -> str:
    return value if len(value) <= most else f"{value[: most - 1]}…"
