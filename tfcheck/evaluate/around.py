"""The losses of an objective around a point: along lines, and where single entries are perturbed.

The graphs for that are built once, at first use, and serve at every later point. Where none can be
built, the loss is evaluated place by place instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import tensorflow as tf

from tfcheck.evaluate.perturbed import PerturbedEntries, perturbed_entries
from tfcheck.graph.excerpts import LossPart
from tfcheck.measure.directions import Array, Draws
from tfcheck.measure.entries import Entries, Indices
from tfcheck.measure.lines import Direction, Values, dense, random_direction
from tfcheck.objective.objective import Objective
from tfcheck.objective.point import Base, Parameter, as_floats
from tfcheck.units.moves import Moves
from tfcheck.units.sources import is_large

MANY = 32
"""With more variables than this, even one check gains by a graph for lines."""

_LARGE = 2**20
"""With more entries than this in all variables, it does, too."""

_FEW = 64
"""So few entries are perturbed one by one before a graph for all of them is built."""

_LEAST = 4
"""Perturbing fewer entries than this at once is no faster than one by one."""

_KEPT = 2**21
"""So many numbers of random directions are remembered from one checkpoint to the next."""


class Around:
    """The losses of one objective around any of its points.

    Args:
        objective: the objective.
        once: whether it is examined at one point only, so that graphs for lines are built only
            where moving variables costs more than that. Defaults to False.
    """

    def __init__(self, objective: Objective, *, once: bool = False) -> None:
        self.objective = objective
        self._once = once
        self._known: dict[int, list[Parameter]] = {}
        self._pays: dict[int, bool] = {}
        self._perturbed: dict[Parameter, PerturbedEntries | None] = {}
        self._draws = Draws(0 if once else _KEPT)

    def line(self, base: Base, directions: Mapping[Parameter, Direction]) -> Values:
        """A loss along a line.

        Args:
            base: the point where the line is at 0.
            directions: for the parameters that move, all of one loss, where to.
        """
        plain = self._place_by_place(base, directions)
        (loss,) = {parameter.loss for parameter in directions}
        apart = self.objective.apart[loss] if self._worthwhile(loss) else None
        if apart is None or not base.units:
            return plain
        self.objective.deadline.require_time()
        moves = Moves(
            {
                source.number: direction
                for parameter, direction in directions.items()
                for source in apart.leaves(parameter.held_by)
            }
        )
        together = apart.function(None, thin=apart.are_products(moves))
        given = together.given(self.objective.given(base, apart))

        def at(places: Sequence[float]) -> Array:
            found = []
            for place in places:
                self.objective.deadline.require_time()
                self.objective.evaluations += 1
                found.append(together(given, place, moves)[0])
            return np.array(found)

        return at

    def drawn(
        self, rng: np.random.Generator, moves: Iterable[tuple[Parameter, float]]
    ) -> dict[Parameter, Direction]:
        """A random direction in many parameters of one loss.

        Args:
            rng: draws it.
            moves: the parameters, and the standard deviation of their entries' moves.
        """
        directions: dict[Parameter, Direction] = {}
        for parameter, unit in moves:
            transposed = self._transposed(parameter)
            directions[parameter] = random_direction(
                partial(self._draws.normal, rng),
                tuple(parameter.variable.shape),
                unit,
                product=transposed is not None,
                transposed=bool(transposed),
            )
        return directions

    def entries(self, base: Base, parameter: Parameter, limit: int) -> Entries | None:
        """The loss of a parameter's tape where single entries of it are perturbed, many at once.

        Args:
            base: the point.
            parameter: the parameter.
            limit: the memory that may be used, in bytes.

        Returns:
            The loss; None where it can only be had one by one.
        """
        part = self.objective.part_of(parameter.loss)
        if part is None or parameter not in self._members(part):
            return None
        if self._once and _entries(parameter) <= _FEW:
            return None
        if parameter not in self._perturbed:
            self._perturbed[parameter] = perturbed_entries(part, self._names(part, parameter))
        perturbed = self._perturbed[parameter]
        if perturbed is None:
            return None
        around = perturbed.at([base.inputs[position] for position in part.positions], limit)
        if around.at_once < _LEAST:
            return None

        def losses(index: Indices, change: Array) -> Array:
            self.objective.deadline.require_time()
            self.objective.evaluations += len(index)
            try:
                return around.losses(index, change)
            except tf.errors.OpError:
                return np.full(len(index), math.nan)

        return replace(around, losses=losses)

    def _members(self, part: LossPart) -> list[Parameter]:
        """The parameters that a loss is differentiated for and depends on."""
        if part.number not in self._known:
            positions = set(part.positions)
            self._known[part.number] = [
                parameter
                for parameter in self.objective.parameters
                if parameter.loss == part.number and not positions.isdisjoint(parameter.inputs)
            ]
        return self._known[part.number]

    def _worthwhile(self, loss: int) -> bool:
        """Whether building a graph for lines pays."""
        if loss not in self._pays:
            members = [p for p in self.objective.parameters if p.loss == loss]
            large = len(members) > MANY or sum(map(_entries, members)) > _LARGE
            self._pays[loss] = large or not self._once
        return self._pays[loss]

    def _transposed(self, parameter: Parameter) -> bool | None:
        """Whether a direction that is a product is transposed; None for what needs none."""
        apart = self.objective.apart[parameter.loss] if self._worthwhile(parameter.loss) else None
        if apart is None or not is_large(tuple(parameter.variable.shape)):
            return None
        numbers = [s.number for s in apart.leaves(parameter.held_by)]
        kernels = [apart.kernels.get(number) for number in numbers]
        return bool(kernels) and all(k is not None and k.transposed for k in kernels)

    @staticmethod
    def _names(part: LossPart, parameter: Parameter) -> list[str]:
        feeds = dict(zip(part.positions, part.feeds, strict=True))
        return [feeds[position].name for position in parameter.inputs if position in feeds]

    def _place_by_place(self, base: Base, directions: Mapping[Parameter, Direction]) -> Values:
        (loss,) = {parameter.loss for parameter in directions}
        inputs = list(base.inputs)

        def at(places: Sequence[float]) -> Array:
            moved = [
                (position, as_floats(base.inputs[position]), dense(direction))
                for parameter, direction in directions.items()
                for position in parameter.inputs
            ]
            found = []
            for place in places:
                for position, value, direction in moved:
                    inputs[position] = tf.constant(value + place * direction)
                found.append(self.objective.loss(loss, inputs))
            return np.array(found)

        return at


def _entries(parameter: Parameter) -> int:
    return math.prod(parameter.variable.shape)
