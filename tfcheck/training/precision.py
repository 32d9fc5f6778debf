"""How far the gradients that train are from those in float64: whether the precision suffices.

That is another question than whether a gradient is right, so no verdict depends on the answer. A
layer of which float16 keeps nothing has a right gradient and does not learn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tfcheck.examine.finding import Finding
from tfcheck.examine.point_facts import PointFacts
from tfcheck.judge.reasons import Reason
from tfcheck.measure.distance import distance


@dataclass(frozen=True)
class TrainedGradient:
    """The gradient of a variable in the precision that trains; `nan` where that is unknown.

    Attributes:
        error: how far it is from the float64 one, as a similarity score.
        norm: its norm.
    """

    error: float = math.nan
    norm: float = math.nan


def trained_gradients(findings: Sequence[Finding], point: PointFacts) -> dict[str, TrainedGradient]:
    """How far the gradients that train are from the float64 ones, by the variables' paths.

    Where several tapes differentiate a variable, the largest distance counts. A gradient that is
    zero within the error bar has none: there, rounding is all there is in either.

    Args:
        findings: the findings for the step's variables.
        point: the step at the point.
    """
    base = point.base
    found: dict[str, TrainedGradient] = {}
    for subject, gradient in zip(point.subjects, base.gradients_as_trained, strict=False):
        path = subject.parameter.path
        error = distance(gradient, subject.gradient)
        if gradient is not None and error >= found.get(path, _NONE).error:
            norm = float(np.linalg.norm(gradient.astype(np.float64)))
            scale = abs(base.scales[subject.parameter.loss])
            found[path] = TrainedGradient(error, norm / scale)
    zero = {f.path for f in findings if f.judgement.reason == Reason.BELOW_RESOLUTION}
    return {
        path: TrainedGradient(math.nan, trained.norm) if path in zero else trained
        for path, trained in found.items()
    }


_NONE = TrainedGradient(0.0, 0.0)
