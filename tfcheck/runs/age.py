"""Is the last check older than the model? What a run logs says how far its training went."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tfcheck.runs.record import Check

LAST_STEP = "gradcheck.last_step"
"""The tag of the optimizer iterations at which a training with checks ended."""


@dataclass(frozen=True, slots=True)
class Series:
    """One metric of a training, as it was logged.

    Attributes:
        name: its name.
        points: for each value the step that it was logged at, and when, in milliseconds since 1970.
    """

    name: str
    points: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Training:
    """How far a training went, as far as its run tells.

    Attributes:
        series: the metrics that are not tfcheck's.
        last_step: optimizer iterations when it ended; None where it was killed, or made by a
            version that did not note it.
        model_step: the step that the model was logged at; None without a model.
        model_at: when it was logged, in milliseconds since 1970; None without a model.
    """

    series: tuple[Series, ...] = ()
    last_step: int | None = None
    model_step: int | None = None
    model_at: int | None = None


def why_older(check: Check, training: Training) -> str:
    """Why a check is older than what was trained, as a clause; `""` where it is not.

    Training went on after the check where it ended at a later step, where the model was logged at
    a later step, or where a metric was logged at two or more steps since: one is what others log
    at the moment of the check. Where no end is noted, one is enough if its step is a later one, or
    if the metric had a value for every epoch already. Where nothing tells, nothing is known.

    Args:
        check: the last check of a callback.
        training: the training of its run.
    """
    if _was_made_after_the_model(check, training):
        return ""
    step = check.step if check.in_training else None
    if step is not None and training.last_step is not None and training.last_step > step:
        return f"training went on to step {training.last_step}"
    if step is not None and (training.model_step or 0) > step:
        return f"the model was logged at step {training.model_step}"
    for series in training.series:
        if reason := _goes_on(series, check, training):
            return reason
    return "" if _is_known(check, training) else "nothing in the run tells how far training went"


def _was_made_after_the_model(check: Check, training: Training) -> bool:
    known = training.model_at is not None and check.made_at is not None
    return known and (check.made_at or 0) >= (training.model_at or 0)


def _goes_on(series: Series, check: Check, training: Training) -> str:
    """Whether a metric tells of training after the check and before the model, as a clause."""
    before, after = _split(series, check, training.model_at)
    if not after:
        return ""
    told = f"{series.name} was logged at step {max(step for step, _ in after)} after it"
    if _moments(after, series) >= 2:
        return told
    if not check.in_training or training.last_step is not None:
        return ""  # it ended at the step of this check
    beyond = max(step for step, _ in after) > check.step
    every_epoch = check.epoch is not None and _moments(before, series) >= max(check.epoch, 1)
    return told if beyond or every_epoch or check.step == 0 else ""


Points = Sequence[tuple[int, int]]


def _split(series: Series, check: Check, until: int | None) -> tuple[Points, Points]:
    """The values logged until a check, and those after it and before the model."""
    if check.made_at is None:
        return (), [point for point in series.points if point[0] > check.step]
    before = [point for point in series.points if point[1] <= check.made_at]
    after = [point for point in series.points if point[1] > check.made_at]
    return before, [point for point in after if until is None or point[1] <= until]


def _moments(points: Iterable[tuple[int, int]], series: Series) -> int:
    """At how many moments of training there are values.

    Whoever gives no step logs all at step 0; whoever logs twice at a step has logged once.
    """
    stepless = len({step for step, _ in series.points}) == 1
    return len(set(points) if stepless else {step for step, _ in points})


def _is_known(check: Check, training: Training) -> bool:
    """Whether anything tells that no training was after the check."""
    if training.last_step is not None or check.checkpoint == "end":
        return True
    trained = check.step > 0 or not check.in_training
    return trained and any(_split(series, check, None)[0] for series in training.series)
