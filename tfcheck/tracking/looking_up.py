"""What is asked for in an MLflow store: an experiment, a run, a version of a registered model."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from tfcheck.errors import ArgumentError, rule
from tfcheck.tracking import server
from tfcheck.tracking.reading import CHECKED_TAG
from tfcheck.tracking.sending import TrackingError

CHECKED = f"tags.`{CHECKED_TAG}` != ''"
"""How runs with gradient checks are found."""

_MODELS = "models:/"
_RUN_ID = re.compile(r"[0-9a-f]{32}")
_BEGINNING_OF_ID = re.compile(r"[0-9a-f]{6,31}")
_NOT_THERE = ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "INVALID_PARAMETER_VALUE")


@dataclass(frozen=True, slots=True)
class Model:
    """A logged model.

    Attributes:
        run_id: the run that trained it; `""` where it names none.
        step: the step that it was logged at; None where that is unknown.
        made_at: when it was logged, in milliseconds since 1970.
        name: the name that it is registered by; `""` where it is not.
        version: its version there.
    """

    run_id: str
    step: int | None
    made_at: int
    name: str = ""
    version: str = ""


@contextmanager
def asked(tracking_uri: str | None) -> Iterator[Any]:
    """An `mlflow.MlflowClient` of a store, whose errors are told in one sentence.

    Args:
        tracking_uri: the store. Defaults to the current one.

    Raises:
        TrackingError: if it is not there, or goes wrong within the block.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    uri = tracking_uri or str(mlflow.get_tracking_uri())
    shown = server.without_password(uri)
    path = server.local_path(uri)
    trouble = "is not there" if path is not None and not path.exists() else ""
    if uri.startswith(("http://", "https://")):
        trouble = server.trouble(uri)
    if trouble:
        raise TrackingError(
            f"MLflow must be there to be asked. Received: tracking_uri={shown!r}, which {trouble}. "
            "Name another store, or start the server."
        )
    try:
        yield mlflow.MlflowClient(uri)
    except (MlflowException, OSError) as error:
        text = " ".join(str(error).split())
        raise TrackingError(f"MLflow at {shown} did not answer. {text[:300]}") from error


def experiment(client: Any, name: str | None) -> Any:
    """An experiment.

    Args:
        client: the `mlflow.MlflowClient` to ask.
        name: its name or id. Defaults to that of the environment (`MLFLOW_EXPERIMENT_NAME`,
            `MLFLOW_EXPERIMENT_ID`), else to the one with the latest gradient check.

    Raises:
        ArgumentError: if there is none.
    """
    wanted = name or os.environ.get("MLFLOW_EXPERIMENT_NAME")
    wanted = wanted or os.environ.get("MLFLOW_EXPERIMENT_ID")
    if not wanted:
        return client.get_experiment(_latest_experiment_id(client))
    found = client.get_experiment_by_name(wanted) or _by_id(client.get_experiment, wanted)
    if found is None:
        names = ", ".join(each.name for each in client.search_experiments(max_results=8))
        raise ArgumentError(
            rule("An experiment must exist", "experiment", wanted, f"There are: {names}")
        )
    return found


def run_named(client: Any, text: str) -> Any:
    """A run by its id, the beginning of it (six letters or more), or its name.

    Raises:
        ArgumentError: if there is none, or more than one.
    """
    found = runs_named(client, text)
    if not found:
        raise ArgumentError(
            rule("A run must exist", "run", text, "Give the id or the name of a run of this store")
        )
    return found[0]


