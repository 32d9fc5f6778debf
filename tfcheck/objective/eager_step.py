"""Running a step as it is, at any point: variables are moved there, and put back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import tensorflow as tf

from tfcheck.errors import ModelError, TraceError
from tfcheck.graph.excerpts import weighted_total
from tfcheck.internals import live_variable
from tfcheck.objective.parameters import variables_of
from tfcheck.objective.point import BATCH
from tfcheck.trace.batch import Batch
from tfcheck.trace.layers import EagerCall, noting_layers
from tfcheck.trace.listening import listening
from tfcheck.trace.recording import Recording, TapeCall
from tfcheck.trace.refusals import explain
from tfcheck.trace.silence import dropout_held
from tfcheck.trace.steps import Step
from tfcheck.trace.tracing import functions_written_out, require_tape
from tfcheck.unchanged.unchanged import held_variables, unchanged, variables_kept


class EagerStep:
    """A step that is run at points: the tensors of a batch, then the values of variables.

    It is run once to begin with, to hear which variables its tapes differentiate for.

    Args:
        step: the step.
        batch: the debug batch.

    Attributes:
        first: what was heard in the first run.
        variables: the variables that are moved.

    Raises:
        BatchError: if the model rejects the batch.
        TraceError: if the step raises, or differentiates no variable.
    """

    def __init__(self, step: Step, batch: Batch) -> None:
        self._step = step
        self._batch = batch
        self.first = listen_eagerly(step, batch)
        require_tape(self.first, step)
        live = [live_variable(variable) for variable in variables_of(self.first.tape_calls)]
        self.variables: list[Any] = list({id(variable): variable for variable in live}.values())

    def here(self, batch: Batch) -> tuple[tf.Tensor, ...]:
        """The point where the model stands now, floats in float64, on a batch.

        Args:
            batch: the batch, whose tensors' precision is that of all points from now on.
        """
        self._batch = batch
        return tuple(
            tf.cast(value, tf.float64) if value.dtype.is_floating else tf.convert_to_tensor(value)
            for value in self._moving
        )

    def at(self, inputs: Sequence[Any]) -> Recording:
        """Run the step at a point, and listen."""
        count = len(self._batch.tensors)
        tensors = [
            tf.cast(value, before.dtype)
            for value, before in zip(inputs[:count], self._batch.tensors, strict=True)
        ]
        with self._moved(inputs[count:]):
            return listen_eagerly(self._step, Batch(self._batch.pack(tensors), self._batch.size))

    @contextlib.contextmanager
    def _moved(self, values: Sequence[Any]) -> Iterator[None]:
        """The variables at other values."""
        before = [tf.identity(variable) for variable in self.variables]
        try:
            for variable, value in zip(self.variables, values, strict=True):
                variable.assign(tf.cast(value, variable.dtype))
            yield
        finally:
            for variable, value in zip(self.variables, before, strict=True):
                variable.assign(value)

    @property
    def _moving(self) -> list[Any]:
        """What stands in the place of a point's tensors where the model stands."""
        return [*self._batch.tensors, *self.variables]

    @property
    def floats(self) -> list[int]:
        """The positions of the batch's float tensors."""
        return [i for i, tensor in enumerate(self._batch.tensors) if tensor.dtype.is_floating]

    @property
    def dtypes(self) -> list[str]:
        """The precisions of all that moves."""
        inputs = (self._batch.tensors[i] for i in self.floats)
        return [value.dtype.name for value in (*self.variables, *inputs)]

    @property
    def labels(self) -> list[str]:
        """A name for each tensor of a point."""
        batch = [f"{BATCH}{number}" for number in range(len(self._batch.tensors))]
        return [*batch, *(variable.name for variable in self.variables)]

    def rounded(self, inputs: Sequence[Any]) -> tuple[tf.Tensor, ...]:
        """What the training precision makes of a point."""
        return tuple(
            tf.cast(tf.cast(value, moving.dtype), value.dtype)
            for value, moving in zip(inputs, self._moving, strict=True)
        )

    def calls_of_layers(self, batch: Batch) -> list[EagerCall]:
        """The calls of layers that the step makes on a batch, inner ones first."""
        calls: list[EagerCall] = []
        with noting_layers(calls):
            listen_eagerly(self._step, batch)
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
