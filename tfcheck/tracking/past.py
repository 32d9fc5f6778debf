"""What runs say of their gradient checks, beside each other: `history` and `compare`."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tfcheck.errors import ArgumentError, rule
from tfcheck.runs.record import RunRecord
from tfcheck.runs.timeline import Timeline
from tfcheck.settings import whole_number
from tfcheck.tracking import looking_up, reading
from tfcheck.tracking.last_good import last_good_run

LAST = 20
"""So many runs are looked at unless told otherwise."""

MOST = 1000
_AT_ONCE = 8


class History(Timeline):  # noqa: D101 - what it is, and holds, is what a timeline is
    __doc__ = Timeline.__doc__

    def save_html(self, path: str | Path) -> Path:
        """Write it as a page that needs no other file and no network; returns the path."""
        from tfcheck.rendering.runs_page import runs_page

        path = Path(path)
        path.write_text(runs_page(self), encoding="utf-8")
        return path

    def __str__(self) -> str:
        from tfcheck.rendering.console import timeline_text

        return timeline_text(self)

    def _repr_html_(self) -> str:
        from tfcheck.rendering.runs_page import runs_fragment

        return runs_fragment(self)


def history(
    experiment: str | None = None, *, last: int = LAST, tracking_uri: str | None = None
) -> History:
    """The runs of an experiment in the order of time: layers × runs, and what changed.

    Each run is compared with the one before it: a layer that passed and is suspect or fails now
    has regressed, one that was and passes now is fixed. What a run does not know stays as it was.

    Args:
        experiment: its name or id. Defaults to `MLFLOW_EXPERIMENT_NAME` or `MLFLOW_EXPERIMENT_ID`,
            else to the experiment with the latest gradient check.
        last: so many of the newest runs that were checked, 1 to 1000. Defaults to 20.
        tracking_uri: the MLflow store. Defaults to the current one.

    Returns:
        A frozen `History`, which prints, is a table in notebooks, and has `to_dataframe()`,
        `differences_to_dataframe()`, `to_dict()` and `save_html(path)`.

    Raises:
        ArgumentError: if there is no such experiment, or no run with checks in it.
        TrackingError: if MLflow is away.

    Example:
        >>> past = tfcheck.tracking.history("digits")  # doctest: +SKIP
        >>> [(change.layer, change.what, change.run.name) for change in past.changes]
        ... # doctest: +SKIP
        [('hidden', 'regressed', 'train-3f2a1c')]
    """
    last = whole_number("last", last, 1, MOST)
    with looking_up.asked(tracking_uri) as client:
        found = looking_up.experiment(client, experiment)
        runs = client.search_runs(
            [found.experiment_id],
            looking_up.CHECKED,
            max_results=last,
            order_by=["attributes.start_time DESC"],
        )
        if not runs:
            raise ArgumentError(
                f"An experiment must have a run with gradient checks. Received: {found.name!r}, "
                "which has none. Train with tfcheck.callbacks.GradientCheck, or name another one."
            )
        records = _records(client, reversed(runs))
        return History(records, found.name, unchecked=_unchecked(client, runs))


def compare(*runs: str, base: str | None = None, tracking_uri: str | None = None) -> History:
    """Given runs beside each other: what regressed and was fixed, and what else differs.

    Args:
        runs: ids of runs, beginnings of ids, or names; at least one.
        base: the run that all are compared with. Defaults to the first of several runs, and for a
            single one to the last run of its experiment before it that passed.
        tracking_uri: the MLflow store. Defaults to the current one.

    Returns:
        A frozen `History`, whose `differences` also say whether the batch was the same, what is
        declared, and what to run to see the change in the code.

    Raises:
        ArgumentError: if a run is not there, or there is none to compare with.
        TrackingError: if MLflow is away.
    """
    if not runs:
        raise ArgumentError(
            rule("There must be a run to compare", "runs", runs, "Name one or more")
        )
    with looking_up.asked(tracking_uri) as client:
        found = [looking_up.run_named(client, name) for name in runs]
        chosen = _base(client, found, base)
        others = {run.info.run_id: run for run in found if run.info.run_id != chosen.info.run_id}
        if not others:
            raise ArgumentError(
                rule("A run is compared with another one", "runs", runs, "Name two that differ")
            )
        in_order = sorted(others.values(), key=lambda run: run.info.start_time or 0)
        records = _records(client, [chosen, *in_order])
        names = {record.experiment for record in records}
        return History(records, names.pop() if len(names) == 1 else "", base=records[0])


def _base(client: Any, found: list[Any], base: str | None) -> Any:
    """The run that others are compared with."""
    if base is not None:
        return looking_up.run_named(client, base)
    if len(found) > 1:
        return found[0]
    (run,) = found
    good = last_good_run(client, run)
    if good is None:
        name = run.info.run_name or run.info.run_id
        raise ArgumentError(
            rule(
                "A run is compared with the last one before it that passed, and there is none",
                "run",
                name,
                "Name a second run to compare it with",
            )
        )
    return good


def _records(client: Any, runs: Iterable[Any]) -> tuple[RunRecord, ...]:
    """The runs as records; several are read at once, as each is a file or a request apart."""
    listed = list(runs)
    ids = dict.fromkeys(run.info.experiment_id for run in listed)
    names = {one: client.get_experiment(one).name for one in ids}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        read = (
            pool.submit(reading.record, client, run, names[run.info.experiment_id])
            for run in listed
        )
        return tuple(future.result() for future in list(read))


def _unchecked(client: Any, runs: list[Any]) -> int:
    """How many runs since the oldest of these were never checked."""
    since = min(run.info.start_time or 0 for run in runs)
    all_runs = client.search_runs(
        [runs[0].info.experiment_id], f"attributes.start_time >= {since}", max_results=MOST
    )
    return sum(reading.CHECKED_TAG not in run.data.tags for run in all_runs)
