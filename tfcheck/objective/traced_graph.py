"""The traced graph, read: where losses and parameters are in it, and who made what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from tfcheck.graph.division import Call, before_all
from tfcheck.internals import live_variable
from tfcheck.objective.point import Parameter
from tfcheck.trace.recording import TapeCall
from tfcheck.trace.tracing import TracedStep
from tfcheck.variables import name_of_variable


@dataclass(frozen=True, eq=False)
class TracedGraph:
    """The graph that a step was traced into; by default one of which nothing is known.

    Attributes:
        calls: for each loss the call of a tape that it stands for.
        captures: for each captured outside tensor, that tensor and its placeholder.
        layer_calls: the calls of layers and losses, outer ones before those made in them.
        parameters: what the tapes differentiate for.
        paths: paths or names of variables, by the names of their handles in the graph.
        assigned: names of the handles to which is assigned what a loss uses afterwards.
    """

    calls: Sequence[TapeCall] = ()
    captures: Sequence[tuple[Any, tf.Tensor]] = ()
    layer_calls: Sequence[Call] = ()
    parameters: Sequence[Parameter] = ()
    paths: Mapping[str, str] = field(default_factory=dict)
    assigned: frozenset[str] = frozenset()

    def call(self, loss: int) -> TapeCall | None:
        """The call of a tape that a loss stands for; None where it is not known."""
        return self.calls[loss] if loss < len(self.calls) else None

    def start(self, parameter: Parameter) -> tf.Tensor | None:
        """The tensor that a parameter is, or the handle of the variable that it is."""
        if parameter.within:
            return parameter.variable
        handle = live_variable(parameter.variable).handle
        return next((inside for outside, inside in self.captures if outside is handle), None)

    @property
    def assignments(self) -> list[tf.Operation]:
        """The operations that assign what a loss uses."""
        operations = self.calls[0].targets[0].graph.get_operations() if self.assigned else ()
        return [
            operation
            for operation in operations
            if operation.type.startswith("Assign") and operation.inputs[0].op.name in self.assigned
        ]

    def made_in(self, operation: tf.Operation) -> str:
        """The path of the innermost layer that makes an operation, or `""`."""
        position = operation.graph.get_operations().index(operation)
        around = [call for call in self.layer_calls if call.makes(position)]
        return around[-1].path if around else ""

    def behind(self, operation: tf.Operation) -> frozenset[str]:
        """The paths of the parameters that an operation is computed from."""
        before = before_all(operation.inputs)
        starts = [(parameter, self.start(parameter)) for parameter in self.parameters]
        return frozenset(
            p.path for p, start in starts if start is not None and start.op.name in before
        )

    def variable_behind(self, handle: tf.Tensor) -> str:
        """The path or name of the variable that a handle belongs to."""
        return self.paths.get(handle.name, handle.op.name)


NOT_TRACED = TracedGraph()
"""No graph, of which nothing is known."""


def paths_of_handles(traced: TracedStep) -> dict[str, str]:
    """The paths or names of the variables of a traced step, by the names of their handles."""
    behind = {id(v.handle): v for v in traced.function.graph.variables}
    return {
        placeholder.name: name_of_variable(traced.recording.known_as(behind[id(outside)]))
        for outside, placeholder in traced.captures
        if id(outside) in behind
    }
