"""The wording that console, pages and plots share: symbols, numbers, names, sentences."""

from __future__ import annotations

import itertools
import math
import unicodedata
from collections.abc import Sequence

from tfcheck.judge.reasons import Reason, sentence
from tfcheck.judge.reasons import shown as shown_as
from tfcheck.judge.verdict import Thresholds, Verdict
from tfcheck.report.outcome import Outcome
from tfcheck.report.rows import VariableReport

SYMBOLS = {
    "great": "✓",
    "okay": "✓",
    "pass": "✓",
    "suspect": "!",
    "fail": "✗",
    "inconclusive": "?",
    "declared": "~",
    "error": "⊘",
}

CULPRIT = "▶ "
"""Marks a layer that is wrong by itself."""

HOW_TO_READ = (
    "score = ‖ĝ − g‖ / (‖ĝ‖ + ‖g‖), where g is the analytic gradient (GradientTape) and ĝ the "
    "numerical one (central differences): 0 is equal, 1 is unrelated. The error bar is the part "
    "of the score that truncation, round-off and noise can explain."
)


def kind(variable: VariableReport) -> str:
    """What a variable is shown as: its verdict, or `"declared"`."""
    return str(variable.verdict) if variable.counts else "declared"


def verdict_words(variable: VariableReport, thresholds: Thresholds) -> str:
    """Symbol and verdict, with what the verdict does not say itself: the band or the reason.

    Returns:
        Such as `"✓ pass, great"`, `"✗ fail"` or `"? inconclusive, below resolution"`.
    """
    shown = kind(variable)
    words = f"{SYMBOLS[shown]} {shown}"
    if shown == "declared":
        return words
    if variable.reason:
        return f"{words}, {shown_as(variable.reason)}"
    return f"{words}, {thresholds.band(variable.score)}" if shown == "pass" else words


def scientific(value: float, decimals: int = 1) -> str:
    """A number in scientific notation, without padding in the exponent.

    Example:
        >>> scientific(2.07e-10), scientific(1e-7, 0), scientific(float("nan"))
        ('2.1e-10', '1e-7', 'nan')
    """
    if not math.isfinite(value) or value == 0:
        return _special(value)
    mantissa, exponent = f"{value:.{decimals}e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def limit(value: float) -> str:
    """A threshold, as short as it can be written: `1e-7`, `2.5e-4`.

    Example:
        >>> limit(1e-7), limit(0.00025)
        ('1e-7', '2.5e-4')
    """
    mantissa, exponent = f"{value:e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def number(value: float, digits: int = 3) -> str:
    """A number with so many digits: plain when it is neither large nor small, else scientific.

    Example:
        >>> number(0.53219), number(1.234e-5), number(12345.0), number(float("-inf"))
        ('0.532', '1.23e-5', '12345', '-inf')
    """
    if not math.isfinite(value) or value == 0:
        return _special(value)
    exponent = math.floor(math.log10(abs(value)))
    if -3 <= exponent < 5:
        return f"{value:.{max(0, digits - 1 - exponent)}f}"
    return scientific(value, digits - 1)


def _special(value: float) -> str:
    return "0" if value == 0 else str(float(value))


def ratio(analytic: float, numerical: float) -> str:
    """Numerical over analytic, which shows a wrong sign or a wrong factor; `""` if undefined."""
    if not (math.isfinite(analytic) and math.isfinite(numerical)) or analytic == 0:
        return ""
    return number(numerical / analytic)


def shape(sizes: Sequence[int]) -> str:
    """A shape such as `"128×10"`; `"scalar"` for `()`."""
    return "×".join(map(str, sizes)) or "scalar"


def index(position: Sequence[int]) -> str:
    """A coordinate's position such as `"[3, 0]"`; `"scalar"` for `()`."""
    return f"[{', '.join(map(str, position))}]" if position else "scalar"


