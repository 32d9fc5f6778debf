"""What became of each variable over the checkpoints: its worst moment, and when it failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tfcheck.gradient_report import GradientReport
from tfcheck.judge.reasons import Reason
from tfcheck.judge.verdict import Verdict, worst
from tfcheck.report.rows import VariableReport, badness

# Reasons that explain a high score away: such a score says nothing of the backward pass.
EXPLAINED = frozenset({Reason.BELOW_RESOLUTION, Reason.DECLARED, Reason.STOCHASTIC, Reason.UNUSED})


@dataclass(frozen=True, slots=True)
class VariableHistory:
    """One variable over all checkpoints.

    Attributes:
        label: the variable's Keras path, with a number where several variables share it.
        layer: Keras path of its layer.
        worst: the finding at the checkpoint where it did worst.
        worst_step: optimizer iterations at that checkpoint.
        latest: the verdict at the last checkpoint.
        failing_since: step of the first failure; None when it never failed.
    """

    label: str
    layer: str
    worst: VariableReport
    worst_step: int
    latest: Verdict
    failing_since: int | None

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of all checkpoints."""
        return self.worst.verdict

    @property
    def failed(self) -> bool:
        """Whether it failed at any checkpoint."""
        return self.failing_since is not None


def step_of(report: GradientReport) -> int:
    """Optimizer iterations at the check; 0 for a check outside training."""
    return report.step or 0


def judged(reports: Iterable[GradientReport]) -> tuple[GradientReport, ...]:
    """The reports of checks that could be carried out."""
    return tuple(report for report in reports if report.verdict is not Verdict.ERROR)


def overall(reports: Sequence[GradientReport]) -> Verdict:
    """The worst verdict so far."""
    return worst(report.verdict for report in reports)


def numbered(names: Iterable[str]) -> list[str]:
    """The names, with `" (2)"`, `" (3)"` … after those that have come before.

    Example:
        >>> numbered(["dense/kernel", "dense/bias", "dense/kernel"])
        ['dense/kernel', 'dense/bias', 'dense/kernel (2)']
    """
    seen: Counter[str] = Counter()
    unique = []
    for name in names:
        seen[name] += 1
        unique.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return unique


def histories(reports: Sequence[GradientReport]) -> tuple[VariableHistory, ...]:
    """The history of every variable, in model order."""
    found: dict[str, VariableHistory] = {}
    for report in judged(reports):
        step = step_of(report)
        labels = numbered(variable.path for variable in report.variables)
        for label, variable in zip(labels, report.variables, strict=True):
            fails = variable.verdict is Verdict.FAIL and variable.counts
            before = found.get(label)
            if before is None:
                since = step if fails else None
                found[label] = VariableHistory(
                    label, variable.layer, variable, step, variable.verdict, since
                )
                continue
            now = replace(before, latest=variable.verdict)
            if badness(variable) > badness(before.worst):
                now = replace(now, worst=variable, worst_step=step)
            if fails and not before.failed:
                now = replace(now, failing_since=step)
            found[label] = now
    return tuple(found.values())


def worst_first(found: Iterable[VariableHistory]) -> tuple[VariableHistory, ...]:
    """Histories, those that did worst first."""
    return tuple(sorted(found, key=lambda history: badness(history.worst), reverse=True))


def failing_layers(reports: Sequence[GradientReport]) -> tuple[str, ...]:
    """Every layer that failed at any checkpoint, first failure first."""
    return tuple(dict.fromkeys(layer for report in reports for layer in report.failing_layers))


def culprits(reports: Sequence[GradientReport]) -> tuple[str, ...]:
    """Every layer found to be wrong by itself, first finding first."""
    return tuple(guilty_since(reports))


def guilty_since(reports: Sequence[GradientReport]) -> dict[str, int]:
    """The step at which each layer was first found to be wrong by itself, by its path."""
    since: dict[str, int] = {}
    for report in reports:
        for path in report.culprits:
            since.setdefault(path, step_of(report))
    return since


def culprit_places(reports: Sequence[GradientReport]) -> dict[str, str]:
    """The line where the code of each culprit is, by its path, as far as that is known."""
    return {
        path: place
        for report in reports
        for path, place in zip(report.culprits, report.culprit_places, strict=False)
        if place
    }


def first_fail(reports: Sequence[GradientReport]) -> GradientReport | None:
    """The first report that failed; None when none did."""
    return next((report for report in reports if report.verdict is Verdict.FAIL), None)
