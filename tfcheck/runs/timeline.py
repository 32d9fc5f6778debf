"""Runs beside each other: layers × runs, what changed, and what else differs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tfcheck.judge.verdict import Verdict
from tfcheck.runs.changes import Change, changes, layers_of
from tfcheck.runs.differences import Differences, differences
from tfcheck.runs.record import Check, RunRecord

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Timeline:
    """Runs of gradient checks, oldest first.

    Attributes:
        runs: the runs that were checked.
        experiment: the name of their experiment; `""` where they are of several.
        base: the run that all others are compared with; None to compare each with the one before.
        unchecked: so many runs among them were never checked, and are not here.
    """

    runs: tuple[RunRecord, ...]
    experiment: str = ""
    base: RunRecord | None = None
    unchecked: int = 0

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """Every layer, in the order of the newest model."""
        return layers_of(self.runs)

    @cached_property
    def changes(self) -> tuple[Change, ...]:
        """What regressed and what was fixed, in the order of the runs."""
        return changes(self.runs, self.base)

    @cached_property
    def differences(self) -> tuple[Differences, ...]:
        """What else differs: between the base and each run, or where something changed."""
        if self.base is not None:
            pairs = [(self.base, run) for run in self.runs if run is not self.base]
        else:
            pairs = [(change.base, change.run) for change in self.changes]
        unique = {(base.run_id, run.run_id): (base, run) for base, run in pairs}
        return tuple(differences(base, run) for base, run in unique.values())

    @property
    def last_good(self) -> RunRecord | None:
        """The newest run that passed; None where none did."""
        return next((run for run in reversed(self.runs) if run.verdict is Verdict.PASS), None)

    def to_dataframe(self) -> pandas.DataFrame:
        """One row a layer and run, runs oldest first: its findings, and since when."""
        import pandas

        changed = {(change.run.run_id, change.layer): change for change in self.changes}
        rows = [
            {**_row_of(run, layer), **_changed(changed.get((run.run_id, layer)))}
            for run in self.runs
            for layer in self.layers
            if run.story(layer) is not None or (run.run_id, layer) in changed
        ]
        frame = pandas.DataFrame(rows, columns=_COLUMNS)
        return frame.astype(dict.fromkeys(("step", "epoch"), "Int64"))

    def differences_to_dataframe(self) -> pandas.DataFrame:
        """One row a value that differs between a run and the one it is compared with."""
        import pandas

        rows = [
            [pair.base.label, pair.run.label, value.kind, value.name, value.base, value.run]
            for pair in self.differences
            for value in pair.values
        ]
        columns = ["base", "run", "kind", "name", "value in base", "value in run"]
        return pandas.DataFrame(rows, columns=columns)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain dictionaries, lists, numbers and strings, ready for JSON."""
        return {
            "experiment": self.experiment,
            "base": None if self.base is None else self.base.run_id,
            "last_good_run": None if self.last_good is None else self.last_good.run_id,
            "unchecked": self.unchecked,
            "runs": [_run_to_dict(run) for run in self.runs],
            "changes": [_change_to_dict(change) for change in self.changes],
            "differences": [_differences_to_dict(pair) for pair in self.differences],
        }


_COLUMNS = (
    *("run", "run_id", "started", "layer", "verdict", "latest"),
    *("step", "epoch", "checkpoint", "culprit", "place", "change", "base"),
)


def when(milliseconds: int | None) -> str:
    """A time as a reader writes it, in UTC; `""` where it is unknown."""
    if milliseconds is None:
        return ""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def _row_of(run: RunRecord, layer: str) -> dict[str, Any]:
    row = {"run": run.label, "run_id": run.run_id, "started": when(run.started_at), "layer": layer}
    story = run.story(layer)
    if story is None:
        return row
    first = story.first
    return {
        **row,
        "verdict": story.kind,
        "latest": story.latest,
        "step": first.step,
        "epoch": first.epoch,
        "checkpoint": first.checkpoint,
        "culprit": story.culprit,
        "place": story.place,
    }


def _changed(change: Change | None) -> dict[str, Any]:
    if change is None:
        return {"change": "", "base": ""}
    return {"change": change.what, "base": change.base.label, "verdict": change.now}


def _run_to_dict(run: RunRecord) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "name": run.name,
        "experiment": run.experiment,
        "started": when(run.started_at),
        "status": run.status,
        "verdict": None if run.verdict is None else str(run.verdict),
        "checks": [_check_to_dict(check) for check in run.checks],
    }


def _check_to_dict(check: Check) -> dict[str, Any]:
    return {
        "callback": check.name,
        "step": check.step,
        "epoch": check.epoch,
        "checkpoint": check.checkpoint,
        "verdict": str(check.verdict),
        "layers": dict(check.layers),
        "culprits": list(check.culprits),
        "places": dict(check.places),
        "coverage": check.coverage,
    }


def _change_to_dict(change: Change) -> dict[str, Any]:
    since = change.since
    return {
        "layer": change.layer,
        "what": change.what,
        "run_id": change.run.run_id,
        "base_run_id": change.base.run_id,
        "before": change.before,
        "now": change.now,
        "step": None if since is None else since.step,
        "epoch": None if since is None else since.epoch,
    }


def _differences_to_dict(pair: Differences) -> dict[str, Any]:
    return {
        "base_run_id": pair.base.run_id,
        "run_id": pair.run.run_id,
        "same_batch": pair.batch,
        "declared": pair.declared,
        "code": pair.code,
        "command": pair.command,
        "values": [
            {"kind": value.kind, "name": value.name, "base": value.base, "run": value.run}
            for value in pair.values
        ],
    }
