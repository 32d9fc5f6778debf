"""When a check has to come to its end.

Whoever evaluates something asks first whether there is time for it. What takes no time to speak of
goes on after the end, so that a report is made of what is known by then.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from tfcheck.errors import some

_Result = TypeVar("_Result")

clock = time.monotonic
"""What tells the time, in seconds."""


class TimeIsUpError(Exception):
    """There is no time left to evaluate anything.

    It is none of the errors that say that something is not possible here: those are answered by
    another way to go on.
    """


class Deadline:
    """The end of a check, which begins now.

    Args:
        limit: the seconds that it may take; None for no limit.
    """

    def __init__(self, limit: float | None) -> None:
        self.limit = limit
        self._end = math.inf if limit is None else clock() + limit

    @property
    def is_over(self) -> bool:
        """Whether there is no time left."""
        return self._end < math.inf and clock() >= self._end

    def require_time(self) -> None:
        """Raise a `TimeIsUpError` where there is no time left."""
        if self.is_over:
            raise TimeIsUpError

    def notes(self, unreached: int, count: int, cut_short: Sequence[str]) -> tuple[str, ...]:
        """Say what was not reached, in one sentence; nothing where all was.

        Args:
            unreached: how many variables were not reached.
            count: how many there are.
            cut_short: the stages that were cut short, the first one first.
        """
        if self.limit is None or not cut_short:
            return ()
        first, *others = cut_short
        left_out = [f"{unreached} of {count} variables"] if unreached else []
        left_out += list(dict.fromkeys(others))
        rest = f". Not reached: {some(left_out, 9)}." if left_out else "."
        return (f"The time_limit of {self.limit:g} s was over during {first}{rest}",)


UNLIMITED = Deadline(None)
"""No end."""


class InTime:
    """Does what there is time for, one thing after the other.

    Attributes:
        cut_short: whether there was no time for some of it.
    """

    def __init__(self) -> None:
        self.cut_short = False

    def __call__(self, action: Callable[[], _Result], otherwise: _Result) -> _Result:
        """What comes of something; `otherwise` where there is no time for it."""
        try:
            return action()
        except TimeIsUpError:
            self.cut_short = True
            return otherwise
