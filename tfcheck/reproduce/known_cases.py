"""What is kept of culprits from one check to the next: each as first found, where that does."""

from __future__ import annotations

from collections.abc import Sequence

from tfcheck.deadline import Deadline
from tfcheck.reproduce.case import Case
from tfcheck.reproduce.collect import Collector
from tfcheck.reproduce.trial import Check
from tfcheck.settings import Settings
from tfcheck.trace.batch import Batch
from tfcheck.trace.steps import Step


class KnownCases:
    """What tests of a step's culprits are made of.

    Args:
        step: the step.
        settings: the options of its checks.
        check: checks a call of a layer by itself.
    """

    def __init__(self, step: Step, settings: Settings, check: Check) -> None:
        self._step = step
        self._settings = settings
        self._check = check
        self._known: dict[str, list[Case]] = {}

    def of(
        self, culprits: Sequence[str], batch: Batch, moment: str, deadline: Deadline
    ) -> tuple[Case, ...]:
        """What there is on culprits; what is not known yet, or was of no use, is looked for.

        Args:
            culprits: their paths.
            batch: the debug batch.
            moment: when the check is, in words.
            deadline: when it has to end.

        Raises:
            TimeIsUpError: if there is no time to see what they are given.
        """
        known = self._known
        unknown = [path for path in culprits if all(one.is_spent for one in known.get(path, ()))]
        if unknown:
            found = Collector(self._step, batch, self._settings, moment, deadline).on(unknown)
            cases = [Case(evidence, self._check) for evidence in found]
            known |= {path: [one for one in cases if one.culprit == path] for path in unknown}
        return tuple(one for path in culprits for one in known.get(path, ()))
