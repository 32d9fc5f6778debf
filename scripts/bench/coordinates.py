"""Every coordinate: each parameter's own derivative, by tfcheck and by its peers."""

from __future__ import annotations

from collections.abc import Iterator

from tfcheck.scripts.bench.cases import Case, Effort
from tfcheck.scripts.bench.processes import Answer, ask
from tfcheck.scripts.bench.results import Row, Subject, ratio

FIVE_MINUTES = 300.0


def rows(effort: Effort) -> Iterator[Row]:
    """The MLP with all peers, then the CNN."""
    case, patience = effort.mlp, effort.timeout
    first, repeated = _own(case, effort)
    yield first
    yield repeated.at_most(3, repeated.value, "s")
    answer = ask("peers_tensorflow:compute_gradient", timeout=patience, **case.arguments)
    row = _peer(case, "tf.test.compute_gradient", answer, repeated)
    yield row.at_least(50, row.ratio)
    row = _gradcheck(case, patience, repeated)
    yield row.at_least(50, row.ratio)
    yield _loop(case, effort, repeated, compiled=False)
    yield _loop(case, effort, repeated, compiled=True)

    case = effort.cnn
    first, repeated = _own(case, effort)
    yield from (first, repeated)
    for compiled in (False, True):
        row = _loop(case, effort, repeated, compiled=compiled)
        yield row.at_least(20, row.ratio)
    yield _gradcheck(case, min(patience, FIVE_MINUTES), repeated)


def _own(case: Case, effort: Effort) -> tuple[Row, Row]:
    """The first check, with tracing, and a repeated one."""
    answer = ask(
        "checkers:checks",
        timeout=effort.timeout,
        **case.arguments,
        method="full",
        **effort.repetition,
    )
    parameters, note = answer.get("parameters"), answer.get("note", "")
    first, repeated = answer.get("first"), answer.get("repeated")
    row = Row(case.label, "tfcheck full, with tracing", first, note=note, own=True, runs=1)
    again = Row(case.label, "tfcheck full, after tracing", repeated, note=note, own=True)
    return (
        row.replaced(per_parameter=ratio(first, parameters), ratio=ratio(first, repeated)),
        again.replaced(
            per_parameter=ratio(repeated, parameters), ratio=1.0, runs=answer.get("runs")
        ),
    )


def _gradcheck(case: Case, timeout: float, own: Row) -> Row:
    answer = ask(
        "peers_torch:gradcheck",
        timeout=timeout,
        **case.arguments,
        fast=False,
        repeats=0,
        seconds=0.0,
    )
    return _peer(case, "PyTorch gradcheck, slow mode", answer, own)


def _loop(case: Case, effort: Effort, own: Row, *, compiled: bool) -> Row:
    entries = 100 if effort.quick else 2000
    answer = ask(
        "peers_tensorflow:loop",
        timeout=effort.timeout,
        **case.arguments,
        entries=entries,
        compiled=compiled,
    )
    what = f"plain loop, {'tf.function' if compiled else 'eager'}"
    return _peer(case, what, answer, own)


def _peer(case: Case, what: str, answer: Answer, own: Row) -> Row:
    """A row of somebody else's; one measured on a sample has no total."""
    seconds, parameters = answer.get("repeated"), answer.get("parameters")
    each = answer.get("per_parameter", ratio(seconds, parameters))
    note = answer.get("note", "")
    if parameters and answer.get("entries", parameters) < parameters:
        note = f"sample of {answer['entries']:,} of {parameters:,} entries; {note}"
    return Row(
        case.label,
        what,
        seconds,
        per_parameter=each,
        ratio=ratio(each, own.per_parameter),
        runs=answer.get("runs"),
        note=note,
    )


SUBJECT = Subject(
    name="coordinates",
    title="Every coordinate",
    how="Derivatives with respect to every weight and bias, in float64. Plain loops perturb a "
    "random sample of entries, and then have a rate and no total.",
    ratio="× tfcheck after tracing, per parameter",
    plotted="per_parameter",
    logarithmic=True,
    rows=rows,
)
