"""Steps that no float64 graph can stand for: run eagerly, in the precision they train in.

A step that calls `.numpy()`, branches on values in Python, or holds its tapes in loops cannot be
traced. It is run as it is, again and again, with variables moved and put back, so its loss is only
known to the training precision; steps and error bars follow from that.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfcheck.errors import ModelError, TfcheckError, TraceError, received
from tfcheck.formats import FLOAT64, FORMATS
from tfcheck.graph.excerpts import weighted_total
from tfcheck.internals import live_variable, sublayers
from tfcheck.measure.directions import NUDGE, gaussian, generator, scale_of
from tfcheck.objective.objective import Objective
from tfcheck.objective.point import BATCH, Base, Parameter, elsewhere, spread
from tfcheck.trace.batch import Batch
from tfcheck.trace.choices import Choices
from tfcheck.trace.layers import EagerCall, noting_layers
from tfcheck.trace.left_out import LeftOut
from tfcheck.trace.listening import listening
from tfcheck.trace.recording import Recording, TapeCall
from tfcheck.trace.refusals import explain
from tfcheck.trace.silence import dropout_held
from tfcheck.trace.steps import Step
from tfcheck.trace.tracing import functions_written_out, require_tape
from tfcheck.trace.untracked import untracked_in
from tfcheck.unchanged.unchanged import held_variables, unchanged, variables_kept
from tfcheck.variables import is_variable, unique_paths

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

    costly = True

    def __init__(self, step: Step, batch: Batch, why: Exception | None) -> None:
        self._step = step
        self._batch = batch
        self.source = step.source
        self.lowest = self.precision = _lowest_precision(step.owner)
        self.first_step = FORMATS[self.precision].first_step
        self.evaluations = 0
        self.islands = self.random_ops = ()
        self.notes = (_how_it_was_run(why, self.precision),)
        recording = self._listen(batch)
        require_tape(recording, step)
        calls = recording.tape_calls
        self.steps = len(calls)
        self._weights = [call.output_gradients for call in calls]
        self._known: dict[bytes, dict[int, float]] = {}
        self.draws = (False,) * self.steps
        self.samples = ("",) * self.steps
        self.applied = list(recording.applied)
        self.received = frozenset(id(applied.variable) for applied in recording.applied)
        # What else it assigns to is not seen here.
        self.updates = bool(recording.expected and recording.applied)
        self.left_out = LeftOut(recording, recording.assigned).variables()
        self.made = ()
        self.asked_at = tuple(call.place for call in calls)
        self.dropped = frozenset()
        self.constants = [() for _ in calls]
        self.apart = [None for _ in calls]
        sources = [source for call in calls for source in call.sources if is_variable(source)]
        live = {id(live_variable(source)): live_variable(source) for source in sources}
        self._variables = list(live.values())
        moving = [*self._variables, *(batch.tensors[i] for i in self._float_inputs())]
        self.bits = min(FORMATS.get(value.dtype.name, FLOAT64).bits for value in moving)
        users = {variable: (path, None) for variable, path in recording.own_calls.users.items()}
        self.untracked = untracked_in(recording, recording.assigned, users)
        self.choices = Choices(recording)
        self._find(calls, unique_paths(sources))

    def _find(self, calls: Sequence[TapeCall], paths: dict[int, str]) -> None:
        """List what the tapes differentiate: variables, or for a layer its float inputs."""
        count = len(self._batch.tensors)
        position_of = {id(v): count + number for number, v in enumerate(self._variables)}
        parameters = []
        for loss, call in enumerate(calls):
            inputs = iter(self._float_inputs())
            for number, source in enumerate(call.sources):
                if is_variable(source):
                    position = position_of[id(live_variable(source))]
                    path = paths[id(source)]
                else:
                    position, path = next(inputs), call.names[number]
                alike = self.steps > 1
                parameters.append(Parameter(source, path, loss, (position,), number, alike))
        self.parameters = tuple(parameters)

    def _float_inputs(self) -> list[int]:
        """Positions of the float tensors among all tensors of the batch."""
        return [i for i, tensor in enumerate(self._batch.tensors) if tensor.dtype.is_floating]

    @property
    def may_differ(self) -> bool:
        """Always: what runs is not known."""
        return True

    # -- running the step --------------------------------------------------------------------

    def _listen(self, batch: Batch) -> Recording:
        return listen_eagerly(self._step, batch)

    def _listen_at(self, inputs: Sequence[Any]) -> Recording:
        count = len(self._batch.tensors)
        tensors = [
            tf.cast(value, before.dtype)
            for value, before in zip(inputs[:count], self._batch.tensors, strict=True)
        ]
        with self._moved(inputs[count:]):
            return self._listen(Batch(self._batch.pack(tensors), self._batch.size))

    @contextlib.contextmanager
    def _moved(self, values: Sequence[Any]) -> Iterator[None]:
        """The variables at other values."""
        before = [tf.identity(variable) for variable in self._variables]
        try:
            for variable, value in zip(self._variables, values, strict=True):
                variable.assign(tf.cast(value, variable.dtype))
            yield
        finally:
            for variable, value in zip(self._variables, before, strict=True):
                variable.assign(value)

    def at(self, batch: Batch) -> Base:
        """Run the step where the model stands now, on a batch."""
        self._batch = batch
        values = [*batch.tensors, *self._variables]
        inputs = tuple(
            tf.cast(value, tf.float64) if value.dtype.is_floating else tf.convert_to_tensor(value)
            for value in values
        )
        recording = self._listen_at(inputs)
        self._weights = [call.output_gradients for call in recording.tape_calls]
        self._known.clear()
        return self._base(inputs, recording)

    def _base(
        self,
        inputs: tuple[Any, ...],
        recording: Recording,
        weights: Sequence[tuple[Any, ...]] | None = None,
    ) -> Base:
        weights = weights or [call.output_gradients for call in recording.tape_calls]
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

    def aside(self, base: Base, seed: int) -> Base | None:
        """Losses, gradients and what is applied where everything is a good deal different."""
        self.deadline.require_time()
        labels = [f"{BATCH}{i}" for i in range(len(self._batch.tensors))]
        labels += [variable.name for variable in self._variables]
        inputs = [
            elsewhere(value, seed, label) for value, label in zip(base.inputs, labels, strict=True)
        ]
        try:
            return self._base(tuple(inputs), self._listen_at(inputs))
        except TfcheckError:
            return None

    def nudged(self, base: Base, loss: int, seed: int, size: float = NUDGE) -> Base:
        """All that one loss is differentiated with respect to moves a little at random."""
        self.deadline.require_time()
        inputs = list(base.inputs)
        for parameter in self.parameters:
            if parameter.loss == loss:
                (position,) = parameter.inputs
                value = self.value(base, parameter)
                rng = generator(seed, parameter.stream, "nudge")
                change = size * gaussian(rng, value.shape, scale_of(value))
                inputs[position] = tf.constant(value + change)
        found = self._base(tuple(inputs), self._listen_at(inputs), self._weights)
        # What the training precision made of the point is where the gradients were taken.
        return replace(found, inputs=self._rounded(inputs))

    def _rounded(self, inputs: Sequence[Any]) -> tuple[Any, ...]:
        dtypes = [value.dtype for value in (*self._batch.tensors, *self._variables)]
        return tuple(
            tf.cast(tf.cast(value, dtype), value.dtype)
            for value, dtype in zip(inputs, dtypes, strict=True)
        )

    def loss(self, index: int, inputs: Sequence[Any]) -> float:
        """Value of one loss at a point, in the training precision."""
        self.deadline.require_time()
        if self.steps == 1:
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
        unknown = (math.nan,) * self.steps
        try:
            calls = self._listen_at(inputs).tape_calls
        except TfcheckError:
            return unknown
        if len(calls) != self.steps:
            return unknown
        return tuple(map(value_of, calls, self._weights))

    def holds_back(self, loss: int) -> bool:  # noqa: ARG002 - the same for all
        """No loss: a run assigns what it assigns."""
        return False

    def is_of_names(self, base: Base, parameter: Parameter) -> bool:  # noqa: ARG002
        """No parameter: there is no graph to see it in."""
        return False

    def units_at(self, base: Base, loss: int) -> None:
        """None: nothing is known of what it consists of."""

    @property
    def assignments(self) -> list[tf.Operation]:
        """None that is known."""
        return []

    def traced_call(self, loss: int) -> None:
        """None: there is no graph."""

    def part_of(self, loss: int) -> None:
        """None: there is no graph."""

    def calls_of_layers(self, batch: Batch) -> list[EagerCall]:
        """The calls of layers that the step makes, inner ones first."""
        calls: list[EagerCall] = []
        with noting_layers(calls):
            self._listen(batch)
        return calls


def listen_eagerly(step: Step, batch: Batch) -> Recording:
    """Run a step once eagerly, dropout held still, and put back all that it changes.

    Args:
        step: the step.
        batch: the batch to run it on.

    Raises:
        BatchError: if the model rejects the batch.
        ModelError: if the model is not built.
        TraceError: if the step raises for another reason.
    """
    recording = step.recording()
    with (
        unchanged(step.owner, step.run),
        variables_kept(held_variables(step.owner)) as assigned,
        dropout_held(step.dropout),
        listening(recording),
        functions_written_out(),
    ):
        try:
            step.run(batch.structure, recording)
        except (TraceError, ModelError):
            raise
        except Exception as error:
            raise explain(error, batch, step.source) from error
    return replace(recording, assigned=assigned)


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


def _digest(inputs: Sequence[Any]) -> bytes:
    """What tells one point from another."""
    digest = hashlib.blake2b()
    for value in inputs:
        digest.update(np.asarray(value).tobytes())
    return digest.digest()


def value_of(call: TapeCall, weights: Sequence[Any] | None = None) -> float:
    """The value of what a call of a tape differentiates.

    Args:
        call: the call.
        weights: the weights of its targets, which are constants for the tape. Defaults to None,
            for the call's own.
    """
    return float(
        weighted_total(call.targets, call.output_gradients if weights is None else weights)
    )


def _scale(call: TapeCall, loss: float, before: dict[Any, Any]) -> float:
    """The loss scale inside a tape's target, 1 where there is none."""
    unscaled = before.get(call.targets[0].ref())
    if unscaled is None or not float(unscaled):
        return 1.0
    return loss / float(unscaled)


def _lowest_precision(owner: keras.Layer) -> str:
    dtypes = {layer.compute_dtype for layer in sublayers(owner)}
    return next(name for name in reversed(_RUN_IN) if name in dtypes or name == "float64")
