"""What pictures of a variable are drawn from: its loss along one direction, as frozen values.

A place t on the direction is where the variable is moved by t times its own size. All numbers are
those of the loss without the scale that an optimizer puts on it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tfcheck.measure.similarity import similarity


@dataclass(frozen=True, slots=True)
class Differences:
    """Central differences along the direction, by their step, in one precision.

    Attributes:
        precision: what the loss is computed in, such as `"float32"`.
        steps: ε, how far the variable moves to either side, as a place on the direction.
        slopes: (J(ε) − J(−ε)) / 2ε for each of them.
    """

    precision: str
    steps: tuple[float, ...]
    slopes: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Curves:
    """The loss along one direction of a variable, around the point where it was checked.

    Attributes:
        direction: which direction that is, as in "the loss along the direction …".
        precision: what the losses are computed in, such as `"float64"`.
        places: where the loss was looked at, ascending, 0 among them; empty where it was not.
        losses: the loss there.
        tape: the slope at 0 that the tape's gradient gives; `nan` where the tape gave none.
        right: the slope at 0, as it was measured or follows from the right gradient.
        right_bar: how far that may be off.
        step: ε, the step that a check chooses along the direction; `nan` where it is unknown.
        differences: what central differences give, by their step; empty where that was not asked.
    """

    direction: str
    precision: str
    places: tuple[float, ...]
    losses: tuple[float, ...]
    tape: float
    right: float
    right_bar: float
    step: float = math.nan
    differences: tuple[Differences, ...] = ()

    def scores(self, differences: Differences) -> tuple[float, ...]:
        """The score that a right gradient gets by each of these differences, as it is measured.

        It is no less than what the right slope is known to.

        Args:
            differences: some of this direction.
        """
        return tuple(self._score(slope) for slope in differences.slopes)

    def _score(self, slope: float) -> float:
        gap = max(abs(slope - self.right), self.right_bar)
        return min(similarity(gap, abs(slope) + abs(self.right)), 1.0)
