"""The units of a loss at a point: what they answer, there or given something else."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfcheck.deadline import UNLIMITED, Deadline
from tfcheck.graph.excerpts import callable_part
from tfcheck.measure.directions import NUDGE, Array, generator
from tfcheck.units.apart import Apart
from tfcheck.units.moves import Moves
from tfcheck.units.sources import Source
from tfcheck.units.together import Given, Together

_SAMPLE = 2**12
_FEW = 4
"""Where fewer than one in so many units are asked, each is computed by itself."""


@dataclass
class ApartAt:
    """The units of a loss at a point.

    Attributes:
        apart: the units.
        found: the inputs of the step and the tensors named in `fetches`.
        deadline: when evaluating them has to end.
        evaluations: how often all units were computed, or as much of them.
    """

    apart: Apart
    found: dict[str, tf.Tensor]
    deadline: Deadline = UNLIMITED
    evaluations: float = 0.0
    units: frozenset[int] = frozenset()
    _sizes: dict[int, float] = field(default_factory=dict)
    _given: dict[Together, Given] = field(default_factory=dict)

    def value(self, source: Source) -> Array:
        """A source's value."""
        return np.asarray(self.found[source.name])

    def gradient(self, source: Source) -> Array:
        """The tape's gradient of a source for what its units use themselves; zero for None."""
        if source.total is None:
            return np.zeros(source.shape)
        total = np.asarray(self.found[source.total], np.float64)
        for name in source.beyond:
            total = total - np.asarray(self.found[name], np.float64)
        return total

    def size(self, unit: int) -> float:
        """The sum of the magnitudes of what a unit's answer is a sum of, as far as it is known."""
        if unit not in self._sizes:
            self._sizes[unit] = math.fsum(
                _magnitude(self.found[output.same], self.found[weight])
                for output in self.apart.outputs[unit]
                for weight in output.weights
                if weight is not None and output.same is not None
            )
        return self._sizes[unit]

    def evaluated(
        self, names: Sequence[str], instead: Mapping[str, tf.Tensor]
    ) -> list[tf.Tensor] | None:
        """Tensors of the step's graph, with others in the place of some; None where that fails.

        Args:
            names: the tensors that are wanted.
            instead: tensors to put in the place of those of these names.
        """
        self.deadline.require_time()
        promoted, parts = self.apart.promoted, self.apart.parts
        key = (tuple(names), tuple(instead))
        if key not in parts:
            element = promoted.graph.as_graph_element
            feeds: dict[str, Any] = {feed.name: feed for feed in promoted.feeds}
            feeds |= {name: element(name) for name in instead}
            labels = list(feeds)
            used = [labels[position] for position in promoted.excerpts.used(labels, names)]
            part = callable_part(
                promoted.excerpts, [feeds[name] for name in used], [element(n) for n in names]
            )
            parts[key] = part, used
        part, used = parts[key]
        given = {**self.found, **instead}
        try:
            found: list[tf.Tensor] = part(*(given[name] for name in used))
        except tf.errors.OpError:
            return None
        return found

    def moving(
        self, scale: Callable[[Source], float], seed: int
    ) -> dict[int, npt.NDArray[np.bool_]]:
        """Where what units give each other changes when variables do.

        Args:
            scale: the size of a natural change of a source.
            seed: seeds how the variables move.

        Returns:
            For each source, by its number, that only changes in places: where it does.
        """
        self.deadline.require_time()
        if not self.apart.made:
            return {}
        rng = generator(seed, "moving")
        flow = self.apart.flow
        there = flow(
            flow.given(self.found),
            Moves(
                {
                    source.number: self.apart.drawn(rng, source, NUDGE * scale(source))
                    for source in self.apart.sources
                    if source.leaf is not None
                }
            ),
        )
        found = {}
        for source, value in zip(self.apart.made, there or (), strict=there is not None):
            changed = np.asarray(value) != self.value(source)
            if not changed.all():
                found[source.number] = changed
        return found

    def dormant(self) -> frozenset[int]:
        """The units of whose outputs the tape's gradients are zero throughout."""
        return frozenset(
            unit
            for unit, outputs in self.apart.outputs.items()
            if not any(w is None or np.any(self.found[w]) for o in outputs for w in o.weights)
        )

    def weighed_at_random(self, units: frozenset[int], seed: int) -> ApartAt | None:
        """Units with random gradients of their outputs in the place of the tape's.

        Args:
            units: the units.
            seed: seeds the gradients.

        Returns:
            The units, with what the tape's backward pass makes of that; None where that fails.
        """
        rng = generator(seed, "weights")
        weights = {
            name: tf.constant(rng.standard_normal(self.found[name].shape), self.found[name].dtype)
            for name in self.apart.weights_of(sorted(units))
        }
        given = [s for s in self.apart.sources if s.units and s.units <= units]
        totals = [n for s in given for n in (s.total, *s.beyond) if n is not None]
        wanted = [name for name in dict.fromkeys(totals) if name not in weights]
        found = self.evaluated(wanted, weights)
        if found is None:
            return None
        own = {**self.found, **dict(zip(wanted, found, strict=True)), **weights}
        return ApartAt(self.apart, own, self.deadline, units=units)

    def elsewhere(
        self, found: dict[str, tf.Tensor], units: frozenset[int], sources: Sequence[Source]
    ) -> ApartAt | None:
        """Units where what they are given is something else; what weighs their outputs is not.

        Args:
            found: what they are given.
            units: the units.
            sources: the sources whose gradients are wanted there.

        Returns:
            The units there; None where an operation refuses it.
        """
        given = [*self.apart.assembled(sorted(units)).feeds.values(), *self.apart.weights_of(units)]
        given += [name for source in sources for name in source.beyond]
        wanted = [source.total for source in sources if source.total is not None]
        gradients = self.evaluated(wanted, {name: found[name] for name in given})
        if gradients is None:
            return None
        there = {**found, **dict(zip(wanted, gradients, strict=True))}
        return ApartAt(self.apart, there, self.deadline, units=units)

    def answers(
        self,
        units: Iterable[int],
        place: float = 0.0,
        moves: Moves | None = None,
    ) -> dict[int, float]:
        """What units answer where sources have moved.

        Args:
            units: the units that are asked.
            place: how far along the directions. Defaults to 0.
            moves: the directions. Defaults to none.
        """
        self.deadline.require_time()
        moves = Moves() if moves is None else moves
        asked = tuple(sorted(units))
        everyone = tuple(sorted(self.apart.outputs))
        if len(asked) * _FEW >= len(everyone):
            self.evaluations += 1.0
            thin = self.apart.are_products(moves)
            found = self._evaluated(self.apart.function(everyone, thin=thin), place, moves)
            if np.all(np.isfinite(found)) or len(everyone) == 1:
                known = dict(zip(everyone, map(float, found), strict=True))
                return {unit: known[unit] for unit in asked}
        answers = {}
        for unit in asked:
            self.deadline.require_time()
            self.evaluations += 1 / len(everyone)
            (answer,) = self._evaluated(self.apart.function((unit,)), place, moves)
            answers[unit] = float(answer)
        return answers

    def _evaluated(self, together: Together, place: float, moves: Moves) -> Array:
        if together not in self._given:
            self._given[together] = together.given(self.found)
        return together(self._given[together], place, moves)


def _magnitude(output: tf.Tensor, weight: tf.Tensor) -> float:
    """The sum of the magnitudes of all products, from a part of them where there are many."""
    one, other = np.asarray(output).ravel(), np.asarray(weight).ravel()
    if one.size != other.size:
        return 0.0
    stride = max(1, one.size // _SAMPLE)
    one, other = one[::stride], other[::stride]
    products = np.multiply(one, other, out=np.zeros_like(other), where=other != 0)
    return stride * float(np.abs(products).sum(dtype=np.float64))
