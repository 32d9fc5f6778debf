"""Checkpoints that cannot come, or did not: nobody is to believe that they passed."""

from __future__ import annotations

import math
from collections.abc import Callable

from tfcheck.callbacks.checkpoints import Checkpoints
from tfcheck.callbacks.telling import warn
from tfcheck.rendering.words import plural


def tell_what_cannot_come(checkpoints: Checkpoints, last_epoch: float) -> None:
    """Warn of what is beyond a training that begins now.

    Args:
        checkpoints: the moments that are chosen.
        last_epoch: the epoch that training ends with; infinity where that is unknown.
    """
    if checkpoints.none:
        warn(
            "No gradient will be checked: no moment is chosen. Choose one with start=True, epochs, "
            "steps, end or when."
        )
    elif last_epoch < math.inf and (beyond := checkpoints.beyond(last_epoch)):
        warn(
            f"No gradient will be checked after {beyond}: training ends with epoch {last_epoch}. "
            "Choose earlier ones, or end=True."
        )


def tell_what_never_came(
    checkpoints: Checkpoints,
    epoch: int,
    steps: Callable[[], int],
    *,
    last_epoch: float,
    when_was_true: bool,
) -> None:
    """Warn of what did not come in a training that has ended.

    Args:
        checkpoints: the moments that are chosen.
        epoch: finished epochs.
        steps: gives the steps made, asked only where it matters.
        last_epoch: the epoch that training was to end with; what is beyond it was told before.
        when_was_true: whether `when` ever was.
    """
    made = steps() if checkpoints.steps else 0
    missed = checkpoints.missed(epoch, made, last_epoch)
    if missed:
        length = f"{plural(epoch, 'epoch')} and {plural(steps(), 'step')}"
        warn(
            f"No gradient was checked after {missed}: training ended after {length}. Choose "
            "earlier ones, or end=True."
        )
    if checkpoints.when is not None and not when_was_true:
        warn(
            "No gradient was checked because of when: it never was true. Look at what it makes of "
            "`state`."
        )
