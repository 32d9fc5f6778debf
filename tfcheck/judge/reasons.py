"""Why a verdict is not simply the band of its score: each reason with its name and its sentence."""

from __future__ import annotations

import enum
from typing import Self


class Reason(enum.StrEnum):
    """A reason, as it stands in a report.

    Attributes:
        shown: how a table names it.
        sentence: what it means, for a reader.
        of_the_step: whether it concerns the training step rather than a derivative.
    """

    shown: str
    sentence: str
    of_the_step: bool

    def __new__(cls, value: str, shown: str, sentence: str, of_the_step: bool = False) -> Self:
        """A member with what there is to say of it."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.shown, member.sentence, member.of_the_step = shown, sentence, of_the_step
        return member

    def __repr__(self) -> str:
        return repr(self.value)

    KINK = (
        "kink",
        "kink",
        "The loss has a kink here (ReLU, max, |x|): its slope is not unique at this point.",
    )
    UNUSED = "unused", "unused", "The loss does not depend on it."
    BLOCKED = (
        "blocked",
        "blocked",
        (
            "The tape gives no gradient although the loss depends on it: something on the way "
            "to the loss (a cast, an argmax, a stop_gradient, NumPy) cuts the gradient off."
        ),
    )
    WRONG_SHAPE = (
        "wrong_shape",
        "wrong shape",
        "The tape's gradient has another shape than the variable.",
    )
    BELOW_RESOLUTION = (
        "below_resolution",
        "below resolution",
        "The gradient is so small that this loss cannot tell it from zero.",
    )
    NON_FINITE = "non_finite", "non-finite", "NaN or infinity in the loss or the gradient."
    STOCHASTIC = (
        "stochastic",
        "random",
        "The loss is random here: two evaluations at one point differ.",
    )
    DECLARED = "declared", "declared", "Declared as an expected mismatch, so it does not count."
    UNCHECKED = "unchecked", "unchecked", "It could not be checked; the notes say why."
    MISAPPLIED = (
        "misapplied",
        "misapplied",
        "The tape's gradient is not what the optimizer receives.",
        True,
    )
    OTHER_LOSS = (
        "other_loss",
        "other loss",
        "What is trained is nearly, but not quite, the loss the model is compiled with.",
        True,
    )
    UNTRAINED = (
        "untrained",
        "untrained",
        "The loss depends on it, but the training step does not train it.",
        True,
    )
    UNTRACKED = (
        "untracked",
        "untracked",
        "A layer computes with it, but it is no weight of the model.",
    )
    COMPILED = (
        "compiled",
        "under XLA",
        "It is right without XLA, but fit compiles the step with XLA.",
    )


OF_THE_STEP = tuple(reason for reason in Reason if reason.of_the_step)
"""Reasons that have to do with the training step, not with a derivative."""


_KNOWN = {str(reason): reason for reason in Reason}


def shown(reason: str) -> str:
    """How a table names a reason; one that is not known, of another version, stands for itself."""
    return _KNOWN[reason].shown if reason in _KNOWN else reason


def sentence(reason: str) -> str:
    """What a reason means; `""` for one that is not known."""
    return _KNOWN[reason].sentence if reason in _KNOWN else ""