def runs_named(client: Any, text: str) -> list[Any]:
    """The run of an id, of the beginning of one, or of a name; empty where there is none.

    Raises:
        ArgumentError: if there is more than one.
    """
    by_id = run_of_id(client, text) if _RUN_ID.fullmatch(text) else None
    if by_id is not None:
        return [by_id]
    quoted = text.replace("'", "")
    filters = [f"attributes.run_name = '{quoted}'"]
    if _BEGINNING_OF_ID.fullmatch(text):
        filters.append(f"attributes.run_id LIKE '{text}%'")
    everywhere = [each.experiment_id for each in client.search_experiments()]
    found: list[Any] = []
    for wanted in filters:
        found = found or list(client.search_runs(everywhere, wanted, max_results=3))
    if len(found) > 1:
        ids = ", ".join(run.info.run_id for run in found)
        raise ArgumentError(
            rule(
                "A run must be named so that it is the only one", "run", text, f"Give an id: {ids}"
            )
        )
    return found


def run_of_id(client: Any, run_id: str) -> Any:
    """The run of an id; None where there is none."""
    return _by_id(client.get_run, run_id)


def latest_run(client: Any, experiment_id: str) -> Any:
    """The newest run of an experiment, checked or not; None where there is none."""
    newest = ["attributes.start_time DESC"]
    return next(iter(client.search_runs([experiment_id], "", max_results=1, order_by=newest)), None)


def is_model(text: str) -> bool:
    """Whether this names a model, and not a run or an experiment."""
    return text.startswith(_MODELS)


def model(client: Any, uri: str) -> Model:
    """A model by `models:/NAME/VERSION`, `models:/NAME@ALIAS`, `models:/NAME/latest`, or its id.

    Raises:
        ArgumentError: if there is none.
    """
    from mlflow.exceptions import MlflowException

    path = uri.removeprefix(_MODELS).strip("/")
    try:
        return _model_at(client, path)
    except MlflowException as error:
        if not _is_not_there(error):
            raise
        remedy = "Write models:/NAME/VERSION, models:/NAME@ALIAS or models:/NAME/latest"
        raise ArgumentError(rule("A model must exist", "model", uri, remedy)) from error


def _model_at(client: Any, path: str) -> Model:
    name, slash, version = path.rpartition("/")
    if slash:
        if version == "latest":
            versions = client.search_model_versions(f"name='{name}'")
            version = str(max(int(each.version) for each in versions) if versions else 0)
        return _of_version(client, client.get_model_version(name, version))
    name, at, alias = path.rpartition("@")
    if at:
        return _of_version(client, client.get_model_version_by_alias(name, alias))
    return _of_logged(client, client.get_logged_model(path))


def _of_version(client: Any, version: Any) -> Model:
    found = Model(version.run_id or "", None, int(version.creation_timestamp))
    if getattr(version, "model_id", None):
        logged = _by_id(client.get_logged_model, version.model_id)
        if logged is not None:
            found = _of_logged(client, logged)
    return replace(
        found,
        run_id=found.run_id or version.run_id or "",
        name=str(version.name),
        version=str(version.version),
    )


def _of_logged(client: Any, logged: Any) -> Model:
    run = _by_id(client.get_run, logged.source_run_id) if logged.source_run_id else None
    outputs = getattr(run, "outputs", None)
    steps = {one.model_id: one.step for one in (outputs.model_outputs if outputs else ())}
    step = steps.get(logged.model_id)
    return Model(logged.source_run_id or "", step, int(logged.creation_timestamp))


def _latest_experiment_id(client: Any) -> str:
    everywhere = [each.experiment_id for each in client.search_experiments()]
    newest = ["attributes.start_time DESC"]
    found = client.search_runs(everywhere, CHECKED, max_results=1, order_by=newest)
    if not found:
        raise ArgumentError(
            "There must be a run with gradient checks. Received: a store without one. Train with "
            "tfcheck.callbacks.GradientCheck, or name another store."
        )
    return str(found[0].info.experiment_id)


def _by_id(get: Any, text: str) -> Any:
    """What has this id; None where nothing has."""
    from mlflow.exceptions import MlflowException

    try:
        return get(text)
    except MlflowException as error:
        if _is_not_there(error):
            return None
        raise


def _is_not_there(error: Any) -> bool:
    """Whether MLflow says that there is no such thing, or that nothing can be called so."""
    return error.error_code in _NOT_THERE
