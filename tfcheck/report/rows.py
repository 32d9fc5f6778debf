"""The rows of a report, as frozen values: layers → variables → coordinates.

Norms are Euclidean and in the units of the loss per unit of the variable; unknown numbers are
`nan`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tfcheck.judge.reasons import Reason
from tfcheck.judge.verdict import Verdict
from tfcheck.measure.similarity import similarity
from tfcheck.report.curves import Curves


@dataclass(frozen=True, slots=True)
class Coordinate:
    """One entry of a variable: its two derivatives, side by side.

    Attributes:
        index: position in the variable, one integer an axis; `()` for a scalar.
        analytic: the derivative `GradientTape` gives; `nan` where the tape gave none.
        numerical: the derivative by central differences; before a wrong layer, what the right
            backward pass makes of the differences of that layer.
        error_bar: how far `numerical` may be from the true derivative.
    """

    index: tuple[int, ...]
    analytic: float
    numerical: float
    error_bar: float


@dataclass(frozen=True, slots=True)
class VariableReport:
    """The finding for one variable.

    Attributes:
        path: Keras path of the variable, such as `"dense/kernel"`.
        layer: Keras path of the layer that owns it, such as `"dense"`.
        shape: the variable's shape.
        score: similarity score ‖ĝ − g‖ / (‖ĝ‖ + ‖g‖) of this variable; `nan` where unknown.
        verdict: the judgement.
        reason: why the verdict is not simply the band of the score; `""` or a
            `Reason`.
        analytic_norm: ‖g‖, from the tape.
        numerical_norm: ‖ĝ‖, estimated along the directions measured.
        error_bar: the part of the score that truncation, round-off and noise can explain.
        worst: the most deviating coordinates looked at, worst first; empty where nothing deviates.
        detectable_error: the smallest ‖ĝ − g‖ that the check would have seen, in the units of the
            gradient; `nan` where unknown.
        note: one sentence for a reader, or `""`.
        pattern: how a wrong gradient follows from something at hand, such as a factor, a sign, a
            transpose or another variable's gradient, as one sentence; `""` where it does not.
        precision_error: ‖g_t − g‖ / (‖g_t‖ + ‖g‖), where g_t is the tape's gradient in the
            precision that trains and g the one in float64; `nan` where unknown or not applicable.
        trained_norm: ‖g_t‖.
        compiled_distance: the same distance between the gradient compiled with XLA and g_t; None
            where they were not compared, as where `fit` does not compile the step.
        slopes: where a kink was found at the point, the slopes of the loss to the left, by the
            tape and to the right, along the direction that deviates most; None where none was.
        curves: what pictures of it are drawn from: of the first wrong ones, and in a single check
            of a small model of a right one; None for all others.
    """

    path: str
    layer: str
    shape: tuple[int, ...]
    score: float
    verdict: Verdict
    reason: str
    analytic_norm: float
    numerical_norm: float
    error_bar: float
    worst: tuple[Coordinate, ...] = ()
    detectable_error: float = math.nan
    note: str = ""
    pattern: str = ""
    precision_error: float = math.nan
    trained_norm: float = math.nan
    compiled_distance: float | None = None
    slopes: tuple[float, float, float] | None = None
    curves: Curves | None = None

    @property
    def name(self) -> str:
        """The variable's own name within its layer, such as `"kernel"`."""
        return self.path.removeprefix(f"{self.layer}/")

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)

    @property
    def counts(self) -> bool:
        """Whether this variable takes part in the verdict: a declared mismatch does not."""
        return self.reason != Reason.DECLARED

    @property
    def compared(self) -> bool:
        """Whether a difference between its two gradients would have been told, or was."""
        known = math.isfinite(self.score) or self.verdict is Verdict.FAIL
        return known and self.reason not in _NOT_COMPARED


_NOT_COMPARED = (Reason.UNUSED, Reason.BELOW_RESOLUTION, Reason.UNCHECKED, Reason.UNTRAINED)


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of a model was really compared, and not just found too small to be seen.

    Attributes:
        variables: the share of the checked variables, from 0 to 1; `nan` where there are none.
        parameters: the share of their entries.
    """

    variables: float
    parameters: float


@dataclass(frozen=True, slots=True)
class LayerReport:
    """The findings for the variables of one layer, and their score as one vector."""

    path: str
    score: float
    verdict: Verdict
    variables: tuple[VariableReport, ...]

    @property
    def precision_error(self) -> float:
        """The `precision_error` of the layer's variables as one vector; `nan` where unknown."""
        known = [v for v in self.variables if not math.isnan(v.precision_error)]
        if not all(math.isfinite(v.trained_norm) for v in known):
            return 1.0
        gaps = (v.precision_error * (v.trained_norm + v.analytic_norm) for v in known)
        norms = math.hypot(*(v.trained_norm for v in known))
        norms += math.hypot(*(v.analytic_norm for v in known))
        return similarity(math.hypot(*gaps), norms) if known else math.nan


@dataclass(frozen=True, slots=True)
class ObjectiveSummary:
    """What was differentiated.

    Attributes:
        source: where the loss came from: `"train_step"`, `"loss_fn"`, `"compute_loss"`, or, for a
            layer by itself, `"layer"`.
        phase: `"train"` or `"inference"`.
        losses: value of each loss that a tape differentiated, in float64.
        parity: the largest relative difference between those values and the losses as trained.
        precision: precision of the graph that was measured, normally `"float64"`.
        islands: operations without a float64 form, which were measured in their own precision.
        random_ops: operations that draw different numbers at every evaluation.
        trained_precision: the lowest precision in the step as trained, such as `"float16"`.
        trained_losses: value of each loss in that precision.
        compiled_losses: the same where XLA compiles the step; empty where `fit` does not use XLA.
        eager_losses: the same where the step runs eagerly, at the first check of a training; empty
            where that is unknown.
    """

    source: str
    phase: str
    losses: tuple[float, ...] = ()
    parity: float = math.nan
    precision: str = "float64"
    islands: tuple[str, ...] = ()
    random_ops: tuple[str, ...] = ()
    trained_precision: str = ""
    trained_losses: tuple[float, ...] = ()
    compiled_losses: tuple[float, ...] = ()
    eager_losses: tuple[float, ...] = ()


def badness(variable: VariableReport) -> tuple[bool, int, float]:
    """A key to sort variables by: the worst verdict is the largest, then the highest score."""
    score = math.inf if math.isnan(variable.score) else variable.score
    return variable.counts, variable.verdict.severity, score
