"""Progress: how those who work tell what they are doing; `rendering/progress.py` shows it."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done and how much there is (0: unknown)."""


def silent(_what: str, _done: int, _total: int) -> None:
    """Progress that is shown to nobody."""
