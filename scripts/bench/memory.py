"""Memory: a full check against its budget, and a default check against a training step."""

from __future__ import annotations

import ctypes
import gc
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tfcheck.scripts.bench import cases
from tfcheck.scripts.bench.cases import Case, Effort
from tfcheck.scripts.bench.processes import Answer, CannotMeasureError, ask
from tfcheck.scripts.bench.results import Row, Subject, ratio

MIB = 2**20


def full_check(model: str, sizes: dict[str, Any], limit: int | str | None) -> Answer:
    """Peak memory of a full check, above what is held once the step is traced.

    Args:
        model: see `cases.Case`.
        sizes: see `cases.Case`.
        limit: the option `memory_limit`; None leaves it out.
    """
    from tfcheck.scripts.bench.checkers import checker
    from tfcheck.scripts.bench.models import build

    load_everything()
    options = {} if limit is None else {"memory_limit": limit}
    check, batch = checker(build(model, sizes), method="full", **options)
    traced = peak_of(lambda: check.objective(batch))
    reports: list[Any] = []
    peak = peak_of(lambda: reports.append(check.check(batch)))
    note = f"tracing took {traced / MIB:.0f} MiB; verdict {reports[0].verdict}"
    return {"bytes": peak, "note": note}


def default_check(model: str, sizes: dict[str, Any]) -> Answer:
    """Peak memory of a first default check, tracing included, above what the model takes."""
    from tfcheck.scripts.bench.checkers import checker
    from tfcheck.scripts.bench.models import build

    load_everything()
    check, batch = checker(build(model, sizes))
    return {"bytes": peak_of(lambda: check.check(batch))}


def training_step(model: str, sizes: dict[str, Any]) -> Answer:
    """Peak memory of a first training step, tracing included, above what the model takes."""
    from tfcheck.scripts.bench.models import build

    load_everything()
    built = build(model, sizes)
    return {"bytes": peak_of(lambda: built.model.train_on_batch(built.x, built.y))}


def peak_of(work: Callable[[], object]) -> int:
    """Bytes of resident memory that some work takes at its peak, above the level before it."""
    level = memory_now()
    if level is None:
        raise CannotMeasureError("peak memory can be measured on Linux only")
    work()
    return _resident("VmHWM") - level


def memory_now() -> int | None:
    """Bytes of resident memory, from which on a peak is looked for; None where nobody tells."""
    clear = Path("/proc/self/clear_refs")
    if not clear.exists():
        return None
    gc.collect()
    # What was freed but is still held would hide as much of what the work takes.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    level = _resident("VmRSS")
    clear.write_text("5", encoding="ascii")
    return level


def peak_above(level: int | None) -> int | None:
    """Bytes of resident memory at its peak since `memory_now` told the level, above that."""
    return None if level is None else _resident("VmHWM") - level


def _resident(name: str) -> int:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    found = re.search(rf"^{name}:\s*(\d+) kB$", status, re.MULTILINE)
    if found is None:
        raise CannotMeasureError(f"this system does not tell {name}")
    return 1024 * int(found[1])


def load_everything() -> None:
    """Check and train a tiny model: what libraries load and keep on first use is not measured."""
    from tfcheck.scripts.bench.checkers import checker
    from tfcheck.scripts.bench.models import build

    built = build(**cases.TINY_CNN.arguments)
    built.model.train_on_batch(built.x, built.y)
    check, batch = checker(built)
    check.check(batch)


def rows(effort: Effort) -> Iterator[Row]:
    """Full checks with several budgets, then default checks of models that need some memory."""
    limits = (64 * MIB,) if effort.quick else (64 * MIB, 256 * MIB, 1024 * MIB)
    for case in (effort.mlp, effort.cnn):
        for limit in limits:
            row = _full_check(case, effort, f"limit {limit // MIB} MiB", limit)
            row = row.replaced(ratio=ratio(row.value, limit))
            yield row.at_most(1, row.ratio)
        yield _full_check(case, effort, 'limit "auto"', "auto")
        yield _full_check(case, effort, "no limit named", None)
    for case in _trained(effort):
        step = _ask("training_step", case, effort)
        row = Row(case.label, "first training step", step.get("bytes"), "B")
        yield row.replaced(note=step.get("note", ""))
        check = _ask("default_check", case, effort)
        row = Row(case.label, "first default check", check.get("bytes"), "B", own=True)
        row = row.replaced(ratio=ratio(row.value, step.get("bytes")), note=check.get("note", ""))
        yield row.at_most(3, row.ratio)


def _full_check(case: Case, effort: Effort, what: str, limit: int | str | None) -> Row:
    answer = _ask("full_check", case, effort, limit=limit)
    row = Row(case.label, f"full check, {what}", answer.get("bytes"), "B", own=True)
    return row.replaced(note=answer.get("note", ""))


def _ask(function: str, case: Case, effort: Effort, **more: Any) -> Answer:
    return ask(f"memory:{function}", timeout=effort.timeout, **case.arguments, **more)


def _trained(effort: Effort) -> tuple[Case, ...]:
    if effort.quick:
        return (effort.cnn,)
    return (
        cases.mlp(2048, 2048, 2048, 10, batch=256),
        cases.cnn(28, (8, 16), 96, batch=1024),
        cases.transformer(batch=256),
        cases.application("ResNet50", 64, batch=32),
    )


SUBJECT = Subject(
    name="memory",
    title="Memory",
    how="Peak resident memory of a process above its level before: of a full check once its step "
    "is traced, against its memory_limit; of a first default check, tracing included, against a "
    "first training step of the same model and batch. What libraries load on first use is left "
    "out.",
    ratio="× limit, or × training step",
    plotted="value",
    logarithmic=True,
    rows=rows,
)
