"""Which units are right: every source measured and judged where its units use it.

A right unit hands on what it should for what it gets. Where all are right, the gradients that the
tape composes of them are, and what was measured of a variable at its units is its finding.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from tfcheck.apart import Source
from tfcheck.deadline import TimeIsUpError
from tfcheck.judge import Judgement
from tfcheck.locally import Cleared, Locally
from tfcheck.measure import Measurement, measure_directions
from tfcheck.point import NUDGE
from tfcheck.report import Settings
from tfcheck.second_look import Look, look_again
from tfcheck.target import Target
from tfcheck.verdict import Verdict

_WRONG = (Verdict.FAIL, Verdict.SUSPECT)


@dataclass
class Wrong:
    """A unit that hands on a wrong gradient of what it is given.

    Attributes:
        unit: its number.
        path: its path.
        source: what it is given.
        verdict: how wrong it is.
        variables: the leaves that the source is computed from, by the names of their tensors.
    """

    unit: int
    path: str
    source: Source
    verdict: Verdict
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
        cut_short: whether there was no time to look at all units; those not reached are unclear.
    """

    locally: Locally
    settings: Settings
    wrong: list[Wrong] = field(default_factory=list)
    unclear: list[Source] = field(default_factory=list)
    kinks: list[Source] = field(default_factory=list)
    cut_short: bool = False
    _cleared: dict[int, Cleared] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            for cleared in self.locally.together():
                self._cleared[cleared.source.number] = cleared
        except TimeIsUpError:
            self.cut_short = True
        for source in self.locally.apart.sources:
            if source.leaf is None and source.units and not self._is_clear(source):
                self._examine_in_time(source)

    def _is_clear(self, source: Source) -> bool:
        known = self._cleared.get(source.number)
        return known is not None and known.judgement.verdict is Verdict.PASS

    def _examine_in_time(self, source: Source) -> None:
        try:
            self._examine(source)
        except TimeIsUpError:
            self.cut_short = True
            self.unclear.append(source)

    def _examine(self, source: Source) -> None:
        """Look closely at what a unit makes of what another gives it."""
        if not np.all(np.isfinite(self.locally.gradient(source))):
            self.unclear.append(source)
            return
        judgement = self.look([source]).judgement
        if judgement.verdict in _WRONG:
            self._accuse(source, judgement.verdict)
        elif judgement.verdict is not Verdict.PASS:
            self.unclear.append(source)
        elif judgement.reason == "kink":
            self.kinks.append(source)

    def _accuse(self, source: Source, verdict: Verdict) -> None:
        apart = self.locally.apart
        leaves = frozenset(apart.leaves_before(source.name))
        for unit in sorted(source.units):
            self.wrong.append(Wrong(unit, apart.paths[unit], source, verdict, leaves))

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
        return Measurement(
            lines=(),
            gap_square=sum(math.sqrt(m.gap_square) for m in found) ** 2,
            numerical_square=size**2,
            analytic_square=size**2,
            bar_square=sum(math.sqrt(m.bar_square) for m in found) ** 2,
            analytic_norm=size,
        )

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
        apart = self.locally.apart
        for source in sources:
            if not source.units or self._is_clear(source):
                continue
            finite = np.all(np.isfinite(self.locally.gradient(source)))
            if finite and self.look([source]).judgement.verdict in _WRONG:
                for unit in sorted(source.units):
                    self.wrong.append(Wrong(unit, apart.paths[unit], source, Verdict.FAIL))

    def wrong_behind(self, leaves: Iterable[str]) -> list[Wrong]:
        """The wrong units that gradients of a variable come through."""
        held_by = set(leaves)
        return [wrong for wrong in self.wrong if not held_by.isdisjoint(wrong.variables)]

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
