"""Measuring every unit by itself: all of them in a few graph calls.

A unit's slope along a direction in all that it is given must be what the tape's gradients say. The
places that this takes where all is well are looked at for all units at once; what a unit needs
beyond them, it gets from a graph of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfcheck.judge.judgement import Judgement, judge_measurement
from tfcheck.measure.differences import FIRST_STEP, Along
from tfcheck.measure.directions import Array, balanced, generator, norm, scale_of
from tfcheck.measure.lines import Direction, Values, dense, slope_along
from tfcheck.measure.measurement import Measurement, measure_directions
from tfcheck.measure.target import TAPE_ULPS, Arithmetic, Movable, Target
from tfcheck.settings import Settings
from tfcheck.units.apart import Apart
from tfcheck.units.apart_at import ApartAt
from tfcheck.units.moves import Moves
from tfcheck.units.sources import Source

_KINK_STEP = 2.0**-22
"""Where to begin in a unit that may have kinks: a step that crosses few of them."""

_ROUGH_STEP = 2.0**-8
"""Where to begin in a unit that is partly computed in float32."""

_ROUNDINGS = 16.0
"""So many roundings of its size are the noise that is expected of what units answer."""

_SAMPLE = 2**12
"""So many entries tell the scale of a tensor."""

_OUTLYING = 16.0
"""An entry counts at most as so many times the median one in the scale of a tensor."""

_EPSILON = 2.0**-53


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


class Locally:
    """The units of a loss, measured where the step stands.

    Args:
        at: the units there.
        settings: the options of the check.
        moving: for each source that a unit makes, where it changes when variables do; those of
            which nothing is known change everywhere. Defaults to what is found of that.

    Attributes:
        at: the units there.
        units: those that are measured: all, unless only some are known there.
    """

    def __init__(
        self,
        at: ApartAt,
        settings: Settings,
        moving: Mapping[int, npt.NDArray[np.bool_]] | None = None,
    ) -> None:
        self.at = at
        self.units = at.units or frozenset(at.apart.outputs)
        self._settings = settings
        self._scales: dict[int, float] = {}
        self._gradients: dict[int, Array] = {}
        self._norms: dict[int, float] = {}
        self._given: dict[frozenset[int], list[Source]] = {}
        for source in at.apart.sources:
            self._given.setdefault(source.units, []).append(source)
        self._loudest: dict[frozenset[int], float] = {}
        self._zero = at.answers(self.units)
        self._moving = at.moving(self.scale, settings.seed) if moving is None else moving

    # -- what is known of sources and units ------------------------------------------------------

    @property
    def apart(self) -> Apart:
        """The units."""
        return self.at.apart

    def scale(self, source: Source) -> float:
        """The size of a natural change of a source."""
        if source.number not in self._scales:
            value = self.at.value(source)
            known = scale_of(value) if source.leaf is not None else _robust_scale(value)
            self._scales[source.number] = known
        return self._scales[source.number]

    def gradient(self, source: Source) -> Array:
        """The tape's gradient of a source."""
        if source.number not in self._gradients:
            self._gradients[source.number] = self.at.gradient(source)
        return self._gradients[source.number]

    def gradient_norm(self, source: Source) -> float:
        """The norm of the tape's gradient of a source."""
        if source.number not in self._norms:
            self._norms[source.number] = norm(self.gradient(source))
        return self._norms[source.number]

    def at_zero(self, units: frozenset[int]) -> float:
        """What units answer where nothing has moved."""
        return math.fsum(self._zero[unit] for unit in units)

    def size(self, units: frozenset[int]) -> float:
        """How large what units answer is a sum of."""
        return math.fsum(max(self.at.size(unit), abs(self._zero[unit])) for unit in units)

    def loudest(self, units: frozenset[int]) -> float:
        """How loud units are: what they answer is a sum of, or changes by in natural changes."""
        if units not in self._loudest:
            given = self._given.get(units, ())
            loudness = [self.scale(source) * self.gradient_norm(source) for source in given]
            known = filter(math.isfinite, [self.size(units), *loudness])
            self._loudest[units] = max(known, default=0.0)
        return self._loudest[units]

    def start(self, units: frozenset[int]) -> float:
        """Where to begin the search for a step."""
        if units & self.apart.rough:
            return _ROUGH_STEP
        return _KINK_STEP if units & self.apart.kinked else FIRST_STEP

    def arithmetic(self, units: frozenset[int]) -> Arithmetic:
        """What is known of the rounding of what units answer."""
        rough = bool(units & self.apart.rough)
        tape = TAPE_ULPS * (2.0**-24 if rough else _EPSILON)
        return Arithmetic(rounding=tape * self.size(units), tape_rounding=tape)

    def drawn(self, rng: np.random.Generator, source: Source, unit: float) -> Direction:
        """A random direction in a source, where it moves at all."""
        direction = self.apart.drawn(rng, source, unit)
        mask = self._moving.get(source.number)
        return direction if mask is None else dense(direction) * mask

    # -- all units at once -----------------------------------------------------------------------

    def together(self) -> Iterator[Cleared]:
        """Measure all sources, those of the same units together."""
        clusters = list(self._clusters())
        self._look_ahead(clusters)
        for cluster in clusters:
            yield from self._measured(cluster)

    def _clusters(self) -> Iterator[_Cluster]:
        known = {units: given for units, given in self._given.items() if units <= self.units}
        for number, (units, given) in enumerate(known.items()):
            sources = [source for source in given if math.prod(source.shape)]
            if units and sources and all(map(math.isfinite, map(self.gradient_norm, sources))):
                yield self._cluster(f"units {number}", units, sources)

    def _cluster(self, stream: str, units: frozenset[int], sources: Sequence[Source]) -> _Cluster:
        loudness = [self.scale(source) * self.gradient_norm(source) for source in sources]
        units_of = balanced(loudness, [self.scale(source) for source in sources])
        members = tuple(zip(sources, units_of, strict=True))
        cluster = _Cluster(
            stream=stream,
            at_zero=self.at_zero(units),
            resolution=self._settings.thresholds.okay / 30 / math.sqrt(len(sources)),
            loudest=self.loudest(units),
            arithmetic=self.arithmetic(units),
            start=self.start(units),
            locally=self,
            units=units,
            members=members,
        )
        return replace(cluster, start=self._heard(cluster))

    def _heard(self, cluster: _Cluster) -> float:
        """Where to begin so that rounding is likely to be less than is wanted of the bar."""
        start = self.start(cluster.units)
        rounding = _EPSILON * self.size(cluster.units)
        quiet = _ROUNDINGS * rounding / (cluster.wanted(cluster.norm) or math.inf)
        return start if quiet <= start else min(2.0 ** math.ceil(math.log2(quiet)), FIRST_STEP)

    def _look_ahead(self, clusters: Sequence[_Cluster]) -> None:
        """Look at the places that are looked at where all is well, for all clusters at once."""
        count = self._settings.directions
        for cluster in clusters:
            cluster.draw_ahead(count, self._settings.seed)
        for batch in _disjoint(clusters):
            for number in range(count):
                parts = (1.0, 0.5, 0.25) if number == 0 else (0.25,)
                moves = Moves(
                    {s: way for cluster in batch for s, way in cluster.ahead(number).items()},
                    {s.number: cluster.begin for cluster in batch for s, _ in cluster.members},
                )
                for part in parts:
                    for sign in (1.0, -1.0):
                        self._look_at(batch, number, sign * part, moves)

    def _look_at(self, batch: Sequence[_Cluster], number: int, part: float, moves: Moves) -> None:
        units = frozenset().union(*(cluster.units for cluster in batch))
        answers = self.at.answers(units, part, moves)
        for cluster in batch:
            answer = math.fsum(answers[unit] for unit in cluster.units)
            cluster.known(number, part * cluster.begin, answer)

    def _measured(self, cluster: _Cluster) -> Iterator[Cleared]:
        joint = measure_directions(
            cluster, self._settings.directions, None, self._settings.seed, brief=True
        )
        alone = len(cluster.members) == 1
        for source, unit in cluster.members:
            size = self.gradient_norm(source)
            gap, bar = math.sqrt(joint.gap_square) / unit, math.sqrt(joint.bar_square) / unit
            measurement = joint.of(size, unit) if alone else Measurement.within(size, gap, bar)
            judgement = self.judged(measurement, self.loudest(source.units), self.scale(source))
            yield Cleared(source, measurement, judgement)

    def judged(self, measurement: Measurement, loudest: float, scale: float) -> Judgement:
        """The judgement of a source, before any second look.

        Args:
            measurement: what was measured of it.
            loudest: how large what its units answer is a sum of.
            scale: the size of a natural change of it.
        """
        return judge_measurement(measurement, self._settings.thresholds, loudest, scale)

    # -- one source after the other --------------------------------------------------------------

    def target(self, sources: Sequence[Source], gradient: Array | None, stream: str) -> Target:
        """What units answer where some sources, such as the reads of one variable, move alike.

        Args:
            sources: the sources, of one shape.
            gradient: the sum of the tape's gradients of them.
            stream: seeds the directions.
        """
        units = frozenset().union(*(source.units for source in sources))
        first = sources[0]
        numbers = [source.number for source in sources]

        def values_along(direction: Direction) -> Values:
            moves = Moves(dict.fromkeys(numbers, direction))

            def at(places: Sequence[float]) -> Array:
                answers = (self.at.answers(units, place, moves).values() for place in places)
                return np.array([math.fsum(answer) for answer in answers])

            return at

        scale = self.scale(first)
        return Target(
            stream=stream,
            displaced=lambda displacement: values_along(displacement)([1.0])[0],
            draw=lambda rng: self.drawn(rng, first, scale),
            values_along=values_along,
            value=np.asarray(self.at.value(first), np.float64),
            gradient=gradient,
            at_zero=self.at_zero(units),
            resolution=self._settings.thresholds.okay / 30,
            loudest=self.loudest(units),
            arithmetic=self.arithmetic(units),
            start=self.start(units),
            unit=scale,
        )

    def weighed_at_random(self, units: frozenset[int]) -> Locally | None:
        """Units with random gradients of their outputs in the place of the tape's."""
        at = self.at.weighed_at_random(units, self._settings.seed)
        return None if at is None else Locally(at, self._settings, self._moving)

    def nudged(self, sources: Sequence[Source], size: float, stream: str) -> Locally | None:
        """The same units a little aside: all that they are given moves at random.

        Returns:
            The units there, of whose gradients only those of these sources are known; None where
            they cannot be computed there.
        """
        units = frozenset().union(*(source.units for source in sources))
        given = [s for s in self.apart.sources if s.units & units]
        moved = dict(self.at.found)
        rng = generator(self._settings.seed, stream, "nudge")
        for source in given:
            change = rng.standard_normal(source.shape) * size * self.scale(source)
            if (mask := self._moving.get(source.number)) is not None:
                change = change * mask
            moved[source.name] = tf.constant(self.at.value(source) + change)
        at = self.at.elsewhere(moved, units, sources)
        return None if at is None else _Nudged(at, self._settings, self._moving, self)


class _Nudged(Locally):
    """Units a little aside from where they were."""

    def __init__(
        self,
        at: ApartAt,
        settings: Settings,
        moving: Mapping[int, npt.NDArray[np.bool_]],
        before: Locally,
    ) -> None:
        super().__init__(at, settings, moving)
        self._before = before

    def scale(self, source: Source) -> float:
        """The size of a natural change of a source, where it was before."""
        return self._before.scale(source)


def _robust_scale(value: Array) -> float:
    """The root mean square of a tensor, however small, in which a few huge entries count little."""
    flat = value.ravel()
    sample = np.abs(flat[:: max(1, flat.size // _SAMPLE)]).astype(np.float64)
    sample = sample[np.isfinite(sample)]
    nonzero = sample[sample > 0]
    if not nonzero.size:
        return scale_of(value)
    unit = float(np.median(nonzero))
    return unit * math.sqrt(float(np.mean(np.minimum(sample / unit, _OUTLYING) ** 2)))


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
