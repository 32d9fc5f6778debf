"""One row of a report as a few lines of plain text, for files and logs of other tools."""

from __future__ import annotations

from tfcheck.rendering import words
from tfcheck.rendering.rows import needs_attention
from tfcheck.report.outcome import Outcome
from tfcheck.report.rows import VariableReport


def row_text(report: Outcome, variable: VariableReport) -> str:
    """A row in words: its verdict, its numbers, what there is to say of it, where it is worst.

    Args:
        report: the report that the row is of.
        variable: the row.
    """
    numbers = (
        f"score {words.scientific(variable.score)}",
        f"‖analytic‖ {words.number(variable.analytic_norm)}",
        f"‖numerical‖ {words.number(variable.numerical_norm)}",
        f"error bar {words.scientific(variable.error_bar, 0)}",
    )
    lines = [
        f"{variable.path}: {words.verdict_words(variable, report.settings.thresholds)}",
        ", ".join(numbers),
        *words.variable_sentences(variable),
    ]
    if variable.worst and needs_attention(variable):
        worst = variable.worst[0]
        lines.append(
            f"Worst at {words.index(worst.index)}: analytic {words.number(worst.analytic, 6)}, "
            f"numerical {words.number(worst.numerical, 6)} ± {words.scientific(worst.error_bar)}."
        )
    return words.printable("\n".join(lines))
