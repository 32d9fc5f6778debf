"""The run that checks go to: found, or made, once MLflow is known to answer."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tfcheck.tracking.progress import Progress
from tfcheck.tracking.server import without_password
from tfcheck.tracking.spool import Content, RunTarget

# By it a run is found again whose making was answered by nobody.
TRAINING_TAG = "gradcheck.training"


def whole_uri(target: RunTarget, uri: str) -> str:
    """A tracking URI with its paths made absolute, as the training would have understood them."""
    scheme, separator, rest = uri.partition(":")
    if not separator or len(scheme) == 1:
        return str(Path(target.folder) / uri)
    if scheme == "sqlite" and rest.startswith("///") and not Path(rest[3:]).is_absolute():
        return f"sqlite:///{(Path(target.folder) / rest[3:]).as_posix()}"
    return uri


def tracking_uri(target: RunTarget, progress: Progress) -> str:
    """Where to send to. The password that the file does not hold is that of the surroundings."""
    import mlflow

    here = str(mlflow.get_tracking_uri())
    meant = target.tracking_uri or progress.tracking_uri or without_password(here)
    return whole_uri(target, here if without_password(here) == meant else meant)


def tags_of(target: RunTarget) -> dict[str, str]:
    """The tags `mlflow.start_run` gives: source, user, git commit, as seen from the training.

    It has no public name, and making a run with `mlflow.start_run` would make it active.
    """
    from mlflow.tracking.context.registry import resolve_tags

    before = sys.argv
    sys.argv = [target.source]  # where MLflow looks for the script
    try:
        tags: Mapping[str, str] = resolve_tags()
    finally:
        sys.argv = before
    return {**tags, TRAINING_TAG: target.training}


def settled(client: Any, content: Content, progress: Progress) -> Progress:
    """The progress with the run in it: somebody's, one made before, or a new one.

    A run of our own that is no longer wanted, because the training's own was started later, is
    removed.
    """
    wanted = content.run_id
    if wanted is not None and progress.run_id == wanted:
        return progress
    if wanted is not None:
        if progress.run_id is not None and progress.own:
            client.delete_run(progress.run_id)
        # Everything goes there, also what has arrived elsewhere.
        return Progress(run_id=wanted, tracking_uri=progress.tracking_uri, seen=progress.seen)
    if progress.run_id is not None:
        return progress
    experiment = experiment_id(client, content.target)
    found = _made_before(client, experiment, content.target) if progress.asked else None
    if found is None:
        made = client.create_run(
            experiment,
            start_time=content.target.made_at,
            tags=dict(progress.tags or {}),
            run_name=content.target.run_name,
        )
        found = str(made.info.run_id)
    return replace(progress, run_id=found, own=True, asked=True)


def experiment_id(client: Any, target: RunTarget) -> str:
    """The experiment `mlflow.start_run()` would use; made if there is none of that name."""
    if target.experiment_name:
        return named_experiment(client, target.experiment_name)
    if target.experiment_id:
        return target.experiment_id
    # What a notebook or a plugin chooses has no public name.
    from mlflow.tracking.fluent import _get_experiment_id

    return str(_get_experiment_id() or "0")


def named_experiment(client: Any, name: str) -> str:
    """The id of the experiment of this name; made if there is none."""
    found = client.get_experiment_by_name(name)
    return str(client.create_experiment(name) if found is None else found.experiment_id)


def _made_before(client: Any, experiment: str, target: RunTarget) -> str | None:
    there = client.search_runs([experiment], f"tags.`{TRAINING_TAG}` = '{target.training}'")
    return str(there[0].info.run_id) if there else None
