"""What a point in float64 consists of: a tensor for each input, and what is held fixed besides."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import tensorflow as tf

from tfcheck.promote.promotion import PureGraph
from tfcheck.trace.listening import TapeCall
from tfcheck.variables import is_variable


class Feeds:
    """The tensors of a step's float64 graph that a point gives a value for, in its order.

    First come those inputs of the step that it uses. What is held follows: values assigned within
    the step, raw random numbers, and the tensors at which losses are cut off or weighed.

    Args:
        graph: the float64 graph.
        pure: what it was imported from.
        names: the names of the step's inputs.
        held: the tensors that are held.
        traced: those of the traced graph that losses are cut off at, or weighed with.

    Attributes:
        tensors: the tensors that are fed.
        names: the names of the step's inputs that come first.
    """

    def __init__(
        self,
        graph: tf.Graph,
        pure: PureGraph,
        names: Sequence[str],
        held: Sequence[tf.Tensor],
        traced: Iterable[tf.Tensor],
    ) -> None:
        present = {node.name for node in pure.graph_def.node}
        self._used = [index for index, name in enumerate(names) if name in present]
        self.names = [names[index] for index in self._used]
        inputs = [graph.as_graph_element(f"{name}:0") for name in self.names]
        self.tensors = [*inputs, *held]
        self._read = {name: position for position, name in enumerate(self.names)}
        position_of = {tensor.name: len(inputs) + place for place, tensor in enumerate(held)}
        self._assigned = [(cut.variable, position_of[cut.tensor]) for cut in pure.cuts]
        self._drawn = {ref: position_of[name] for ref, name in pure.drawn.items()}
        self._traced = {tensor.name: position_of[pure.tensors[tensor.name]] for tensor in traced}

    @property
    def inputs(self) -> list[tf.Tensor]:
        """The tensors of the step's inputs alone."""
        return self.tensors[: len(self.names)]

    def of_variable(self, name: str) -> tuple[int, ...]:
        """The positions of a variable's value, then of any value that is assigned to it.

        Args:
            name: the name of its placeholder; `""` for a variable that the step never reads.
        """
        read = [self._read[name]] if name in self._read else []
        assigned = [position for variable, position in self._assigned if variable == name]
        return (*read, *assigned)

    def of_tensor(self, traced: tf.Tensor) -> int:
        """The position of a tensor of the traced graph at which losses are cut off."""
        return self._traced[traced.name]

    def belonging_to(self, call: TapeCall, constants: Sequence[tf.Tensor]) -> list[int]:
        """The positions of what one loss alone is given.

        They are the inputs proper, assigned and drawn values, and what belongs to this loss:
        feeding the cuts of other losses would cut this one off from what comes before them.

        Args:
            call: what the loss is the target of.
            constants: what its tape takes for constant.
        """
        own = [
            self._traced[tensor.name]
            for tensor in (*call.sources, *call.output_gradients, *constants)
            if tensor is not None and not is_variable(tensor)
        ]
        assigned = [position for _, position in self._assigned]
        inputs = range(len(self.names))
        return list(dict.fromkeys([*inputs, *assigned, *self._drawn.values(), *own]))

    def promoted(self, values: Sequence[Any]) -> list[Any]:
        """The inputs in float64.

        Args:
            values: a tensor for each input of the step, in its own precision.
        """
        return [
            values[index]
            if feed.dtype in (tf.resource, tf.variant, tf.string)
            else tf.cast(values[index], feed.dtype)
            for index, feed in zip(self._used, self.inputs, strict=True)
        ]

    def demoted(self, point: Sequence[tf.Tensor], values: Sequence[Any]) -> list[Any]:
        """The inputs of a point in their own precision.

        Args:
            point: the point.
            values: a tensor for each input of the step, for those that are no floats.
        """
        found = list(values)
        for position, (index, feed) in enumerate(zip(self._used, self.inputs, strict=True)):
            if feed.dtype.is_floating:
                found[index] = tf.cast(point[position], found[index].dtype)
        return found

    def drawn(self, point: Sequence[tf.Tensor]) -> dict[str, tf.Tensor]:
        """The raw random numbers that a point holds fixed, by the names of their tensors."""
        return {ref: point[position] for ref, position in self._drawn.items()}
