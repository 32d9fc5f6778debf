"""What a reader should know of how the losses of a step were evaluated."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tfcheck.errors import some
from tfcheck.examine.held import notes_on_held
from tfcheck.examine.point_facts import PointFacts
from tfcheck.judge.judgement import Judgement


def notes_on_losses(point: PointFacts, obstacles: Iterable[Judgement | None]) -> Iterator[str]:
    """Say what kept losses from being judged, and what was held fixed or rounded.

    Args:
        point: the step at the point.
        obstacles: for each loss what makes it impossible to judge; None for nothing.
    """
    objective = point.objective
    yield from dict.fromkeys(o.note for o in obstacles if o is not None and o.note)
    if any(objective.facts.draws):
        yield (
            f"The loss draws random numbers with {some(objective.facts.random_ops)}. They were "
            "drawn once and held fixed; draw them from a keras.random.SeedGenerator to train "
            "reproducibly."
        )
    yield from notes_on_held(objective)
    if point.base.coarse:
        yield (
            "An operation of the backward pass has no float64 form: the tape's gradients are "
            "those of the training precision."
        )
    if objective.facts.islands:
        yield (
            f"{len(objective.facts.islands)} operation(s) have no float64 form and were "
            f"measured in their own precision: {some(objective.facts.islands)}."
        )
