"""The vocabulary of the judgement: verdicts and the bands of the similarity score."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable
from dataclasses import dataclass

from tfcheck.errors import ArgumentError, rule

PRECISION = 0.2
"""A layer is imprecise where its gradients in training are further than this from float64, as a
similarity score. No verdict depends on it. Layers of eight small healthy models, new and trained,
were at most 1e-3 off in float32, 0.07 in mixed_float16 and 0.09 in mixed_bfloat16."""

MOST_DIGITS = 16.0  # what float64 can hold: more agreement than that cannot be seen


class Verdict(enum.StrEnum):
    """What a gradient check says of a variable, a layer or a whole model.

    `ERROR` is never the verdict of a gradient: it marks a check that could not be carried out.
    """

    PASS = "pass"
    SUSPECT = "suspect"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    ERROR = "error"

    @property
    def severity(self) -> int:
        """How much the verdict weighs when the worst of several is taken: 0 (pass) to 4."""
        return _SEVERITY[self]


_SEVERITY = {
    Verdict.PASS: 0,
    Verdict.INCONCLUSIVE: 1,
    Verdict.SUSPECT: 2,
    Verdict.ERROR: 3,
    Verdict.FAIL: 4,
}


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst verdict: fail, then error, suspect, inconclusive, and pass.

    A wrong gradient weighs more than a check that could not be made, and that more than anything
    else: an error must neither hide a wrong gradient nor hide behind a pass.

    Returns:
        `Verdict.INCONCLUSIVE` when there is none: nothing was checked, so nothing is known.
    """
    return max(verdicts, key=lambda verdict: verdict.severity, default=Verdict.INCONCLUSIVE)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The bands of the similarity score ‖ĝ − g‖ / (‖ĝ‖ + ‖g‖).

    Args:
        great: scores up to here mean the gradients are the same. Defaults to 1e-7.
        okay: scores up to here mean they are basically the same: the largest score that passes.
            Defaults to 1e-5.
        concerning: scores from here on mean there is most likely a bug. Between `okay` and
            `concerning` a variable is suspect. Defaults to 1e-3.

    Raises:
        ArgumentError: unless 0 < great <= okay < concerning <= 1.

    Source: the bands of classical gradient checking (Ng, Improving Deep Neural Networks, 2017).

    Example:
        >>> Thresholds(okay=1e-6).band(3e-6)
        'suspect'
    """

    great: float = 1e-7
    okay: float = 1e-5
    concerning: float = 1e-3

    def __post_init__(self) -> None:
        try:
            ordered = 0 < self.great <= self.okay < self.concerning <= 1
        except TypeError:
            ordered = False
        if not ordered:
            raise ArgumentError(
                rule(
                    "Thresholds must satisfy 0 < great <= okay < concerning <= 1",
                    "(great, okay, concerning)",
                    (self.great, self.okay, self.concerning),
                    "Give them in that order, for example Thresholds(1e-7, 1e-5, 1e-3)",
                )
            )

    def band(self, score: float) -> str:
        """The name of the band a score falls in: great, okay, suspect or concerning."""
        if math.isnan(score):
            return "unknown"
        if score <= self.great:
            return "great"
        if score <= self.okay:
            return "okay"
        return "suspect" if score < self.concerning else "concerning"


def digits(score: float) -> float:
    """How many digits of the two gradients agree: −log10 of a similarity score.

    Higher is better, and a linear axis shows it well. Metrics of unknown value draw as gaps, so a
    score that is not finite counts as no agreement at all.

    Args:
        score: a similarity score, 0 for equal gradients and 1 for unrelated ones.

    Returns:
        A number from 0 to 16: 16 for a score of zero, 0 for `nan` and `inf`.

    Example:
        >>> digits(1e-7), digits(0.0), digits(math.nan)
        (7.0, 16.0, 0.0)
    """
    if not math.isfinite(score):
        return 0.0
    if score <= 0:
        return MOST_DIGITS
    return min(MOST_DIGITS, max(0.0, -math.log10(score)))
