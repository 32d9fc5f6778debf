"""Lines of code, read back from how a report tells them: `"layers.py:12 in Swish.call"`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tfcheck.report.rows import VariableReport


@dataclass(frozen=True, slots=True)
class Place:
    """A line of code.

    Attributes:
        file: the file, relative to the working directory of the check, or its name alone.
        line: the line's number.
    """

    file: str
    line: int


_PLACE = re.compile(r"(.+?):(\d+)(?: in .+)?")
_WITHIN = re.compile(r"\bat ([^\s`]+?):(\d+)\b")


def place_of(told: str) -> Place | None:
    """The line that a report tells of a culprit.

    Args:
        told: as in `report.culprit_places`.

    Returns:
        The line; None where none is known.

    Example:
        >>> place_of("layers.py:12 in Swish.call")
        Place(file='layers.py', line=12)
        >>> place_of("")
    """
    found = _PLACE.fullmatch(told)
    return None if found is None else Place(found[1], int(found[2]))


def place_within(variable: VariableReport) -> Place | None:
    """The first line that the note of a variable names; None where it names none."""
    found = _WITHIN.search(variable.note)
    return None if found is None else Place(found[1], int(found[2]))
