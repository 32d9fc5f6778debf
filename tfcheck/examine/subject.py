"""What is examined: a parameter at a point, with its gradient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tfcheck.measure.directions import Array
from tfcheck.objective.point import Parameter


@dataclass(frozen=True, eq=False)
class Subject:
    """A parameter at a point: what is examined.

    Attributes:
        position: its position among the objective's parameters.
        parameter: the parameter.
        gradient: the tape's gradient; None where it gave none.
        scale: size of a natural change of it.
    """

    position: int
    parameter: Parameter
    gradient: Array | None
    scale: float

    @property
    def size(self) -> float:
        """How much a natural change of it changes the loss, by the tape; 0 without a gradient."""
        if self.gradient is None:
            return 0.0
        return float(np.linalg.norm(self.gradient)) * self.scale
