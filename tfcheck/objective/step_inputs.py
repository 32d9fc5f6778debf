"""What goes into a traced step: the batch, variables, and whatever else its graph captured."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfcheck.internals import live_variable, variable_spec
from tfcheck.objective.point import BATCH
from tfcheck.trace.batch import Batch
from tfcheck.trace.tracing import TracedStep


class StepInputs:
    """The inputs of a traced step, in the order of its graph: those of the batch come first.

    Args:
        traced: the traced step.

    Attributes:
        names: the names of their placeholders.
        variables: shape and dtype of the variable behind each captured handle, by placeholder name.
        placeholder_of: the name of the placeholder of each captured tensor, by its identity.
    """

    def __init__(self, traced: TracedStep) -> None:
        self._captures = traced.captures
        self.names = [
            *(tensor.op.name for tensor in traced.placeholders),
            *(placeholder.op.name for _, placeholder in traced.captures),
        ]
        self.variables = {
            placeholder.op.name: spec
            for outside, placeholder in traced.captures
            if placeholder.dtype == tf.resource
            for spec in [variable_spec(outside)]
            if spec is not None
        }
        self.placeholder_of = {id(outside): p.op.name for outside, p in traced.captures}
        behind = {id(v.handle): v for v in traced.function.graph.variables}
        self._labels = {
            **{tensor.op.name: f"{BATCH}{i}" for i, tensor in enumerate(traced.placeholders)},
            **{p.op.name: behind[id(o)].name for o, p in traced.captures if id(o) in behind},
        }

    def holding(self, variable: Any) -> str:
        """The name of the placeholder that stands for a variable; `""` where there is none."""
        return self.placeholder_of.get(id(live_variable(variable).handle), "")

    def label(self, name: str) -> str:
        """A name for an input that does not depend on how the step was traced."""
        return self._labels.get(name, name)

    def values(self, batch: Batch) -> list[Any]:
        """A tensor for each input, in its own precision, as things stand now."""
        values: list[Any] = list(batch.tensors)
        for outside, placeholder in self._captures:
            spec = self.variables.get(placeholder.op.name)
            values.append(
                outside
                if spec is None
                else tf.raw_ops.ReadVariableOp(resource=outside, dtype=spec.dtype)
            )
        return values
