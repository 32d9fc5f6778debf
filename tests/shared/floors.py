"""The floors of the house: who may import whom, and in which order the steps follow."""

from __future__ import annotations

FLOORS = (
    {"_version", "errors", "formats", "internals", "progress", "variables"},
    {"deadline", "duration", "graph", "measure", "memory", "pyproject"},
    {"judge", "stages", "unchanged"},
    {"settings", "trace"},
    {"promote", "report", "units"},
    {"runs"},
    {"objective", "rendering"},
    {"evaluate", "gradient_report"},
    {"examine", "prepared"},
    {"locate", "reproduce", "tracking", "training"},
    {"assemble", "dashboard"},
    {"after_examining"},
    {"checker"},
    {"check"},
    {"__init__"},
    {"callbacks", "testing"},
    {"scripts"},
    {"__main__"},
)
"""From the ground up: what stands here imports itself and lower floors only."""


def floor_of(part: str) -> int:
    """The floor of a package or module."""
    return next(number for number, floor in enumerate(FLOORS) if part in floor)
