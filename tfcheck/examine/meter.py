"""Telling how far an examination has come."""

from __future__ import annotations

from tfcheck.progress import Progress

_TOLD_EVERY = 64


class Meter:
    """Progress through the entries of one variable, told on every few dozen.

    Args:
        progress: is told.
        path: the variable's path.
        done: what is done before: entries where these are counted, variables otherwise.
        total: how much there is in all.
        counting: whether entries are counted. Defaults to True.
    """

    def __init__(
        self, progress: Progress, path: str, done: int, total: int, *, counting: bool = True
    ) -> None:
        self._progress, self._path, self._total = progress, path, total
        self._done = done
        self._counting = counting
        self._tell()

    def advance(self, count: int) -> None:
        """Note that `count` more entries are done."""
        if self._counting:
            before, self._done = self._done, self._done + count
            if before // _TOLD_EVERY < self._done // _TOLD_EVERY:
                self._tell()

    def _tell(self) -> None:
        self._progress(self._path, self._done, self._total)
