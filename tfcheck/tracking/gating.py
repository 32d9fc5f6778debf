"""`gate`: may what a run has trained be released, as far as its gradient checks go?"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from tfcheck.errors import ArgumentError, ArgumentTypeError, rule
from tfcheck.runs.gate import Case, Demands, Gate, judged
from tfcheck.settings import whole_number
from tfcheck.tracking import looking_up, reading, schema, server
from tfcheck.tracking.looking_up import Model

_MOST_EPOCHS = 1_000_000

_logger = logging.getLogger("tfcheck.tracking")


def gate(
    subject: str,
    *,
    min_coverage: float = 0.9,
    allow_suspect: bool = False,
    require_epochs: int | Iterable[int] = (),
    tags: bool = True,
    tracking_uri: str | None = None,
) -> Gate:
    """Whether what a run has trained may pass, as far as its gradient checks go.

    It passes where no check of that very training found a wrong gradient, the last check of each
    callback passed, compared enough, and is not older than what was trained.

    Args:
        subject: a run (its id, the beginning of it, or its name), an experiment (its name or id:
            its newest run, checked or not), or a model: `models:/NAME/VERSION`,
            `models:/NAME@ALIAS`, `models:/NAME/latest`.
        min_coverage: the least share of the variables that the last checks must have compared,
            from 0 to 1. Defaults to 0.9.
        allow_suspect: whether suspect gradients may pass. Defaults to False.
        require_epochs: there must be a check after each of these epochs that passed. Defaults to
            none.
        tags: whether the version of a registered model gets the outcome as tags: `gradcheck.gate`,
            `.verdict`, `.coverage` and `.run_id`. Defaults to True.
        tracking_uri: the MLflow store. Defaults to the current one.

    Returns:
        A frozen `Gate`, true where it passed; `reasons` say why not.

    Raises:
        ArgumentError: for an option that cannot be, or if there is no such subject.
        TrackingError: if MLflow is away.

    Example:
        >>> outcome = tfcheck.tracking.gate("models:/digits/3")  # doctest: +SKIP
        >>> outcome.passed, outcome.reasons  # doctest: +SKIP
        (False, ('The training of run train-3f2a1c was never checked.',))
    """
    demands = Demands(_share(min_coverage), allow_suspect, _epochs(require_epochs))
    with looking_up.asked(tracking_uri) as client:
        model = looking_up.model(client, subject) if looking_up.is_model(subject) else None
        run = _run_of(client, subject) if model is None else _run_of_model(client, model)
        outcome = judged(_case(client, subject, run, model), demands)
        if model is not None and tags:
            _tag(client, model, outcome)
        return outcome


def note(subject: str, outcome: Gate, tracking_uri: str | None = None) -> None:
    """Give the version of a registered model the outcome as tags; anything else is left alone.

    Args:
        subject: what the gate was asked for.
        outcome: its outcome.
        tracking_uri: the MLflow store. Defaults to the current one.

    Raises:
        TrackingError: if MLflow is away.
    """
    if looking_up.is_model(subject):
        with looking_up.asked(tracking_uri) as client:
            _tag(client, looking_up.model(client, subject), outcome)


def _case(client: Any, subject: str, run: Any, model: Model | None) -> Case:
    if run is None:
        return Case(subject, None)
    named = "" if run.info.run_name in (None, subject) else f" (run {run.info.run_name})"
    record = reading.record(client, run)
    if not record.checks:
        return Case(f"{subject}{named}", record)
    step, made_at = (None, None) if model is None else (model.step, model.made_at)
    return Case(f"{subject}{named}", record, reading.training(client, run, step, made_at))


def _run_of(client: Any, subject: str) -> Any:
    """The run of a name or id, or the newest of an experiment."""
    runs = looking_up.runs_named(client, subject)
    if runs:
        return runs[0]
    try:
        found = looking_up.experiment(client, subject)
    except ArgumentError as error:
        remedy = "Give the id or name of a run or an experiment, or models:/NAME/VERSION"
        raise ArgumentError(
            rule("A run, an experiment or a model must exist", "subject", subject, remedy)
        ) from error
    newest = looking_up.latest_run(client, found.experiment_id)
    if newest is None:
        raise ArgumentError(
            rule("An experiment must have a run", "subject", subject, "Train first, or name a run")
        )
    return newest


def _run_of_model(client: Any, model: Model) -> Any:
    return looking_up.run_of_id(client, model.run_id) if model.run_id else None


def _tag(client: Any, model: Model, outcome: Gate) -> None:
    """Note the outcome at the version; that it cannot be noted does not change it."""
    if not model.version:
        return
    values = {
        "gradcheck.gate": "passed" if outcome.passed else f"failed: {' '.join(outcome.reasons)}",
        "gradcheck.verdict": schema.NONE if outcome.verdict is None else str(outcome.verdict),
        "gradcheck.run_id": outcome.run_id or schema.NONE,
        "gradcheck.coverage": schema.NONE
        if outcome.coverage is None
        else f"{outcome.coverage:.3g}",
    }
    try:
        for name, value in values.items():
            client.set_model_version_tag(model.name, model.version, name, schema.cut(value, 1000))
    except Exception as error:  # noqa: BLE001 - the outcome stands
        _logger.warning(
            "The version of the model has no tags of the gate: MLflow %s.", server.said(error)
        )


def _share(value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ArgumentError(
            rule("min_coverage must be a number from 0 to 1", "min_coverage", value, "Try 0.9")
        )
    return float(value)


def _epochs(value: int | Iterable[int]) -> tuple[int, ...]:
    if isinstance(value, str) or not isinstance(value, int | Iterable):
        raise ArgumentTypeError(
            rule("require_epochs must be whole numbers", "require_epochs", value, "Try (1, 5)")
        )
    epochs = (value,) if isinstance(value, int) else tuple(value)
    return tuple(whole_number("require_epochs", epoch, 0, _MOST_EPOCHS) for epoch in epochs)
