"""How much a check looks into what is wrong: closely at first, and less where much is wrong."""

from __future__ import annotations

from tfcheck.objective.objective import Objective

_MOST_LOOKED_INTO, _MOST_OF_MANY = 12, 2
"""How many wrong variables are looked into closely, and how many where there are many in all."""

_MANY = 32
"""With more variables than this, few that are wrong are looked into closely."""


class Effort:
    """What is spent on wrong variables in one check, and what is left to spend.

    Args:
        objective: the step.
        verdicts_only: whether what is wrong need not be looked into closely.
    """

    def __init__(self, objective: Objective, *, verdicts_only: bool) -> None:
        self._verdicts_only = verdicts_only
        self._costly = objective.facts.costly
        self._many = len(objective.parameters) > _MANY or objective.facts.costly
        self._most = _MOST_OF_MANY if self._many else _MOST_LOOKED_INTO
        self._looked_into = 0
        self._looks = 0
        self._tried_jumps = 0

    @property
    def looks_closely(self) -> bool:
        """Whether another wrong variable is looked into closely."""
        return not self._verdicts_only and self._looked_into < self._most

    def look_closely(self) -> None:
        """Count a wrong variable that is looked into closely."""
        self._looked_into += 1

    @property
    def is_brief(self) -> bool:
        """Whether one direction is enough for a variable that is plainly wrong."""
        return self._many and (self._costly or not self.looks_closely)

    def look_again(self) -> None:
        """Count a second look."""
        self._looks += 1

    @property
    def settles_for_less(self) -> bool:
        """Whether no more second looks are taken at what is certain without."""
        return self._looks > self._most

    @property
    def looks_widely(self) -> bool:
        """Whether doubts about kinks are worth many more directions."""
        return self._looks <= _MOST_LOOKED_INTO and not self._costly

    def may_try_jumps(self) -> bool:
        """Whether to find out if a loss has only jumps; counts the times."""
        if self._tried_jumps >= _MOST_LOOKED_INTO:
            return False
        self._tried_jumps += 1
        return True
