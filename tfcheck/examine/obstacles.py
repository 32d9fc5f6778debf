"""What makes a loss or a variable impossible to measure, or leaves nothing to be measured of it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import tensorflow as tf

from tfcheck.errors import some
from tfcheck.examine.loss_facts import LossFacts
from tfcheck.examine.point_facts import PointFacts
from tfcheck.examine.subject import Subject
from tfcheck.judge.judgement import UNUSED, Judgement
from tfcheck.judge.reasons import Reason
from tfcheck.judge.verdict import Verdict
from tfcheck.measure.directions import Array
from tfcheck.variables import entries_of

_OF_NAMES = Judgement(
    Verdict.PASS,
    Reason.UNUSED,
    "It is only used as integers, such as ids, or compared: there is no gradient to check.",
)


def obstacle_of(point: PointFacts, loss: LossFacts) -> Judgement | None:
    """What makes every gradient of a loss impossible to judge; None for nothing.

    Args:
        point: the step at the point.
        loss: one of its losses.
    """
    objective, base = point.objective, point.base
    if not math.isfinite(loss.value):
        return Judgement(Verdict.FAIL, Reason.NON_FINITE, f"The loss is {loss.value}.")
    if not math.isfinite(trained := base.losses_as_trained[loss.number]):
        note = (
            f"The loss is {trained} in {objective.facts.lowest}, in which it trains, though it "
            f"is {loss.value / base.scales[loss.number]:.3g} in float64."
        )
        return Judgement(Verdict.FAIL, Reason.NON_FINITE, note)
    if objective.facts.may_differ and _differs(point, loss.number):
        what = some(objective.facts.random_ops) or "an operation outside TensorFlow's seeds"
        return Judgement(
            Verdict.INCONCLUSIVE,
            Reason.STOCHASTIC,
            f"The loss differs between two evaluations at one point: {what} draws new numbers "
            "each time. Draw them from a keras.random.SeedGenerator.",
        )
    if sampling := objective.facts.samples[loss.number]:
        return Judgement(
            Verdict.INCONCLUSIVE,
            Reason.STOCHASTIC,
            f"{sampling} draws from a distribution that is trained. How the samples move with "
            "it, no difference between two draws shows.",
        )
    error = loss.parity_error
    return None if error is None else Judgement(Verdict.INCONCLUSIVE, "", str(error))


def _differs(point: PointFacts, loss: int) -> bool:
    """Whether two evaluations of a loss at one point differ."""
    objective, inputs = point.objective, point.base.inputs
    return objective.loss(loss, inputs) != objective.loss(loss, inputs)


def without_measuring(
    point: PointFacts, subject: Subject, obstacle: Judgement | None
) -> Judgement | None:
    """The judgement of a variable that needs no measuring, or allows none; None for the others.

    Args:
        point: the step at the point.
        subject: the variable.
        obstacle: what makes its loss impossible to judge; None for nothing.
    """
    parameter, gradient = subject.parameter, subject.gradient
    if refusal := _refusal(subject) or _spoilt_in_training(point, subject):
        return refusal
    if obstacle is not None:
        return replace(obstacle, note="")
    if gradient is None and point.objective.is_of_names(point.base, parameter):
        return _OF_NAMES
    if not parameter.inputs or entries_of(parameter.variable) == 0:
        return UNUSED
    return None


def _refusal(subject: Subject) -> Judgement | None:
    """What in a gradient itself allows no measuring."""
    variable, gradient = subject.parameter.variable, subject.gradient
    shape = tuple(variable.shape)
    if tf.as_dtype(variable.dtype).is_complex:
        note = "Variables of complex numbers are not measured."
        return Judgement(Verdict.INCONCLUSIVE, Reason.UNCHECKED, note)
    if gradient is not None and gradient.shape != shape:
        note = (
            f"The tape's gradient has shape {gradient.shape}, but the variable has shape {shape}."
        )
        return Judgement(Verdict.FAIL, Reason.WRONG_SHAPE, note)
    if gradient is not None and (spoilt := _not_finite(gradient)):
        note = f"{spoilt} entries of the tape's gradient are not finite."
        return Judgement(Verdict.FAIL, Reason.NON_FINITE, note)
    return None


def _spoilt_in_training(point: PointFacts, subject: Subject) -> Judgement | None:
    """The judgement of a gradient that only the training precision makes NaN or infinite.

    An optimizer that scales its loss expects that, and leaves such a step out.
    """
    base, trained = point.base, point.base.gradients_as_trained
    gradient = trained[subject.position] if subject.position < len(trained) else None
    if gradient is None or base.scales[subject.parameter.loss] != 1.0:
        return None
    if not (spoilt := _not_finite(gradient)):
        return None
    note = (
        f"{spoilt} entries of the gradient are not finite in {point.objective.facts.lowest}, in "
        "which it trains, though they are in float64."
    )
    return Judgement(Verdict.FAIL, Reason.NON_FINITE, note)


def _not_finite(gradient: Array) -> str:
    """How many entries are not finite, as in "3 of 12"; `""` where all are."""
    count = int(np.size(gradient) - np.count_nonzero(np.isfinite(gradient)))
    return f"{count} of {np.size(gradient)}" if count else ""
