"""What regressed from run to run and what was fixed, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tfcheck.judge.verdict import Verdict
from tfcheck.runs.record import ABSENT, DECLARED, Check, RunRecord

REGRESSED, FIXED, DECLARED_NOW = "regressed", "fixed", "declared"

_RANK = {str(Verdict.PASS): 0, str(Verdict.SUSPECT): 1, str(Verdict.FAIL): 2}
"""What says something of a layer. A check that does not know leaves it as it was."""


@dataclass(frozen=True, slots=True)
class Change:
    """A layer that a run finds in another state than a run before it.

    Attributes:
        layer: its path.
        what: `"regressed"`, `"fixed"`, or `"declared"` for a wrong one that is expected now.
        run: the run that finds it so.
        base: the run that it is compared with: the last one before it that knew the layer.
        before: the finding there.
        now: the finding in the run.
        since: the first check of the run that finds it so; None where that is unknown.
    """

    layer: str
    what: str
    run: RunRecord
    base: RunRecord
    before: str
    now: str
    since: Check | None


def layers_of(runs: Sequence[RunRecord]) -> tuple[str, ...]:
    """Every layer of the runs, in the order of the newest model; culprits without variables last.

    A run is asked from the newest on, so that layers that are gone come after those that are there.
    """
    owning = [path for run in reversed(runs) for check in run.checks for path in check.layers]
    blamed = [path for run in runs for path in run.culprits]
    return tuple(dict.fromkeys([*owning, *blamed]))


def finding(run: RunRecord, layer: str) -> str:
    """What a run found of a layer: its worst finding, or `"absent"` where nothing is told of it.

    A run without reports names the layers that failed: in one that passed, any layer passed.
    """
    story = run.story(layer)
    if story is not None:
        return story.kind
    return str(Verdict.PASS) if run.verdict is Verdict.PASS and not run.whole else ABSENT


def changes(runs: Sequence[RunRecord], base: RunRecord | None = None) -> tuple[Change, ...]:
    """What changed, in the order of the runs.

    Args:
        runs: the runs, oldest first.
        base: the run that all are compared with. Defaults to the one before each that knows the
            layer.
    """
    layers = layers_of(runs)
    known: dict[str, tuple[RunRecord, str]] = {}
    if base is not None:
        known = {layer: (base, finding(base, layer)) for layer in layers}
    found: list[Change] = []
    for run in runs:
        for layer in layers:
            now = finding(run, layer)
            if layer in known and run is not base:
                found.extend(_change(layer, *known[layer], run, now))
            if base is None and now in (*_RANK, DECLARED):
                known[layer] = (run, now)
    return tuple(found)


def _change(layer: str, base: RunRecord, before: str, run: RunRecord, now: str) -> Iterator[Change]:
    what = _what(before, now)
    if what:
        story = run.story(layer)
        since = story.first if story is not None and what == REGRESSED else None
        yield Change(layer, what, run, base, before, now, since)


def _what(before: str, now: str) -> str:
    """What a change is called; `""` where there is none, or where one of the two is unknown."""
    if now == DECLARED:
        return DECLARED_NOW if _is_wrong(before) else ""
    if before not in (*_RANK, DECLARED) or now not in _RANK:
        return ""
    if before == DECLARED:
        return REGRESSED if _is_wrong(now) else FIXED
    if _RANK[now] > _RANK[before]:
        return REGRESSED
    return FIXED if _is_wrong(before) and not _is_wrong(now) else ""


def _is_wrong(kind: str) -> bool:
    return _RANK.get(kind, 0) > 0
