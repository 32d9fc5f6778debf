"""Runs made by hand, as a store would tell of them."""

from __future__ import annotations

from typing import Any

from tfcheck.judge.verdict import Verdict, worst
from tfcheck.runs.record import Check, RunRecord

EPOCH = 57
"""Steps of an epoch."""


def check(epoch: int | None = 0, made_at: int | None = None, **layers: str) -> Check:
    """A check after an epoch that found this of its layers, and blames none."""
    number = epoch or 0
    return Check(
        verdict=worst(Verdict(kind) for kind in layers.values() if kind in set(Verdict)),
        step=number * EPOCH,
        epoch=epoch,
        checkpoint=f"epoch {number}" if number else "start",
        layers=layers,
        coverage=1.0,
        made_at=1000 * number if made_at is None else made_at,
    )


def run(name: str, *checks: Check, **fields: Any) -> RunRecord:
    """A run of these checks."""
    return RunRecord(run_id=f"id-{name}", name=name, checks=checks, **fields)
