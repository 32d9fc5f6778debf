"""How far the gradients that train are from those in float64: whether the precision suffices.

That is another question than whether a gradient is right, so no verdict depends on the answer. A
layer of which float16 keeps nothing has a right gradient and does not learn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tfcheck.examine.examination import Finding
from tfcheck.judge.reasons import Reason
from tfcheck.measure.distance import distance
from tfcheck.objective.objective import Objective
from tfcheck.objective.point import Base


def with_precision(findings: Sequence[Finding], objective: Objective, base: Base) -> list[Finding]:
    """Add to each finding how far the gradient that trains is from the float64 one.

    Where several tapes differentiate a variable, the largest distance counts. A gradient that is
    zero within the error bar has none: there, rounding is all there is in either.

    Args:
        findings: the findings for the step's variables.
        objective: the step.
        base: the point.
    """
    errors: dict[str, tuple[float, float]] = {}
    trained = zip(objective.parameters, base.gradients_as_trained, base.gradients, strict=False)
    for parameter, gradient, in_float64 in trained:
        error = distance(gradient, in_float64)
        if gradient is not None and error >= errors.get(parameter.path, (0.0, 0.0))[0]:
            scale = abs(base.scales[parameter.loss])
            errors[parameter.path] = (
                error,
                float(np.linalg.norm(gradient.astype(np.float64))) / scale,
            )

    def measured(finding: Finding) -> Finding:
        error, norm = errors.get(finding.report.path, (math.nan, math.nan))
        if finding.report.reason == Reason.BELOW_RESOLUTION:
            error = math.nan
        report = replace(finding.report, precision_error=error, trained_norm=norm)
        return replace(finding, report=report)

    return [measured(finding) for finding in findings]
