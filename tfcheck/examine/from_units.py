"""What the units of a loss say of its variables: each was measured where units use it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from tfcheck.deadline import InTime
from tfcheck.examine.before_wrong_units import BeforeWrongUnits
from tfcheck.examine.composition import contradicts
from tfcheck.examine.effort import Effort
from tfcheck.examine.finding import Seen
from tfcheck.examine.local_examination import LocalExamination
from tfcheck.examine.locally import Locally
from tfcheck.examine.point_facts import PointFacts
from tfcheck.examine.remarks import but_latent, held_fixed, on_kinks
from tfcheck.examine.subject import Subject
from tfcheck.judge.judgement import JUMPS_ALONE, UNUSED
from tfcheck.judge.second_look import Look
from tfcheck.progress import Progress
from tfcheck.units.sources import Source


class FromUnits:
    """Judges variables by the units that use them.

    Args:
        point: the step at the point.
        effort: what is spent on what is wrong.
        in_time: does what there is time for.
        progress: called as losses are examined.

    Attributes:
        local: the losses that are examined unit by unit, as far as they are yet.
    """

    def __init__(
        self, point: PointFacts, effort: Effort, in_time: InTime, progress: Progress
    ) -> None:
        self._point = point
        self._in_time = in_time
        self._progress = progress
        self.local: dict[int, LocalExamination] = {}
        self._before_wrong_units = BeforeWrongUnits(point, effort, self.local)

    def examine(self, loss: int) -> None:
        """Examine a loss unit by unit, where that can be done and was not done before.

        Args:
            loss: index of the loss.
        """
        at = self._point.objective.units_at(self._point.base, loss)
        if at is None or loss in self.local:
            return
        self._progress("every layer by itself", 0, 0)
        settings = self._point.settings
        self.local[loss] = LocalExamination(Locally(at, settings), settings)
        self._in_time.cut_short |= self.local[loss].cut_short

    def seen(self, subject: Subject) -> Seen | None:
        """What the units that use a variable say of it; None where they do not suffice.

        Args:
            subject: the variable.
        """
        parameter, gradient = subject.parameter, subject.gradient
        objective, local = self._point.objective, self.local.get(parameter.loss)
        if local is None:
            return None
        leaves = parameter.held_by
        sources = local.sources_of(leaves)
        if not sources and gradient is None and not objective.holds_back(parameter.loss):
            return Seen(UNUSED)
        if gradient is None or not sources or local.is_unclear(leaves):
            return None
        if not np.any(gradient) and local.is_blocked(leaves):
            return Seen(JUMPS_ALONE)
        if not np.any(gradient) and local.may_jump(leaves):
            return None
        if local.wrong_behind(leaves):
            return self._before_wrong_units.seen(subject)
        if not all(source.units for source in sources):
            return None
        return self._before_right_units(subject, local, sources, leaves)

    def _before_right_units(
        self,
        subject: Subject,
        local: LocalExamination,
        sources: Sequence[Source],
        leaves: Sequence[str],
    ) -> Seen:
        """What the units that use a variable make of it, where all that follow are right."""
        target = local.target(sources)
        measurement = local.measurement(sources, target.norm)
        if measurement is not None:
            look = Look(local.judged(measurement, target), measurement)
        else:
            look = local.look(sources)
        if look.judgement.accuses:
            self._in_time(partial(local.accuse_users, sources), None)
        judgement = on_kinks(look.judgement, local.kinks_behind(leaves))
        judgement = but_latent(judgement, local.latent_behind(leaves))
        draws = self._point.objective.facts.draws[subject.parameter.loss]
        judgement = held_fixed(judgement, draws=draws)
        return Seen(judgement, look.measurement, target, look.slopes)

    def contradicted(self) -> set[int]:
        """The losses that contradict what their units say of the gradients.

        Raises:
            TimeIsUpError: if there is no time to see.
        """
        return {loss for loss, local in self.local.items() if self._contradicts(loss, local)}

    def _contradicts(self, loss: int, local: LocalExamination) -> bool:
        right = self._before_wrong_units.corrected(loss) if local.wrong else {}
        return contradicts(self._point, loss, local, right)
