"""Measuring every unit by itself: all of them in a few graph calls.

The places that this takes where all is well are looked at for all units at once; what a unit needs
beyond them, it gets from a graph of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from tfcheck.examine.locally import EPSILON, Locally
from tfcheck.judge.judgement import Judgement
from tfcheck.measure.differences import FIRST_STEP, Along
from tfcheck.measure.directions import balanced, generator
from tfcheck.measure.lines import Direction, slope_along
from tfcheck.measure.measurement import Measurement, measure_directions
from tfcheck.measure.target import Movable
from tfcheck.units.moves import Moves
from tfcheck.units.sources import Source

_ROUNDINGS = 16.0
"""So many roundings of its size are the noise that is expected of what units answer."""


@dataclass(frozen=True)
class Cleared:
    """What was measured of a source together with the others of its units.

    Attributes:
        source: the source.
        measurement: what would have been measured if all of the gap were its own.
        judgement: the judgement of that.
    """

    source: Source
    measurement: Measurement
    judgement: Judgement


def measured_together(locally: Locally) -> Iterator[Cleared]:
    """Measure all sources, those of the same units together."""
    clusters = list(_clusters(locally))
    _look_ahead(locally, clusters)
    for cluster in clusters:
        yield from _measured(locally, cluster)


def _clusters(locally: Locally) -> Iterator[_Cluster]:
    known = {units: given for units, given in locally.given.items() if units <= locally.units}
    for number, (units, given) in enumerate(known.items()):
        sources = [source for source in given if math.prod(source.shape)]
        if units and sources and all(map(math.isfinite, map(locally.gradient_norm, sources))):
            yield _cluster(locally, f"units {number}", units, sources)


def _cluster(
    locally: Locally, stream: str, units: frozenset[int], sources: Sequence[Source]
) -> _Cluster:
    loudness, scales = map(locally.loudness, sources), map(locally.scale, sources)
    members = tuple(zip(sources, balanced([*loudness], [*scales]), strict=True))
    cluster = _Cluster(
        stream=stream,
        at_zero=locally.at_zero(units),
        resolution=locally.settings.thresholds.okay / 30 / math.sqrt(len(sources)),
        loudest=locally.loudest(units),
        arithmetic=locally.arithmetic(units),
        start=locally.start(units),
        locally=locally,
        units=units,
        members=members,
    )
    return replace(cluster, start=_heard(locally, cluster))


def _heard(locally: Locally, cluster: _Cluster) -> float:
    """Where to begin so that rounding is likely to be less than is wanted of the bar."""
    start = locally.start(cluster.units)
    rounding = EPSILON * locally.size(cluster.units)
    quiet = _ROUNDINGS * rounding / (cluster.wanted(cluster.norm) or math.inf)
    return start if quiet <= start else min(2.0 ** math.ceil(math.log2(quiet)), FIRST_STEP)


def _look_ahead(locally: Locally, clusters: Sequence[_Cluster]) -> None:
    """Look at the places that are looked at where all is well, for all clusters at once."""
    count = locally.settings.directions
    for cluster in clusters:
        cluster.draw_ahead(count, locally.settings.seed)
    for batch in _disjoint(clusters):
        for number in range(count):
            parts = (1.0, 0.5, 0.25) if number == 0 else (0.25,)
            moves = Moves(
                {s: way for cluster in batch for s, way in cluster.ahead(number).items()},
                {s.number: cluster.begin for cluster in batch for s, _ in cluster.members},
            )
            for part in parts:
                for sign in (1.0, -1.0):
                    _look_at(locally, batch, number, sign * part, moves)


def _look_at(
    locally: Locally, batch: Sequence[_Cluster], number: int, part: float, moves: Moves
) -> None:
    units = frozenset().union(*(cluster.units for cluster in batch))
    answers = locally.at.answers(units, part, moves)
    for cluster in batch:
        answer = math.fsum(answers[unit] for unit in cluster.units)
        cluster.known(number, part * cluster.begin, answer)


def _measured(locally: Locally, cluster: _Cluster) -> Iterator[Cleared]:
    joint = measure_directions(
        cluster, locally.settings.directions, None, locally.settings.seed, brief=True
    )
    alone = len(cluster.members) == 1
    for source, unit in cluster.members:
        size = locally.gradient_norm(source)
        gap, bar = math.sqrt(joint.gap_square) / unit, math.sqrt(joint.bar_square) / unit
        measurement = joint.of(size, unit) if alone else Measurement.within(size, gap, bar)
        judgement = locally.judged(
            measurement, locally.loudest(source.units), locally.scale(source)
        )
        yield Cleared(source, measurement, judgement)


@dataclass(frozen=True)
class _Cluster(Movable):
    """The sources of the same units, measured as one; its other attributes are `Movable`'s.

    Attributes:
        locally: the units.
        units: which of them.
        members: the sources, with how far each moves where a direction is 1.
    """

    locally: Locally
    units: frozenset[int]
    members: tuple[tuple[Source, float], ...]
    _ahead: list[dict[int, Direction]] = field(default_factory=list)
    _known: list[dict[float, float]] = field(default_factory=list)

    @property
    def scale(self) -> float:
        """One: directions have the scale of each source."""
        return 1.0

    @cached_property
    def norm(self) -> float:
        """The norm of all gradients together, in the units of the sources."""
        locally = self.locally
        return math.hypot(*(locally.gradient_norm(source) * unit for source, unit in self.members))

    def _draw(self, rng: np.random.Generator) -> dict[int, Direction]:
        return {s.number: self.locally.drawn(rng, s, unit) for s, unit in self.members}

    def draw_ahead(self, count: int, seed: int) -> None:
        """Draw the directions that will be asked for."""
        rng = generator(seed, self.stream)
        self._ahead[:] = [self._draw(rng) for _ in range(count)]
        self._known[:] = [{} for _ in range(count)]

    @property
    def begin(self) -> float:
        """Where the search for a step begins."""
        return self.first_step(self.norm)

    def ahead(self, number: int) -> dict[int, Direction]:
        """One of the directions that were drawn ahead."""
        return self._ahead[number]

    def known(self, number: int, place: float, answer: float) -> None:
        """Note what the units answer at a place along one of the directions drawn ahead."""
        self._known[number][place] = answer

    def drawn(self, rng: np.random.Generator) -> Any:
        """A random direction in all of them."""
        del rng  # they were drawn ahead from the same
        number = sum(1 for _ in self._taken)
        self._taken.append(number)
        return number

    @cached_property
    def _taken(self) -> list[int]:
        return []

    def along(self, direction: int, smallest_step: float) -> tuple[float, Along]:
        """The tape's slope along a direction, and what the units answer."""
        del smallest_step
        ways = self._ahead[direction]
        locally = self.locally
        analytic = math.fsum(
            slope_along(ways[source.number], locally.gradient(source)) for source, _ in self.members
        )
        known = self._known[direction]
        moves = Moves(ways)

        def values(places: Sequence[float]) -> list[float]:
            unknown = [place for place in places if place not in known]
            for place in unknown:
                answers = locally.at.answers(self.units, place, moves)
                known[place] = math.fsum(answers[unit] for unit in self.units)
            return [known[place] for place in places]

        return analytic, Along(values)


def _disjoint(clusters: Sequence[_Cluster]) -> Iterator[list[_Cluster]]:
    """Clusters in batches, in each of which no two have a unit in common."""
    left = list(clusters)
    while left:
        batch: list[_Cluster] = []
        busy: set[int] = set()
        rest = []
        for cluster in left:
            if busy.isdisjoint(cluster.units):
                batch.append(cluster)
                busy |= cluster.units
            else:
                rest.append(cluster)
        yield batch
        left = rest
