"""Random directions: the check that is meant for every day, by tfcheck and by its peers."""

from __future__ import annotations

from collections.abc import Iterator

from tfcheck.scripts.bench.cases import Effort
from tfcheck.scripts.bench.processes import Answer, ask
from tfcheck.scripts.bench.results import Row, Subject, ratio


def rows(effort: Effort) -> Iterator[Row]:
    """The MLP: first and repeated checks of each tool."""
    case, options = effort.mlp, {"timeout": effort.timeout, **effort.repetition}
    answer = ask("checkers:checks", **case.arguments, method="directions", **options)
    own = answer.get("repeated")
    if "evaluations" in answer:
        answer["note"] = (
            f"four directions a variable, error bars: {answer['evaluations']} evaluations; "
            f"{answer['note']}"
        )
    first, repeated = _pair(case.label, "tfcheck", answer, own)
    yield first.replaced(own=True)
    yield repeated.replaced(own=True).at_most(50, None if own is None else 1e3 * own, "ms")
    answer = ask("peers_torch:gradcheck", **case.arguments, fast=True, **options)
    yield from _pair(case.label, "PyTorch gradcheck, fast mode", answer, own)
    answer = ask("peers_jax:check_grads", sizes=case.sizes, **options)
    yield from _pair(case.label, "JAX check_grads", answer, own)


def _pair(case: str, tool: str, answer: Answer, own: float | None) -> tuple[Row, Row]:
    """The first check of a process, and those after it."""
    note, first, repeated = answer.get("note", ""), answer.get("first"), answer.get("repeated")
    return (
        Row(case, f"{tool}, first check", first, ratio=ratio(first, own), runs=1, note=note),
        Row(
            case,
            f"{tool}, repeated check",
            repeated,
            ratio=ratio(repeated, own),
            runs=answer.get("runs"),
            note=note,
        ),
    )


SUBJECT = Subject(
    name="directions",
    title="Directions",
    how="Checks along random directions, in float64. PyTorch takes one direction for each input, "
    "JAX one for all together. First checks trace or compile.",
    ratio="× tfcheck, repeated",
    plotted="value",
    logarithmic=True,
    rows=rows,
)
