"""A check in bare forward passes: what it takes, on one model of each kind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tfcheck.scripts.bench.cases import RESNET50, Effort
from tfcheck.scripts.bench.networks import PASSES
from tfcheck.scripts.bench.processes import Answer, ask
from tfcheck.scripts.bench.results import Row, Subject
from tfcheck.scripts.bench.timing import once, quartiles


def over_forward(model: str, sizes: dict[str, Any], repeats: int, seconds: float) -> Answer:
    """Repeated default checks, taking turns with forward passes of a float64 twin.

    Args:
        model: see `cases.Case`.
        sizes: see `cases.Case`.
        repeats: pairs of a check and forward passes, at most.
        seconds: no further pair begins after so many seconds of checks.
    """
    import tensorflow as tf

    from tfcheck.scripts.bench.checkers import checker
    from tfcheck.scripts.bench.models import build, float64, loss_of

    built = build(model, sizes)
    check, batch = checker(built)
    with float64():
        twin = build(model, sizes)
        twin.model.set_weights(built.model.get_weights())
        loss = tf.function(loss_of(twin))
        loss()
    first = once(lambda: check.check(batch))
    report = check.check(batch)
    checks: list[float] = []
    forwards: list[float] = []
    ratios: list[float] = []
    while len(checks) < repeats and sum(checks) < seconds:
        report = check.check(batch)
        passes = sorted(once(lambda: float(loss())) for _ in range(20))
        checks.append(report.seconds)
        forwards.append(passes[len(passes) // 2])
        ratios.append(report.seconds / forwards[-1])
    return {
        "first": first,
        "repeated": quartiles(checks)[1],
        "forward": quartiles(forwards)[1],
        "ratio": quartiles(ratios)[1],
        "evaluations": report.evaluations,
        "runs": len(checks),
        "note": f"verdict {report.verdict}",
    }


def rows(effort: Effort) -> Iterator[Row]:
    """One model of each kind."""
    for case in effort.models:
        answer = ask(
            "forward:over_forward",
            timeout=effort.timeout,
            **case.arguments,
            **effort.repetition,
        )
        note = answer.get("note", "")
        first, forward = answer.get("first"), answer.get("forward")
        yield Row(case.label, "first check", first, own=True, runs=1, note=note)
        if forward is not None:
            passes = f"a forward pass takes {1e3 * forward:.3g} ms"
            note = f"{answer['evaluations']} evaluations; {passes}; {note}"
        row = Row(
            case.label,
            "repeated check",
            answer.get("repeated"),
            ratio=answer.get("ratio"),
            runs=answer.get("runs"),
            own=True,
            note=note,
        )
        if case != RESNET50:
            yield row
            continue
        yield row.at_most(PASSES, row.ratio)
        row = row.replaced(what="repeated check, in seconds", ratio=None)
        yield row.at_most(10, row.value, "s")


SUBJECT = Subject(
    name="forward",
    title="A check in bare forward passes",
    how="Seconds of a repeated default check, divided by the seconds of a bare forward pass: a "
    "tf.function of the loss of a float64 twin. Checks and passes take turns in one process.",
    ratio="× forward pass",
    plotted="ratio",
    logarithmic=True,
    rows=rows,
)
