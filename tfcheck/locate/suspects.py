"""Which units of a step are to blame for gradients that failed.

Wrong units are known from the examination. Where a gradient is blocked, or not finite, no slope
tells: then it is the units in which that begins.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tfcheck.deadline import TimeIsUpError
from tfcheck.examine.examination import Examination
from tfcheck.examine.local_examination import LocalExamination
from tfcheck.measure.dependence import depends
from tfcheck.objective.graph_objective import GraphObjective
from tfcheck.objective.point import Parameter
from tfcheck.trace.batch import Batch
from tfcheck.units.apart import Apart
from tfcheck.units.sources import Source


@dataclass(frozen=True)
class Suspect:
    """A unit to blame.

    Attributes:
        path: its path.
        before: paths of the variables that it uses, or that what it is given is computed from.
    """

    path: str
    before: frozenset[str]


class Suspects:
    """The units of a step, given that some variables failed.

    Args:
        examination: the examination of the step.
        batch: the debug batch.
        failed: paths of the variables whose gradients are wrong.
    """

    def __init__(self, examination: Examination, batch: Batch, failed: Set[str]) -> None:
        self._examination = examination
        self._point = examination.point
        self._objective = examination.point.objective
        self._batch = batch
        self._failed = failed

    def guilty(self) -> list[Suspect]:
        """The units to blame, in the order of the step."""
        for found in (
            self._not_finite,
            self._overflowing,
            self._wrong,
            self._blocking,
            self._assigning,
        ):
            if guilty := list(found()):
                return guilty
        return []

    def _parameters(self, loss: int) -> list[Parameter]:
        return [p for p in self._objective.parameters if p.loss == loss]

    def _before(self, loss: int, apart: Apart, source: Source) -> frozenset[str]:
        leaves = apart.leaves_before(source.name)
        return frozenset(
            parameter.path
            for parameter in self._parameters(loss)
            if not leaves.isdisjoint(parameter.held_by)
        )

    def suspects(self, loss: int, apart: Apart, sources: Iterable[Source]) -> Iterator[Suspect]:
        """Those who use sources."""
        for source in sources:
            for unit in sorted(source.units or source.users):
                yield Suspect(apart.paths[unit], self._before(loss, apart, source))

    def _wrong(self) -> Iterator[Suspect]:
        """Units that hand on a wrong gradient."""
        try:
            self._look_closer()
        except TimeIsUpError:
            if not any(local.wrong for local in self._examination.local.values()):
                raise
        for loss, local in self._examination.local.items():
            apart = local.locally.apart
            for wrong in sorted([*local.wrong, *local.latent], key=lambda wrong: wrong.unit):
                yield Suspect(wrong.path, self._before(loss, apart, wrong.source))

    def _look_closer(self) -> None:
        """Look for wrong units where that was not called for before."""
        for loss, value in enumerate(self._point.base.losses):
            if math.isfinite(value):
                self._examination.examine_locally(loss)
                self._accuse_users(loss)
        if any(local.cut_short for local in self._examination.local.values()):
            # A unit that was not reached may be the wrong one: nobody else is to blame for that.
            self._objective.deadline.require_time()

    def _accuse_users(self, loss: int) -> None:
        """Find the units that use a variable wrongly, where only the loss has told that it is."""
        local = self._examination.local.get(loss)
        if local is None:
            return
        for parameter in self._parameters(loss):
            leaves = parameter.held_by
            if parameter.path in self._failed and not local.wrong_behind(leaves):
                local.accuse_users(local.sources_of(leaves))

    def _not_finite(self) -> Iterator[Suspect]:
        """Units that make something that is not finite of what is."""
        objective, base = self._objective, self._point.base
        for loss, apart in enumerate(objective.apart):
            at = objective.units_at(base, loss)
            if apart is None or at is None:
                continue
            known = {name: bool(np.all(np.isfinite(value))) for name, value in _floats(at.found)}
            yield from _first_not_finite(self, loss, apart, known, base.losses[loss])

    def _overflows(self, loss: int) -> bool:
        """Whether it is for the training precision that variables of a loss failed.

        An optimizer that scales its loss expects that of gradients, and leaves such a step out.
        """
        base = self._point.base
        if not math.isfinite(base.losses_as_trained[loss]):
            return True
        trained = zip(self._objective.parameters, base.gradients_as_trained, strict=False)
        return base.scales[loss] == 1.0 and any(
            gradient is not None and not np.all(np.isfinite(gradient))
            for parameter, gradient in trained
            if parameter.loss == loss and parameter.path in self._failed
        )

    def _overflowing(self) -> Iterator[Suspect]:
        """Units in which only the training precision makes something that is not finite."""
        objective, base = self._objective, self._point.base
        if not isinstance(objective, GraphObjective):
            return
        for loss, apart in enumerate(objective.apart):
            if apart is None or not self._overflows(loss):
                continue
            found = objective.units_as_trained(self._batch, base, loss)
            known = {name: bool(np.all(np.isfinite(value))) for name, value in found.items()}
            yield from _first_not_finite(self, loss, apart, known, base.losses_as_trained[loss])

    def _blocking(self) -> Iterator[Suspect]:
        """Units that depend on what they are given, though the tape gives no gradient of it."""
        for loss, local in self._examination.local.items():
            failed = {
                name
                for parameter in self._parameters(loss)
                if parameter.path in self._failed
                for name in parameter.held_by
            }
            yield from self.suspects(loss, local.locally.apart, self._blocked(local, failed))

    def _blocked(self, local: LocalExamination, failed: Set[str]) -> Iterator[Source]:
        apart, seed = local.locally.apart, self._point.settings.seed
        known = {source.number for source in local.blocked}
        for source in apart.sources:
            leaves = apart.leaves_before(source.name)
            if failed.isdisjoint(leaves) or np.any(local.locally.gradient(source)):
                continue
            # What goes nowhere from here, or what is given on though the tape does not know how.
            ends = not source.users <= apart.giving
            if (
                source.number in known
                or ends
                or apart.follows_in_jumps(source)
                or (source.units and depends(local.target([source]), seed))
            ):
                yield source

    def _assigning(self) -> Iterator[Suspect]:
        """Layers that assign to a variable what is computed from another, which no tape follows."""
        for operation in self._objective.traced.assignments:
            before = self._objective.traced.behind(operation)
            path = self._objective.traced.made_in(operation)
            if path and not before.isdisjoint(self._failed):
                yield Suspect(path, before)


def _floats(found: Mapping[str, Any]) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    for name, tensor in found.items():
        if tensor.dtype.is_floating:
            yield name, np.asarray(tensor)


def _first_not_finite(
    suspects: Suspects, loss: int, apart: Apart, known: Mapping[str, bool], value: float
) -> Iterator[Suspect]:
    """The units that make something that is not finite of what is."""
    finite = defaultdict(lambda: True, known)
    finite |= {target.name: bool(np.isfinite(value)) for target in apart.targets}
    for unit, outputs in sorted(apart.outputs.items()):
        sources = [source for source in apart.sources if unit in source.units]
        given = all(finite[source.name] for source in sources)
        made = [finite[o.same or o.name] for o in outputs]
        if given and not all(made):
            yield from suspects.suspects(loss, apart, sources)
            continue
        if given and all(made) and all(finite[w] for w in apart.weights_of([unit])):
            spoilt = [s for s in sources if s.total is not None and not finite[s.total]]
            yield from suspects.suspects(loss, apart, spoilt)
