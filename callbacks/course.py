"""How far a training has come, and which step is the next to look at."""

from __future__ import annotations

from typing import Any

from tfcheck.callbacks.checkpoints import Checkpoints, TrainingState
from tfcheck.callbacks.missed import tell_what_never_came
from tfcheck.callbacks.step_count import StepCount


class Course:
    """One training, as far as it has come: each has its own, so nothing of it outlives it.

    Args:
        checkpoints: the moments that are chosen.
        count: counts the steps.
        last_epoch: the epoch that training ends with; infinity where that is unknown.

    Attributes:
        count: counts the steps.
        first_step: the step that training began at.
        last_epoch: the epoch that training ends with.
        epoch: finished epochs.
        start_is_due: whether the check before the first step waits for the layers to be built.
        when_was_true: whether `when` ever was, or could not be asked.
        stopped: whether a check has ended training.
    """

    def __init__(self, checkpoints: Checkpoints, count: StepCount, last_epoch: float) -> None:
        self.count = count
        self.first_step = count.steps()
        self.last_epoch = last_epoch
        self.epoch = 0
        self.start_is_due = False
        self.when_was_true = False
        self.stopped = False
        self._checkpoints = checkpoints
        self._last_batch = -1
        self._step = self.first_step
        self._due = checkpoints.next_step(self._step)

    def begin_epoch(self, finished: int) -> None:
        """Note how many epochs are finished, and that batches are counted anew."""
        self.epoch = finished
        self._last_batch = -1

    def end_batch(self, batch: int) -> int | None:
        """Note that a batch is through.

        Returns:
            The step that was looked at last, where this one is worth a look; else None.
        """
        # Batches are counted in Python: reading an optimizer's counter waits for the device.
        self.count.more_batches(batch - self._last_batch)
        self._last_batch = batch
        if not self.count.may_have_reached(self._due):
            return None
        previous, self._step = self._step, self.count.steps()
        self._due = self._checkpoints.next_step(self._step)
        return previous

    def look(self) -> int:
        """The step that training is at, which is looked at."""
        self._step = self.count.steps()
        return self._step

    def wait_for_weights(self) -> None:
        """Have the check before the first step made after it, when `fit` has built all layers."""
        self.start_is_due = True
        self._due = 0

    def state(self, logs: dict[str, Any] | None, *, at_epoch_end: bool) -> TrainingState:
        """Where training stands, as `when` sees it."""
        return TrainingState(self.count.steps(), self.epoch, dict(logs or {}), at_epoch_end)

    def tell_what_never_came(self) -> None:
        """Warn of what did not come, unless a check has ended training."""
        if not self.stopped:
            tell_what_never_came(
                self._checkpoints,
                self.epoch,
                self.count.steps,
                last_epoch=self.last_epoch,
                when_was_true=self.when_was_true,
            )
