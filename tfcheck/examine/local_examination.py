"""Which units are right: every source measured and judged where its units use it.

A right unit hands on what it should for what it gets. Where all are right, the gradients that the
tape composes of them are, and what was measured of a variable at its units is its finding.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from tfcheck.deadline import TimeIsUpError
from tfcheck.examine.clusters import Cleared, measured_together
from tfcheck.examine.locally import Locally
from tfcheck.judge.judgement import Judgement
from tfcheck.judge.reasons import Reason
from tfcheck.judge.second_look import Look, look_again
from tfcheck.judge.verdict import Verdict
from tfcheck.measure.dependence import only_jumps
from tfcheck.measure.directions import NUDGE
from tfcheck.measure.measurement import Measurement, measure_directions
from tfcheck.measure.target import Target
from tfcheck.settings import Settings
from tfcheck.units.sources import Source


@dataclass
class Wrong:
    """A unit that hands on a wrong gradient of what it is given.

    Attributes:
        unit: its number.
        path: its path.
        source: what it is given.
        variables: the leaves that the source is computed from, by the names of their tensors.
    """

    unit: int
    path: str
    source: Source
    variables: frozenset[str] = frozenset()


@dataclass
class LocalExamination:
    """One loss, examined unit by unit.

    Args:
        locally: the units where the step stands.
        settings: the options of the check.

    Attributes:
        wrong: the units whose gradients of what other units give them are wrong.
        unclear: the sources that other units give of which too little is known.
        kinks: those at which a unit has a kink.
        blocked: those on which units depend in jumps alone.
        latent: units that are wrong as soon as the loss has a gradient of what they give.
        cut_short: whether there was no time to look at all units; those not reached are unclear.
    """

    locally: Locally
    settings: Settings
    wrong: list[Wrong] = field(default_factory=list)
    unclear: list[Source] = field(default_factory=list)
    kinks: list[Source] = field(default_factory=list)
    blocked: list[Source] = field(default_factory=list)
    latent: list[Wrong] = field(default_factory=list)
    cut_short: bool = False
    _cleared: dict[int, Cleared] = field(default_factory=dict)

    def __post_init__(self) -> None:
        left = {source.number: source for source in self._sources()}
        try:
            for source in self._looked_at():
                left.pop(source.number, None)
        except TimeIsUpError:
            self.cut_short = True
            self.unclear += [s for s in left.values() if s not in self.unclear]

    def _looked_at(self) -> Iterator[Source]:
        """Look at all sources, and yield those of which all is known that can be."""
        for cleared in measured_together(self.locally):
            self._cleared[cleared.source.number] = cleared
        dormant = self.locally.at.dormant() & self.locally.units
        for source in self._sources():
            if source.leaf is None and not self._is_clear(source):
                self._examine(source)
            elif source.units.isdisjoint(dormant) and self._jumps_alone(source):
                self.blocked.append(source)
            if source.units.isdisjoint(dormant):
                yield source
        if dormant:
            self._wake(dormant)
        yield from self._sources()

    def _sources(self) -> list[Source]:
        """What the units that are looked at are given."""
        known = self.locally.units
        return [s for s in self.locally.apart.sources if s.units and s.units <= known]

    def _jumps_alone(self, source: Source) -> bool:
        """Whether a gradient of zero hides that units depend on a source in jumps alone."""
        if np.any(self.locally.gradient(source)):
            return False
        return only_jumps(self.target([source]), self.settings.seed)

    def _wake(self, units: frozenset[int]) -> None:
        """Look at units of whose outputs the loss has no gradient here, with random ones."""
        locally = self.locally.weighed_at_random(units)
        if locally is None:
            return
        awake = LocalExamination(locally, self.settings)
        for source in awake.blocked:
            awake.accuse(source)
        leaves = [s for s in awake._sources() if s.leaf is not None]
        awake.accuse_users(leaves)
        self.latent = awake.wrong

    def _is_clear(self, source: Source) -> bool:
        known = self._cleared.get(source.number)
        return known is not None and known.judgement.verdict is Verdict.PASS

    def _examine(self, source: Source) -> None:
        """Look closely at what a unit makes of what another gives it."""
        if not np.all(np.isfinite(self.locally.gradient(source))):
            self.unclear.append(source)
            return
        judgement = self.look([source]).judgement
        if judgement.accuses:
            self.accuse(source)
        elif judgement.verdict is not Verdict.PASS:
            self.unclear.append(source)
        elif judgement.reason == Reason.KINK:
            self.kinks.append(source)

    def accuse(self, source: Source) -> None:
        """Note that units hand on a wrong gradient of a source."""
        apart = self.locally.apart
        leaves = apart.leaves_before(source.name) if source.leaf is None else frozenset()
        self.wrong += [
            Wrong(unit, apart.paths[unit], source, leaves) for unit in sorted(source.units)
        ]

    # -- variables -------------------------------------------------------------------------------

    def sources_of(self, leaves: Iterable[str]) -> list[Source]:
        """The sources that are a variable, by the names of the tensors that hold its value."""
        return self.locally.apart.leaves(leaves)

    def measurement(self, sources: Sequence[Source], size: float) -> Measurement | None:
        """What is known of a variable that all units use rightly; None where one may not.

        Args:
            sources: the sources that are the variable.
            size: the norm of the tape's gradient.
        """
        if not sources or not all(source.units and self._is_clear(source) for source in sources):
            return None
        found = [self._cleared[source.number].measurement for source in sources]
        if len(found) == 1:
            return found[0]
        gap = sum(math.sqrt(m.gap_square) for m in found)
        return Measurement.within(size, gap, sum(math.sqrt(m.bar_square) for m in found))

    def judged(self, measurement: Measurement, target: Target) -> Judgement:
        """The judgement of what was measured at the units, before any second look."""
        return self.locally.judged(measurement, target.loudest, target.scale)

    def target(self, sources: Sequence[Source]) -> Target:
        """What units make of a variable, or of what another unit gives them."""
        gradient = sum((self.locally.gradient(s) for s in sources), np.zeros(sources[0].shape))
        return self.locally.target(sources, gradient, f"sources {sources[0].number}")

    def look(self, sources: Sequence[Source]) -> Look:
        """Measure and judge what units make of a source, with a second look where it deviates."""
        settings = self.settings
        target = self.target(sources)
        measurement = measure_directions(target, settings.directions, None, settings.seed)
        look = Look(self.judged(measurement, target), measurement)
        if look.judgement.verdict is Verdict.PASS:
            return look
        return look_again(
            look,
            target,
            lambda: self._aside(sources),
            self.judged,
            directions=settings.directions,
            seed=settings.seed,
        )

    def _aside(self, sources: Sequence[Source]) -> Target | None:
        stream = f"sources {sources[0].number}"
        nudged = self.locally.nudged(sources, NUDGE, stream)
        if nudged is None:
            return None
        gradient = sum((nudged.gradient(s) for s in sources), np.zeros(sources[0].shape))
        if not np.all(np.isfinite(gradient)):
            return None
        return nudged.target(sources, gradient, stream)

    def accuse_users(self, sources: Sequence[Source]) -> None:
        """Find the units that use a variable wrongly, if any does."""
        for source in sources:
            if not source.units or self._is_clear(source):
                continue
            finite = np.all(np.isfinite(self.locally.gradient(source)))
            if finite and self.look([source]).judgement.accuses:
                self.accuse(source)

    def wrong_behind(self, leaves: Iterable[str]) -> list[Wrong]:
        """The wrong units that gradients of a variable come through."""
        held_by = set(leaves)
        return [wrong for wrong in self.wrong if not held_by.isdisjoint(wrong.variables)]

    def latent_behind(self, leaves: Iterable[str]) -> list[str]:
        """The paths of the units through which a variable's gradient will be wrong."""
        held_by = set(leaves)
        return [
            wrong.path
            for wrong in self.latent
            if wrong.source.leaf in held_by or not held_by.isdisjoint(wrong.variables)
        ]

    def is_blocked(self, leaves: Iterable[str]) -> bool:
        """Whether units depend on a variable, or on what comes of it, in jumps alone."""
        return bool(self._through(self.blocked, leaves))

    def may_jump(self, leaves: Iterable[str]) -> bool:
        """Whether units follow a variable, or what comes of it, by way of what is no float.

        That stands still where units are measured.
        """
        return any(map(self.locally.apart.follows_in_jumps, self._through(self._sources(), leaves)))

    def is_unclear(self, leaves: Iterable[str]) -> bool:
        """Whether a variable's gradient comes through a unit of which too little is known."""
        return bool(self._through(self.unclear, leaves))

    def kinks_behind(self, leaves: Iterable[str]) -> list[str]:
        """The paths of the units with kinks that a variable's gradient comes through."""
        found = self._through(self.kinks, leaves)
        paths = self.locally.apart.paths
        return list(dict.fromkeys(paths[unit] for source in found for unit in source.units))

    def _through(self, sources: Iterable[Source], leaves: Iterable[str]) -> list[Source]:
        held_by, apart = set(leaves), self.locally.apart
        return [s for s in sources if not held_by.isdisjoint(apart.leaves_before(s.name))]
