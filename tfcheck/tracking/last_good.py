"""The last run of an experiment that passed."""

from __future__ import annotations

from typing import Any

from tfcheck.tracking import schema

TAG = "gradcheck.last_good_run"
"""The tag of the run that passed last before a run, from its first check on."""


def last_good_run(client: Any, run: Any) -> Any:
    """The newest run of the experiment with the verdict "pass" that began before a run.

    Args:
        client: the `mlflow.MlflowClient` to ask.
        run: the `mlflow.entities.Run`.

    Returns:
        The run; None where there is none.
    """
    found = client.search_runs(
        [run.info.experiment_id],
        f"tags.`gradcheck.verdict` = 'pass' and attributes.start_time <= {run.info.start_time}",
        max_results=2,  # a run may have begun in the same millisecond as this one, or be it
        order_by=["attributes.start_time DESC"],
    )
    return next((other for other in found if other.info.run_id != run.info.run_id), None)


def tag(client: Any, run: Any) -> dict[str, str]:
    """The tag of a run that has none yet."""
    if TAG in run.data.tags:
        return {}
    found = last_good_run(client, run)
    return {TAG: schema.NONE if found is None else str(found.info.run_id)}
