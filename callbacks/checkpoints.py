"""When a callback checks: the moments of training chosen for a gradient check."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfcheck.errors import ArgumentError, ArgumentTypeError, rule


@dataclass(frozen=True, slots=True)
class TrainingState:
    """Where training stands, as `when` sees it.

    Attributes:
        step: optimizer iterations so far.
        epoch: finished epochs.
        logs: the metrics Keras handed to the callback, as a plain dictionary.
        at_epoch_end: whether an epoch has just ended.
    """

    step: int
    epoch: int
    logs: dict[str, Any]
    at_epoch_end: bool


@dataclass(frozen=True, slots=True)
class Moment:
    """A checkpoint that has come.

    Attributes:
        name: what it is called, such as `"step 500"`.
        asked: whether `when` asked for it.
    """

    name: str
    asked: bool


@dataclass(frozen=True)
class Checkpoints:
    """The moments at which to check.

    Args:
        start: check before the first step. Defaults to True.
        epochs: check after these epochs, counted from 1. Defaults to none.
        steps: check after these optimizer steps, counted from 1. Defaults to none.
        end: check when training ends. Defaults to False.
        when: `when(state) -> bool` asks for a check after a step or an epoch. Defaults to None.

    Raises:
        ArgumentError: for epochs or steps that are not whole numbers of at least 1.
        ArgumentTypeError: if `when` is not callable.
    """

    start: bool = True
    epochs: frozenset[int] = frozenset()
    steps: frozenset[int] = frozenset()
    end: bool = False
    when: Callable[[TrainingState], bool] | None = None

    @property
    def none(self) -> bool:
        """Whether no moment is chosen at all."""
        return self.when is None and not (self.start or self.end or self.epochs or self.steps)

    @property
    def at_most_one(self) -> bool:
        """Whether there is one moment at most, however long the training."""
        moments = self.start + len(self.epochs) + len(self.steps) + self.end
        return self.when is None and moments <= 1

    @classmethod
    def chosen(
        cls,
        start: bool,
        epochs: int | Iterable[int],
        steps: int | Iterable[int],
        end: bool,
        when: Callable[[TrainingState], bool] | None,
    ) -> Checkpoints:
        """Check a user's choice and freeze it."""
        for name, flag in (("start", start), ("end", end)):
            if not isinstance(flag, bool):
                raise ArgumentTypeError(
                    rule(f"{name} must be True or False", name, flag, "Choose one")
                )
        if when is not None and not callable(when):
            raise ArgumentTypeError(
                rule(
                    "when must be callable as when(state) -> bool", "when", when, "Give a function"
                )
            )
        return cls(start, _whole("epochs", epochs), _whole("steps", steps), end, when)

    def after_step(self, state: TrainingState, previous_step: int) -> Moment | None:
        """The checkpoint that the last step or steps reached, or None.

        Several steps may pass between two calls (`steps_per_execution`): a chosen step among them
        counts when it is passed.
        """
        asked = self._asked(state)
        if asked or any(previous_step < step <= state.step for step in self.steps):
            return Moment(f"step {state.step}", asked)
        return None

    def after_epoch(self, state: TrainingState) -> Moment | None:
        """The checkpoint at the end of an epoch, or None."""
        asked = self._asked(state)
        if asked or state.epoch in self.epochs:
            return Moment(f"epoch {state.epoch}", asked)
        return None

    def may_be_after_epoch(self, epoch: int) -> bool:
        """Whether anything can happen after this epoch."""
        return self.when is not None or epoch in self.epochs

    def next_step(self, step: int) -> float:
        """The first optimizer step after `step` at which anything can happen; infinity if none."""
        if self.when is not None:
            return step + 1
        return min((chosen for chosen in self.steps if chosen > step), default=math.inf)

    def beyond(self, epochs: float) -> str:
        """What cannot come in a training of so many epochs, as a clause; `""` if all can."""
        return _clause("epochs", (epoch for epoch in self.epochs if epoch > epochs))

    def missed(self, epoch: int, step: int, told: float) -> str:
        """What has not come when a training ends here, as a clause; `""` if all has.

        Args:
            epoch: finished epochs.
            step: steps made.
            told: epochs beyond this one were told before.
        """
        epochs = _clause("epochs", (chosen for chosen in self.epochs if epoch < chosen <= told))
        steps = _clause("steps", (chosen for chosen in self.steps if chosen > step))
        return " and ".join(clause for clause in (epochs, steps) if clause)

    def _asked(self, state: TrainingState) -> bool:
        return self.when is not None and bool(self.when(state))


def _clause(name: str, missing: Iterable[int]) -> str:
    numbers = sorted(missing)
    if not numbers:
        return ""
    listed = ", ".join(map(str, numbers[:3]))
    more = f", … {numbers[-1]}" if len(numbers) > 3 else ""
    return f"{name} {listed}{more}"


def _whole(name: str, value: int | Iterable[int]) -> frozenset[int]:
    chosen: list[Any] = list(value) if isinstance(value, Iterable) else [value]
    for number in chosen:
        if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < 1:
            raise ArgumentError(
                rule(
                    f"{name} must be whole numbers, counted from 1",
                    name,
                    value,
                    f"Try {name}=(1, 5)",
                )
            )
    return frozenset(int(number) for number in chosen)
