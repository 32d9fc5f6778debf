"""Which MLflow run the gradient checks go to.

Never a nested run: it would split the scores from the loss.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class RunChoice:
    """The run to log to.

    Attributes:
        run_id: an existing run, which its maker ends; None when a run of our own is to be made.
        experiment_id: where to make it; None for an existing run.
    """

    run_id: str | None
    experiment_id: str | None = None


def choose(run_id: str | None) -> RunChoice:
    """An explicit run, else the active one, else the job's (`MLFLOW_RUN_ID`), else a new one.

    Call it on the thread that trains: each thread has its own active run.
    """
    existing = run_id or active_run_id() or os.environ.get("MLFLOW_RUN_ID")
    if existing:
        return RunChoice(existing)
    return RunChoice(None, current_experiment_id())


def active_run_id() -> str | None:
    """The id of the calling thread's active run; None without one."""
    import mlflow

    active = mlflow.active_run()
    return None if active is None else str(active.info.run_id)


def current_experiment_id() -> str:
    """The experiment `mlflow.start_run()` would use.

    It has no public name: making the run with `mlflow.start_run` would also make it the active
    one, which nobody would end when training is interrupted.
    """
    try:
        from mlflow.tracking.fluent import _get_experiment_id

        return str(_get_experiment_id() or "0")
    except ImportError:
        return "0"


def make_run(client: Any, experiment_id: str, name: str | None = None) -> str:
    """Make a run with the tags `mlflow.start_run` gives (source, user, git commit)."""
    from mlflow.tracking.context.registry import resolve_tags

    run = client.create_run(experiment_id, tags=resolve_tags(), run_name=name)
    return str(run.info.run_id)
