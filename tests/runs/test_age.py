"""Is a check older than what was trained?"""

from __future__ import annotations

from dataclasses import replace

import pytest
from past_runs import EPOCH, check

from tfcheck.runs.age import Series, Training, why_older

LAST = check(5, hidden="pass")
"""At step 285, in second 5."""


def by_epoch(epochs: int, late: int = 0) -> Series:
    """A loss logged at the end of each epoch, so many milliseconds after a check there."""
    return Series("loss", tuple((epoch, 1000 * (epoch + 1) + late) for epoch in range(epochs)))


@pytest.mark.parametrize("late", [-1, 1])
def test_a_check_at_the_end_is_not_older(late: int) -> None:
    """Whether the loss of the last epoch is logged before it or after it."""
    assert why_older(LAST, Training((by_epoch(5, late),), last_step=285)) == ""
    assert why_older(LAST, Training((by_epoch(5, late),))) == ""


@pytest.mark.parametrize("late", [-1, 1])
@pytest.mark.parametrize("epochs", [6, 7, 20])
def test_training_that_went_on_is_seen_in_its_metrics(epochs: int, late: int) -> None:
    """Also where a killed training has noted no end."""
    assert "loss was logged" in why_older(LAST, Training((by_epoch(epochs, late),)))


def test_the_end_of_training_is_what_counts() -> None:
    """Where it is noted, no metric is needed."""
    assert why_older(LAST, Training(last_step=285)) == ""
    assert why_older(LAST, Training(last_step=286)) == "training went on to step 286"


def test_a_training_that_went_on_unchecked_is_seen() -> None:
    """It was resumed without the callback, so the noted end is that of the first part."""
    resumed = Training((by_epoch(8),), last_step=285)
    assert "loss was logged at step 7" in why_older(LAST, resumed)


def test_one_value_after_the_end_is_no_training() -> None:
    """A test accuracy is logged when all is over."""
    accuracy = Series("test_accuracy", ((0, 9000),))
    assert why_older(LAST, Training((by_epoch(5), accuracy), last_step=285)) == ""
    assert why_older(LAST, Training((by_epoch(5), accuracy))) == ""


def test_metrics_by_batch_are_compared_by_their_steps() -> None:
    """Where no end is noted, one value at a later step is enough."""
    logged = tuple((step, 1000 * step // EPOCH) for step in range(10, 311, 100))
    assert (
        why_older(LAST, Training((Series("loss", logged),)))
        == "loss was logged at step 310 after it"
    )
    assert why_older(LAST, Training((Series("loss", logged[:3]),))) == ""


def test_metrics_without_steps_are_counted() -> None:
    """Who gives no step logs all at step 0, at different times."""
    stepless = Series("loss", tuple((0, 1000 * epoch) for epoch in range(1, 9)))
    assert "loss was logged" in why_older(LAST, Training((stepless,), last_step=None))


def test_nothing_known_is_older() -> None:
    """Without an end and without metrics, nobody knows; a check at the end is one."""
    assert why_older(LAST, Training()) == "nothing in the run tells how far training went"
    assert why_older(replace(LAST, checkpoint="end"), Training()) == ""


def test_a_check_before_the_first_step_is_older_than_any_training() -> None:
    """By its end, and by the first value that was logged."""
    start = check(0, hidden="pass")
    assert why_older(start, Training(last_step=1)) == "training went on to step 1"
    assert "loss was logged" in why_older(start, Training((by_epoch(1),)))
    assert why_older(start, Training()) != ""


def test_a_model_is_compared_by_when_it_was_logged() -> None:
    """What was logged after it has not trained it; what was logged before it has."""
    series = (by_epoch(9),)
    assert why_older(LAST, Training(series, model_at=4000)) == ""
    assert why_older(LAST, Training(series, model_at=5500)) == ""
    assert "loss was logged" in why_older(LAST, Training(series, model_at=7500))
    told = "the model was logged at step 400"
    assert why_older(LAST, Training((by_epoch(5),), 285, model_step=400, model_at=9000)) == told


def test_an_audit_is_compared_by_time_alone() -> None:
    """A check outside of training has no step of the training's."""
    audit = replace(LAST, step=0, epoch=None, in_training=False, made_at=9000)
    assert why_older(audit, Training((by_epoch(5),), last_step=285)) == ""
    assert why_older(replace(audit, made_at=2500), Training((by_epoch(5),))) != ""
