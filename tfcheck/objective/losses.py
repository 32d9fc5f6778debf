"""Single losses of a step in float64, as functions of a point, each made when first asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from tfcheck.graph.excerpts import LossPart, callable_part
from tfcheck.objective.float64_step import Float64Step
from tfcheck.objective.traced_losses import TracedLosses


class Losses:
    """The losses of a step, each as a graph of its own.

    Args:
        step: the step in float64.
        losses: its losses.
    """

    def __init__(self, step: Float64Step, losses: TracedLosses) -> None:
        self._step = step
        self._losses = losses
        self._functions: dict[tuple[str, int], Callable[..., Any]] = {}
        self._parts: dict[int, LossPart] = {}
        self._uncut: Callable[..., Any] | None = None

    def value(self, loss: int, point: Sequence[tf.Tensor]) -> tf.Tensor:
        """A loss at a point."""
        return self._function("losses", loss)(point)

    def gradients(self, loss: int, point: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The gradients that the tape of a loss gives at a point."""
        return self._function("gradients", loss)(point)

    def holds_back(self, loss: int) -> bool:
        """Whether a loss is cut off from anything that it is computed from."""
        return bool(self._step.pure.cuts or self._losses.constants[loss])

    def uncut(self, loss: int, point: Sequence[tf.Tensor]) -> tf.Tensor:
        """A loss at a point where nothing is held fixed: the inputs alone are given."""
        feeds = self._step.feeds.inputs
        if self._uncut is None:
            excerpts = self._step.promoted.excerpts
            self._uncut = callable_part(excerpts, feeds, self._step.outputs["losses"])
        return self._uncut(*point[: len(feeds)])[loss]

    def part(self, loss: int) -> LossPart:
        """The graph that computes a loss."""
        if loss not in self._parts:
            value = self._step.outputs["losses"][loss]
            excerpts, positions = self._step.promoted.excerpts, self._fed(loss, [value])
            self._parts[loss] = LossPart(
                loss, excerpts, self._tensors(positions), positions, value.name
            )
        return self._parts[loss]

    def _function(self, kind: str, loss: int) -> Callable[..., Any]:
        """One loss, or its gradients, as a function of a point."""
        if (kind, loss) not in self._functions:
            wanted = self._step.outputs[kind][loss]
            fed = self._fed(loss, tf.nest.flatten(wanted))
            part = callable_part(self._step.promoted.excerpts, self._tensors(fed), wanted)
            self._functions[kind, loss] = lambda point: part(*(point[place] for place in fed))
        return self._functions[kind, loss]

    def _fed(self, loss: int, wanted: Sequence[tf.Tensor]) -> list[int]:
        """The positions of what something of this loss alone is computed from."""
        feeds = self._step.feeds
        own = feeds.belonging_to(self._losses.calls[loss], self._losses.constants[loss])
        names = [feeds.tensors[position].name for position in own]
        used = self._step.promoted.excerpts.used(names, [tensor.name for tensor in wanted])
        return [own[number] for number in used]

    def _tensors(self, positions: Sequence[int]) -> list[tf.Tensor]:
        return [self._step.feeds.tensors[position] for position in positions]
