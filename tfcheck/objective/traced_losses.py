"""The losses of a traced step, and all tensors of the traced graph that are wanted for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import tensorflow as tf

from tfcheck.objective.step_inputs import StepInputs
from tfcheck.trace.constants import constants_of
from tfcheck.trace.recording import Applied, Recording, TapeCall
from tfcheck.trace.tracing import TracedStep
from tfcheck.variables import is_variable


@dataclass(frozen=True, eq=False)
class TracedLosses:
    """The losses of a traced step, one for each call of a tape.

    Attributes:
        calls: what each is the target of.
        unscaled: each before it was scaled; None where it was not.
        constants: for each the tensors that its tape takes for constant.
        applied: what the optimizers are given in the traced graph, in the order of their calls.
    """

    calls: Sequence[TapeCall]
    unscaled: Sequence[tf.Tensor | None]
    constants: Sequence[tuple[tf.Tensor, ...]]
    applied: Sequence[Applied]

    @property
    def cut_at(self) -> list[tf.Tensor]:
        """The tensors at which losses are cut off from what comes before: inputs, constants."""
        sources = [s for call in self.calls for s in call.sources if not is_variable(s)]
        return [*sources, *(tensor for constants in self.constants for tensor in constants)]

    @property
    def weights(self) -> list[tf.Tensor]:
        """The weights that targets are given as tensors of the graph."""
        return [w for call in self.calls for w in call.output_gradients if w is not None]

    @property
    def fetches(self) -> list[str]:
        """The names of all tensors that are wanted."""
        return [tensor.name for tensor in self._wanted() if tensor is not None]

    def _wanted(self) -> Iterator[tf.Tensor | None]:
        for call in self.calls:
            yield from (*call.targets, *call.output_gradients, *call.gradients)
        yield from self.cut_at
        yield from self.unscaled
        yield from (applied.gradient for applied in self.applied)
        yield from (a.divisor for a in self.applied if tf.is_tensor(a.divisor))
        for call in self.calls:
            yield from call.weights
        for call in self.calls:
            if call.division is not None:
                yield from (*call.division.behind, *call.shares)


def losses_of(traced: TracedStep, inputs: StepInputs) -> TracedLosses:
    """The losses of a traced step.

    Args:
        traced: the traced step.
        inputs: what goes into it.
    """
    recording, graph = traced.recording, traced.function.graph
    calls = tuple(recording.tape_calls)
    return TracedLosses(
        calls=calls,
        unscaled=_unscaled(recording),
        constants=constants_of(graph, calls, traced.placeholders, inputs.variables.keys()),
        applied=[applied for applied in recording.applied if applied.gradient.graph is graph],
    )


def _unscaled(recording: Recording) -> list[tf.Tensor | None]:
    """For each tape call the loss before it was scaled, None where it was not."""
    before = {scaled.ref(): loss for scaled, loss in recording.loss_scales if tf.is_tensor(loss)}
    return [
        before.get(call.targets[0].ref()) if len(call.targets) == 1 else None
        for call in recording.tape_calls
    ]
