"""What comes before the first check: tracing and promotion, and the start of `tfcheck audit`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfcheck.scripts.bench.cases import Effort
from tfcheck.scripts.bench.processes import Answer, ask, environment
from tfcheck.scripts.bench.results import Row, Subject, ratio
from tfcheck.scripts.bench.timing import once, quartiles


def objective(model: str, sizes: dict[str, Any]) -> Answer:
    """Seconds of tracing and promotion in this process."""
    from tfcheck.scripts.bench.checkers import checker
    from tfcheck.scripts.bench.models import build

    check, batch = checker(build(model, sizes))
    return {"seconds": once(lambda: check.objective(batch))}


def train_function(model: str, sizes: dict[str, Any]) -> Answer:
    """Seconds that Keras's first training step takes longer than a later one."""
    from tfcheck.scripts.bench.models import build

    built = build(model, sizes)

    def step() -> None:
        built.model.train_on_batch(built.x, built.y)

    first = once(step)
    return {"seconds": first - quartiles([once(step) for _ in range(5)])[1]}


def save(model: str, sizes: dict[str, Any], folder: str) -> Answer:
    """Save a model and its batch as `tfcheck audit` reads them."""
    import numpy as np

    from tfcheck.scripts.bench.models import build

    built = build(model, sizes)
    built.model.save(Path(folder) / "model.keras")
    np.savez(Path(folder) / "batch.npz", x=built.x.numpy(), y=built.y.numpy())
    return {"seconds": 0.0}


def rows(effort: Effort) -> Iterator[Row]:
    """One model of each kind, and then the audit."""
    for case in effort.models:
        found: dict[str, float | None] = {}
        notes: list[str] = []
        # In turns, so that what the machine does besides falls on both.
        tasks = ["tracing:train_function", "tracing:objective"]
        answers = [
            (task, ask(task, timeout=effort.timeout, **case.arguments))
            for _ in range(effort.processes)
            for task in tasks
        ]
        for task in tasks:
            seconds = [a["seconds"] for of, a in answers if of == task and "seconds" in a]
            found[task] = quartiles(seconds)[1] if seconds else None
        notes = sorted({answer["note"] for _, answer in answers if "note" in answer})
        keras, own = found[tasks[0]], found[tasks[1]]
        row = Row(case.label, "Keras train_function", keras, runs=effort.processes)
        yield row.replaced(note="; ".join(notes))
        row = row.replaced(what="tfcheck tracing and promotion", value=own, own=True)
        row = row.replaced(ratio=ratio(own, keras))
        yield row.at_most(2, row.ratio)
    yield from _audit(effort)


def _audit(effort: Effort) -> Iterator[Row]:
    """Whole processes, from the shell's point of view."""
    case = effort.mlp
    loads = [sys.executable, "-c", "import tensorflow"]
    with tempfile.TemporaryDirectory() as folder:
        ask("tracing:save", timeout=effort.timeout, **case.arguments, folder=folder)
        audits = [sys.executable, "-m", "tfcheck", "audit", "model.keras"]
        audits += ["--batch", "batch.npz", "--quiet"]
        turns = [
            (_seconds(loads, folder), _seconds(audits, folder)) for _ in range(effort.processes + 1)
        ][1:]  # the first fills the system's cache of files
    loading = quartiles([a for a, _ in turns if a is not None] or [0.0])[1]
    extra = [b - a for a, b in turns if a is not None and b is not None]
    row = Row(case.label, "import tensorflow", loading, runs=len(turns))
    yield row
    own = quartiles(extra)[1] if extra else None
    row = row.replaced(what="tfcheck audit, beyond that import", value=own, own=True)
    yield row.replaced(note="" if extra else "failed: the audit did not pass").at_most(2, own, "s")


def _seconds(command: list[str], folder: str) -> float | None:
    """How long a command takes; None if it does not succeed."""
    finished: list[subprocess.CompletedProcess[str]] = []
    seconds = once(
        lambda: finished.append(
            subprocess.run(
                command,
                cwd=folder,
                env=environment(),
                capture_output=True,
                text=True,
                check=False,
                stdin=subprocess.DEVNULL,
            )
        )
    )
    return None if finished[0].returncode else seconds


SUBJECT = Subject(
    name="tracing",
    title="Tracing and start-up",
    how="In fresh processes: what tfcheck needs to trace and promote a model's step, and what "
    "Keras needs for its own train_function (the first train_on_batch without the time of a later "
    "one); `tfcheck audit` of a saved model as a whole, less a process that imports TensorFlow.",
    ratio="× Keras train_function",
    plotted="value",
    rows=rows,
)
