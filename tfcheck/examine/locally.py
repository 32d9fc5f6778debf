"""The units of a loss where the step stands: what is known of them, and what can be measured.

A unit's slope along a direction in all that it is given must be what the tape's gradients say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfcheck.judge.judgement import Judgement, judge_measurement
from tfcheck.measure.differences import FIRST_STEP
from tfcheck.measure.directions import Array, generator, norm, scale_of
from tfcheck.measure.lines import Direction, Values, dense
from tfcheck.measure.measurement import Measurement
from tfcheck.measure.target import TAPE_ULPS, Arithmetic, Target
from tfcheck.settings import Settings
from tfcheck.units.apart import Apart
from tfcheck.units.apart_at import ApartAt
from tfcheck.units.moves import Moves
from tfcheck.units.sources import Source

_KINK_STEP = 2.0**-22
"""Where to begin in a unit that may have kinks: a step that crosses few of them."""

_ROUGH_STEP = 2.0**-8
"""Where to begin in a unit that is partly computed in float32."""

_SAMPLE = 2**12
"""So many entries tell the scale of a tensor."""

_OUTLYING = 16.0
"""An entry counts at most as so many times the median one in the scale of a tensor."""

EPSILON = 2.0**-53
"""The rounding of float64."""


class Locally:
    """The units of a loss, measured where the step stands.

    Args:
        at: the units there.
        settings: the options of the check.
        moving: for each source that a unit makes, where it changes when variables do; those of
            which nothing is known change everywhere. Defaults to what is found of that.
        before: where these are units a little aside, the units where the step stands; natural
            changes are as large as there. Defaults to None.

    Attributes:
        at: the units there.
        settings: the options of the check.
        given: for units the sources that exactly these use.
        units: those that are measured: all, unless only some are known there.
    """

    def __init__(
        self,
        at: ApartAt,
        settings: Settings,
        moving: Mapping[int, npt.NDArray[np.bool_]] | None = None,
        before: Locally | None = None,
    ) -> None:
        self.at = at
        self.units = at.units or frozenset(at.apart.outputs)
        self.settings = settings
        self._before = before
        self._scales: dict[int, float] = {}
        self._gradients: dict[int, Array] = {}
        self._norms: dict[int, float] = {}
        self.given: dict[frozenset[int], list[Source]] = {}
        for source in at.apart.sources:
            self.given.setdefault(source.units, []).append(source)
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
        if self._before is not None:
            return self._before.scale(source)
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

    def loudness(self, source: Source) -> float:
        """How much a natural change of a source changes what its units answer, by the tape."""
        return self.scale(source) * self.gradient_norm(source)

    def at_zero(self, units: frozenset[int]) -> float:
        """What units answer where nothing has moved."""
        return math.fsum(self._zero[unit] for unit in units)

    def size(self, units: frozenset[int]) -> float:
        """How large what units answer is a sum of."""
        return math.fsum(max(self.at.size(unit), abs(self._zero[unit])) for unit in units)

    def loudest(self, units: frozenset[int]) -> float:
        """How loud units are: what they answer is a sum of, or changes by in natural changes."""
        if units not in self._loudest:
            given = self.given.get(units, ())
            known = filter(math.isfinite, [self.size(units), *map(self.loudness, given)])
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
        tape = TAPE_ULPS * (2.0**-24 if rough else EPSILON)
        return Arithmetic(rounding=tape * self.size(units), tape_rounding=tape)

    def drawn(self, rng: np.random.Generator, source: Source, unit: float) -> Direction:
        """A random direction in a source, where it moves at all."""
        direction = self.apart.drawn(rng, source, unit)
        mask = self._moving.get(source.number)
        return direction if mask is None else dense(direction) * mask

    def judged(self, measurement: Measurement, loudest: float, scale: float) -> Judgement:
        """The judgement of a source, before any second look.

        Args:
            measurement: what was measured of it.
            loudest: how large what its units answer is a sum of.
            scale: the size of a natural change of it.
        """
        return judge_measurement(measurement, self.settings.thresholds, loudest, scale)

    # -- what can be measured --------------------------------------------------------------------

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
            resolution=self.settings.thresholds.okay / 30,
            loudest=self.loudest(units),
            arithmetic=self.arithmetic(units),
            start=self.start(units),
            unit=scale,
        )

    def weighed_at_random(self, units: frozenset[int]) -> Locally | None:
        """Units with random gradients of their outputs in the place of the tape's."""
        at = self.at.weighed_at_random(units, self.settings.seed)
        return None if at is None else Locally(at, self.settings, self._moving)

    def nudged(self, sources: Sequence[Source], size: float, stream: str) -> Locally | None:
        """The same units a little aside: all that they are given moves at random.

        Returns:
            The units there, of whose gradients only those of these sources are known; None where
            they cannot be computed there.
        """
        units = frozenset().union(*(source.units for source in sources))
        given = [s for s in self.apart.sources if s.units & units]
        moved = dict(self.at.found)
        rng = generator(self.settings.seed, stream, "nudge")
        for source in given:
            change = rng.standard_normal(source.shape) * size * self.scale(source)
            if (mask := self._moving.get(source.number)) is not None:
                change = change * mask
            moved[source.name] = tf.constant(self.at.value(source) + change)
        at = self.at.elsewhere(moved, units, sources)
        return None if at is None else Locally(at, self.settings, self._moving, before=self)


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
