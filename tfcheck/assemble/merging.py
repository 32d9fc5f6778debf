"""One row for each variable: what examining found, and what the stages after it add.

The worse verdict wins, the earlier at a tie. A pass that does not follow from the numbers of its
own row is withdrawn. What is declared counts for nothing, whatever was found.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

from tfcheck.assemble.own_numbers import WITHDRAWN, follows
from tfcheck.examine.finding import Finding, Numbers
from tfcheck.judge.judgement import Judgement, worse
from tfcheck.judge.reasons import Reason
from tfcheck.judge.verdict import Thresholds, Verdict
from tfcheck.report.curves import Curves
from tfcheck.report.rows import VariableReport
from tfcheck.training.precision import TrainedGradient
from tfcheck.training.xla import CompiledPath

Objections = Mapping[str, Judgement]
"""What speaks against how gradients are used, by the variable's path."""

_DECLARED = Judgement(Verdict.INCONCLUSIVE, Reason.DECLARED)


@dataclass(frozen=True)
class Additions:
    """What the stages after examining say of variables, by their paths.

    Attributes:
        trained: their gradients as they train.
        objections: what speaks against how they are used, the first to be heard first.
        notes: sentences that take the place of what is said so far.
        compiled: what the step compiled with XLA gives.
        declared: those whose gradient is meant to differ.
        curves: what pictures of them are drawn from.
    """

    trained: Mapping[str, TrainedGradient] = field(default_factory=dict)
    objections: Sequence[Objections] = ()
    notes: Mapping[str, str] = field(default_factory=dict)
    compiled: CompiledPath = field(default_factory=CompiledPath)
    declared: Set[str] = frozenset()
    curves: Mapping[str, Curves] = field(default_factory=dict)


@dataclass(frozen=True)
class Merged:
    """All that is known of one variable.

    Attributes:
        row: its row in the report.
        numbers: the numbers that scores of several variables are made of.
    """

    row: VariableReport
    numbers: Numbers


def with_objections(finding: Finding, objections: Iterable[Objections]) -> Judgement:
    """The judgement of a variable, with what speaks against how its gradient is used.

    Args:
        finding: what was found of it.
        objections: what speaks against it, the first to be heard first.
    """
    return worse(finding.judgement, *(of_stage.get(finding.path) for of_stage in objections))


def merged(finding: Finding, additions: Additions, thresholds: Thresholds) -> Merged:
    """What was found of a variable, with all that was added.

    Args:
        finding: what was found of it.
        additions: what later stages say.
        thresholds: the bands.
    """
    numbers, path = finding.numbers, finding.path
    trained = additions.trained.get(path, TrainedGradient())
    so_far = with_objections(finding, additions.objections)
    if path in additions.notes:
        so_far = replace(so_far, note=additions.notes[path])
    judgement = worse(so_far, additions.compiled.wrong.get(path))
    row = VariableReport(
        path=path,
        layer=finding.layer,
        shape=finding.shape,
        score=numbers.score,
        verdict=judgement.verdict,
        reason=judgement.reason,
        analytic_norm=numbers.analytic_norm,
        numerical_norm=numbers.numerical_norm,
        error_bar=numbers.error_bar,
        # Entries say nothing of what is wrong under XLA alone.
        worst=finding.details.worst if judgement is so_far else (),
        detectable_error=numbers.detectable_error,
        note=judgement.note,
        pattern=finding.details.pattern,
        precision_error=trained.error,
        trained_norm=trained.norm,
        compiled_distance=additions.compiled.distances.get(path),
        slopes=finding.slopes,
        curves=additions.curves.get(path),
    )
    if not follows(row, numbers.gap_square, thresholds):
        row = _judged(row, WITHDRAWN)
    return Merged(_judged(row, _DECLARED) if path in additions.declared else row, numbers)


def _judged(row: VariableReport, judgement: Judgement) -> VariableReport:
    return replace(row, verdict=judgement.verdict, reason=judgement.reason, note=judgement.note)
