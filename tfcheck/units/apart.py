"""The units of a loss apart from each other, all in one graph.

What units give each other is held fixed: each is computed from what it was given at a point, moved
or not, and answers with the sum of what it gives, weighted by the tape's gradients of that. So one
evaluation, which costs little more than one of the loss, moves every unit by itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from functools import cached_property

import tensorflow as tf

from tfcheck.trace.recording import TapeCall
from tfcheck.units.assembly import Promoted
from tfcheck.units.cut import CutGraph
from tfcheck.units.sources import Leaves, Source
from tfcheck.units.together import Derivative, Flow, Together


class Apart(CutGraph):
    """The units of one loss, and what they compute as functions, each made when first asked for.

    Args:
        call: the tape's call.
        promoted: the graph of the step.
        leaves: what the loss is differentiated for.

    Raises:
        UndividedError: if the units cannot be told apart.
    """

    def __init__(self, call: TapeCall, promoted: Promoted, leaves: Leaves) -> None:
        super().__init__(call, promoted, leaves)
        self._functions: dict[tuple[tuple[int, ...] | None, bool], Together] = {}
        self._derivatives: dict[int, Derivative | None] = {}

    def function(self, units: tuple[int, ...] | None, *, thin: bool = False) -> Together:
        """Some of the units as one function, or, for None, the loss; `thin` is `Together`'s."""
        if (units, thin) not in self._functions:
            assembly = self.whole() if units is None else self.assembled(units)
            self._functions[units, thin] = Together(self, assembly, thin=thin)
        return self._functions[units, thin]

    @cached_property
    def flow(self) -> Flow:
        """What units give each other where variables move, as a function."""
        return Flow(self, self.flowing())

    def derivative(self, source: Source, found: Mapping[str, tf.Tensor]) -> tf.Tensor | None:
        """What the units of a source compute, differentiated operation by operation.

        Args:
            source: what it is differentiated for.
            found: the tensors named in `fetches`.

        Returns:
            The derivative; None where some operation has none.
        """
        if source.number not in self._derivatives:
            self._derivatives[source.number] = None
            with contextlib.suppress(LookupError, ValueError, TypeError, NotImplementedError):
                self._derivatives[source.number] = Derivative(self, source)
        derivative = self._derivatives[source.number]
        return None if derivative is None else derivative(found)
