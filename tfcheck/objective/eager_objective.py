"""Steps that no float64 graph can stand for: run eagerly, in the precision they train in.

A step that calls `.numpy()`, branches on values in Python, or holds its tapes in loops cannot be
traced. It is run as it is, again and again, with variables moved and put back, so its loss is only
known to the training precision; steps and error bars follow from that.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from tfcheck.errors import TfcheckError, received
from tfcheck.formats import FLOAT64, FORMATS
from tfcheck.internals import sublayers
from tfcheck.measure.directions import NUDGE
from tfcheck.objective.eager_step import EagerStep, value_of
from tfcheck.objective.facts import StepFacts
from tfcheck.objective.objective import Objective
from tfcheck.objective.parameters import parameters_of_run
from tfcheck.objective.point import Base, elsewhere, spread
from tfcheck.trace.batch import Batch
from tfcheck.trace.choices import Choices
from tfcheck.trace.layers import EagerCall
from tfcheck.trace.left_out import LeftOut
from tfcheck.trace.recording import Recording, TapeCall
from tfcheck.trace.steps import Step
from tfcheck.trace.untracked import untracked_in

_RUN_IN = ("float64", "float32", "float16", "bfloat16")


class EagerObjective(Objective):
    """A step that can be evaluated at any point by running it there.

    A point is the tensors of the batch, then the values of the variables that tapes differentiate.
    One run gives the losses of all its tapes, each of which is asked for at the same places.

    Args:
        step: the step.
        batch: the debug batch.
        why: why no graph stands for it; None where it is meant to run eagerly.

    Raises:
        BatchError: if the model rejects the batch.
        TraceError: if the step raises, or differentiates no variable.
    """

    def __init__(self, step: Step, batch: Batch, why: Exception | None) -> None:
        run = self._step = EagerStep(step, batch)
        calls, count = run.first.tape_calls, len(batch.tensors)
        super().__init__(
            _facts_of_run(step, run.first, run.dtypes, why),
            tuple(parameters_of_run(calls, run.variables, run.floats, count)),
            len(calls),
        )
        self._weights = _weights(run.first)
        self._known: dict[bytes, dict[int, float]] = {}

    def calls_of_layers(self, batch: Batch) -> list[EagerCall]:
        """The calls of layers that the step makes, inner ones first."""
        return self._step.calls_of_layers(batch)

    # -- points ----------------------------------------------------------------------------------

    def at(self, batch: Batch) -> Base:
        """Run the step where the model stands now, on a batch."""
        inputs = self._step.here(batch)
        recording = self._step.at(inputs)
        self._weights = _weights(recording)
        self._known.clear()
        return _base(inputs, recording, self._weights)

    def aside(self, base: Base, seed: int) -> Base | None:
        """Losses, gradients and what is applied where everything is a good deal different."""
        self.deadline.require_time()
        inputs = [
            elsewhere(value, seed, label)
            for value, label in zip(base.inputs, self._step.labels, strict=True)
        ]
        try:
            recording = self._step.at(inputs)
            return _base(tuple(inputs), recording, _weights(recording))
        except TfcheckError:
            return None

    def nudged(self, base: Base, loss: int, seed: int, size: float = NUDGE) -> Base:
        """All that one loss is differentiated with respect to moves a little at random."""
        self.deadline.require_time()
        inputs = self._nudged_inputs(base, loss, seed, size)
        found = _base(tuple(inputs), self._step.at(inputs), self._weights)
        # What the training precision made of the point is where the gradients were taken.
        return replace(found, inputs=self._step.rounded(inputs))

    # -- losses ----------------------------------------------------------------------------------

    def loss(self, index: int, inputs: Sequence[Any]) -> float:
        """Value of one loss at a point, in the training precision; `nan` where it cannot run."""
        self.deadline.require_time()
        if self.loss_count == 1:
            return self._losses(inputs)[index]
        digest = _digest(inputs)
        known = self._known.get(digest, {})
        if index not in known:
            known = self._known[digest] = dict(enumerate(self._losses(inputs)))
        # Whoever asks twice wants to see whether two runs give the same.
        return known.pop(index)

    def _losses(self, inputs: Sequence[Any]) -> tuple[float, ...]:
        """The values of all losses at a point."""
        self.evaluations += 1
        unknown = (math.nan,) * self.loss_count
        try:
            calls = self._step.at(inputs).tape_calls
        except TfcheckError:
            return unknown
        if len(calls) != self.loss_count:
            return unknown
        return tuple(map(value_of, calls, self._weights))


def _facts_of_run(
    step: Step, recording: Recording, dtypes: Sequence[str], why: Exception | None
) -> StepFacts:
    """What is known of a step that was run once.

    Args:
        step: the step.
        recording: what was heard.
        dtypes: the precisions of what moves.
        why: why no graph stands for it; None where it is meant to run eagerly.
    """
    calls = recording.tape_calls
    precision = _lowest_precision(step.owner)
    users = {variable: (path, None) for variable, path in recording.own_calls.users.items()}
    return StepFacts(
        source=step.source,
        precision=precision,
        bits=min(FORMATS.get(dtype, FLOAT64).bits for dtype in dtypes),
        lowest=precision,
        choices=Choices(recording),
        first_step=FORMATS[precision].first_step,
        notes=(_how_it_was_run(why, precision),),
        draws=(False,) * len(calls),
        samples=("",) * len(calls),
        constants=((),) * len(calls),
        asked_at=tuple(call.place for call in calls),
        applied=recording.applied,
        received=frozenset(id(applied.variable) for applied in recording.applied),
        # What else it assigns to is not seen here.
        updates=bool(recording.expected and recording.applied),
        left_out=LeftOut(recording, recording.assigned).variables(),
        untracked=untracked_in(recording, recording.assigned, users),
        may_differ=True,  # what runs is not known
        costly=True,
    )


def _lowest_precision(owner: keras.Layer) -> str:
    dtypes = {layer.compute_dtype for layer in sublayers(owner)}
    return next(name for name in reversed(_RUN_IN) if name in dtypes or name == "float64")


def _how_it_was_run(why: Exception | None, precision: str) -> str:
    if why is None:
        return (
            f"The step was checked as fit runs it, eagerly, in {precision} and with the error bars "
            "of that. Compile with run_eagerly=False to have it checked in float64."
        )
    return (
        f"No float64 graph stands for this step ({received(why)}). It was run eagerly in "
        f"{precision}, with the error bars of that."
    )


def _base(
    inputs: tuple[Any, ...], recording: Recording, weights: Sequence[tuple[Any, ...]]
) -> Base:
    """What a run of the step gives at a point.

    Args:
        inputs: the point.
        recording: what was heard of the run.
        weights: for each loss the weights of its targets.
    """
    losses = tuple(map(value_of, recording.tape_calls, weights))
    before = {scaled.ref(): loss for scaled, loss in recording.loss_scales}
    return Base(
        inputs=inputs,
        losses=losses,
        losses_as_trained=losses,
        scales=tuple(
            _scale(call, loss, before)
            for call, loss in zip(recording.tape_calls, losses, strict=True)
        ),
        gradients=tuple(
            gradient
            for call in recording.tape_calls
            for gradient in spread(call, [g for g in call.gradients if g is not None])
        ),
        errors=tuple(call.error for call in recording.tape_calls),
        applied=tuple(np.asarray(a.gradient, np.float64) for a in recording.applied),
        divisors=tuple(float(a.divisor) for a in recording.applied),
    )


def _weights(recording: Recording) -> list[tuple[Any, ...]]:
    return [call.output_gradients for call in recording.tape_calls]


def _scale(call: TapeCall, loss: float, before: Mapping[Any, Any]) -> float:
    """The loss scale inside a tape's target, 1 where there is none."""
    unscaled = before.get(call.targets[0].ref())
    if unscaled is None or not float(unscaled):
        return 1.0
    return loss / float(unscaled)


def _digest(inputs: Sequence[Any]) -> bytes:
    """What tells one point from another."""
    digest = hashlib.blake2b()
    for value in inputs:
        digest.update(np.asarray(value).tobytes())
    return digest.digest()