def plural(count: int, noun: str) -> str:
    """A count with its noun: `"1 variable"`, `"2 variables"`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def printable(text: str) -> str:
    """Text without control characters, which could otherwise steer a reader's terminal."""
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(c)[0] == "C" and c != "\n" else c
        for c in text
    )


def shortened(path: str, width: int, mark: str = "…") -> str:
    """A path cut at its front, so that its end, which names the variable, stays.

    Args:
        path: the path.
        width: how long it may be.
        mark: stands for what is cut off. Defaults to `"…"`.

    Example:
        >>> shortened("encoder/block_3/attention/query/kernel", 24)
        '…/attention/query/kernel'
    """
    if len(path) <= width:
        return path
    tail = path[len(path) - max(width - len(mark), 0) :]
    slash = tail.find("/")
    # Cut between two names where that loses little; within a name otherwise.
    return f"{mark}{tail[slash:] if 0 <= slash <= width // 3 else tail}"[-max(width, 1) :]


def clipped(text: str, width: int) -> str:
    """A text cut at its end.

    Example:
        >>> clipped("nothing is wrong", 10)
        'nothing i…'
    """
    return text if len(text) <= width else f"{text[: width - 1]}…"


def folded(path: str, width: int, mark: str = "…", most_lines: int = 4) -> list[str]:
    """Break a path into lines, behind a slash if there is one; if too long, its front is cut.

    Example:
        >>> folded("encoder/block_3/attention/kernel", 20)
        ['encoder/block_3/', '  attention/kernel']
    """
    rest = shortened(path, most_lines * (width - 2) * 3 // 4, mark)
    lines: list[str] = []
    while rest:
        indent = "  " if lines and width > 4 else ""
        room = max(1, width - len(indent))
        end = len(rest) if len(rest) <= room else rest.rfind("/", 0, room) + 1 or room
        lines.append(indent + rest[:end])
        rest = rest[end:]
    return lines


def moment(report: Outcome) -> str:
    """When in training a check was made: `"epoch 5 (step 938)"`; `""` outside training."""
    if report.step is None:
        return report.checkpoint
    return (
        f"{report.checkpoint} (step {report.step})" if report.checkpoint else f"step {report.step}"
    )


def placed_culprits(report: Outcome, quote: str = "") -> tuple[str, ...]:
    """The culprits, each with the line where its code is, as far as that is known.

    Args:
        report: the outcome of a check.
        quote: what to put around their paths, such as backticks. Defaults to nothing.
    """
    places = itertools.chain(report.culprit_places, itertools.repeat(""))
    return tuple(
        f"{quote}{path}{quote} ({place})" if place else f"{quote}{path}{quote}"
        for path, place in zip(report.culprits, places, strict=False)
    )


def glossary(report: Outcome) -> tuple[tuple[str, str], ...]:
    """The reasons of variables that pass or do not count, each explained once.

    The reasons of all others are told variable by variable, see `variable_sentences`.
    """
    quiet = {v.reason for v in report.variables if v.verdict is Verdict.PASS or not v.counts}
    return tuple((reason.shown, reason.sentence) for reason in Reason if reason in quiet)


def variable_sentences(variable: VariableReport) -> tuple[str, ...]:
    """What there is to say of one variable beyond its numbers."""
    quiet = variable.verdict is Verdict.PASS or not variable.counts
    # A note says the same of this very variable.
    sentences = ["" if quiet or variable.note else sentence(variable.reason)]
    unseen = variable.verdict is Verdict.INCONCLUSIVE or variable.reason == Reason.BELOW_RESOLUTION
    if unseen and math.isfinite(variable.detectable_error):
        sentences.append(
            "The smallest error this check would have seen: "
            f"{number(variable.detectable_error, 2)}."
        )
    sentences += [variable.note, variable.pattern]
    if variable.slopes is not None:
        left, tape, right = (number(slope, 5) for slope in variable.slopes)
        sentences.append(
            f"Along one direction: {left} to the left, {right} to the right, {tape} by the tape."
        )
    return tuple(filter(None, sentences))
