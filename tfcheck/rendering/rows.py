"""Which variables a table shows, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tfcheck.judge.verdict import Verdict
from tfcheck.rendering.words import variable_sentences
from tfcheck.report.outcome import Outcome
from tfcheck.report.rows import VariableReport

MOST_ROWS = 30


@dataclass(frozen=True, slots=True)
class Rows:
    """The variables to show, layer by layer.

    Attributes:
        groups: the shown variables of one layer each, the worst layer first and within it the
            worst variable first.
        hidden: how many passing variables are not shown.
    """

    groups: tuple[tuple[VariableReport, ...], ...]
    hidden: int


def chosen_rows(report: Outcome, most: int | None = MOST_ROWS) -> Rows:
    """Choose the rows of a report's table.

    The variables of a layer stay together, because a kernel that passes beside a bias that fails
    tells where the mistake is. Whatever does not pass is always shown.

    Args:
        report: the report to show.
        most: how many rows to show before passing variables are left out; None shows all.
            Defaults to 30.
    """
    ranked = report.worst_first
    rank = {id(variable): place for place, variable in enumerate(ranked)}
    groups = sorted(
        (
            tuple(sorted(layer.variables, key=lambda variable: rank[id(variable)]))
            for layer in report.layers
            if layer.variables
        ),
        key=lambda group: rank[id(group[0])],
    )
    if most is None:
        return Rows(tuple(groups), 0)

    kept = {id(variable) for variable in ranked if needs_attention(variable)}
    kept |= {id(variable) for variable in ranked if not variable.counts}
    passing = [v for group in groups if attention(group) for v in group if id(v) not in kept]
    passing += [v for group in groups if not attention(group) for v in group if id(v) not in kept]
    kept |= {id(variable) for variable in passing[: max(0, most - len(kept))]}
    shown = (tuple(v for v in group if id(v) in kept) for group in groups)
    return Rows(tuple(group for group in shown if group), len(ranked) - len(kept))


def needs_attention(variable: VariableReport) -> bool:
    """Whether a variable counts and does not pass."""
    return variable.counts and variable.verdict is not Verdict.PASS


def attention(group: Sequence[VariableReport]) -> bool:
    """Whether any variable of a group needs attention."""
    return any(map(needs_attention, group))


def telling_variables(report: Outcome) -> tuple[VariableReport, ...]:
    """The variables of which there is more to say than a row of the table, worst first."""
    return tuple(
        variable
        for variable in report.worst_first
        if variable.note
        or (needs_attention(variable) and (variable.worst or variable_sentences(variable)))
    )
