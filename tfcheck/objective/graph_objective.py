"""A traced step as pure functions of plain tensors, in float64 and as trained.

Variables, data and captured constants are all inputs, so no evaluation touches the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import tensorflow as tf

from tfcheck.errors import TfcheckError
from tfcheck.graph.excerpts import LossPart
from tfcheck.graph.ids import only_names
from tfcheck.measure.directions import NUDGE, Array
from tfcheck.objective.as_trained import AsTrained, Evaluated, Trained
from tfcheck.objective.everything import Everything
from tfcheck.objective.float64_step import Float64Step
from tfcheck.objective.graph_facts import facts_of_graph
from tfcheck.objective.losses import Losses
from tfcheck.objective.objective import Objective
from tfcheck.objective.parameters import parameters_of_graph
from tfcheck.objective.point import Base, Parameter, as_floats, elsewhere, spread
from tfcheck.objective.step_inputs import StepInputs
from tfcheck.objective.traced_graph import TracedGraph, paths_of_handles
from tfcheck.objective.traced_losses import losses_of
from tfcheck.objective.units import told_apart
from tfcheck.trace.batch import Batch
from tfcheck.trace.tracing import TracedStep


class GraphObjective(Objective):
    """A traced training step that can be evaluated at any point.

    A point is a tensor for each input of the float64 graph, as in `Feeds`.

    Args:
        traced: the traced step.
    """

    def __init__(self, traced: TracedStep) -> None:
        graph_def = traced.function.graph.as_graph_def()
        inputs = self._inputs = StepInputs(traced)
        losses = losses_of(traced, inputs)
        step = self._step = Float64Step(graph_def, inputs, losses)
        parameters = tuple(parameters_of_graph(step, inputs, losses))
        super().__init__(
            facts_of_graph(traced, graph_def, inputs, losses, step),
            parameters,
            len(losses.calls),
            apart=told_apart(step, losses, parameters),
            traced=TracedGraph(
                calls=losses.calls,
                captures=traced.captures,
                layer_calls=traced.recording.calls,
                parameters=parameters,
                paths=paths_of_handles(traced),
                assigned=step.assigned,
            ),
        )
        self._calls = losses.calls
        self._losses = Losses(step, losses)
        self._everything = Everything(step, self._losses, self._calls, self.apart, traced.source)
        self._graph_def = graph_def
        self._as_trained = AsTrained(graph_def, inputs.names, inputs.variables, self._calls)

    # -- points ----------------------------------------------------------------------------------

    def at(self, batch: Batch) -> Base:
        """Evaluate losses and analytic gradients where the model stands now, on a batch."""
        values = self._inputs.values(batch)
        base = self._everything.at(self._step.feeds.promoted(values))
        trained = self._as_trained.at(values, self._step.feeds.drawn(base.inputs))
        return self._with_trained(base, trained)

    def _with_trained(self, base: Base, trained: Evaluated) -> Base:
        """A point with losses and gradients as trained, which stand in where float64 has none."""
        gradients, errors = list(base.gradients), list(base.errors)
        coarse = set()
        for position, (parameter, instead) in enumerate(
            zip(self.parameters, trained.gradients, strict=True)
        ):
            loss = parameter.loss
            # An operation of the backward pass without a float64 kernel is no mistake of the step.
            if instead is not None and base.errors[loss] and not self._calls[loss].error:
                gradients[position] = np.asarray(instead, np.float64)
                errors[loss] = ""
                coarse.add(loss)
        return replace(
            base,
            losses_as_trained=trained.losses,
            gradients=tuple(gradients),
            errors=tuple(errors),
            coarse=frozenset(coarse),
            gradients_as_trained=trained.gradients,
        )

    def aside(self, base: Base, seed: int) -> Base | None:
        """Losses, gradients and what is applied where everything is a good deal different."""
        self.deadline.require_time()
        inputs = [
            elsewhere(value, seed, self._inputs.label(name))
            for name, value in zip(self._step.feeds.names, base.inputs, strict=False)
        ]
        try:
            found = self._everything.at(inputs)
        except TfcheckError:
            return None
        return replace(
            found,
            losses_as_trained=base.losses_as_trained,
            scales=base.scales,
            divisors=base.divisors,
            units={},
        )

    def nudged(self, base: Base, loss: int, seed: int, size: float = NUDGE) -> Base:
        """One loss a little aside; no other is evaluated there, nor are its gradients."""
        self.deadline.require_time()
        inputs = self._nudged_inputs(base, loss, seed, size)
        gradients = iter(spread(self._calls[loss], self._losses.gradients(loss, inputs)))
        losses = list(base.losses)
        losses[loss] = self.loss(loss, inputs)
        return Base(
            inputs=tuple(inputs),
            losses=tuple(losses),
            losses_as_trained=base.losses_as_trained,
            scales=base.scales,
            gradients=tuple(
                next(gradients) if parameter.loss == loss else None for parameter in self.parameters
            ),
            errors=base.errors,
            units=base.units,
        )

    # -- losses ----------------------------------------------------------------------------------

    def loss(self, index: int, inputs: Sequence[tf.Tensor]) -> float:
        """Value of one loss at a point; `nan` where an operation refuses it."""
        return self._counted(self._losses.value, index, inputs)

    def holds_back(self, loss: int) -> bool:
        """Whether `loss_uncut` of this loss may depend on more than `loss` does."""
        return self._losses.holds_back(loss)

    def loss_uncut(self, index: int, inputs: Sequence[tf.Tensor]) -> float:
        """Value of one loss where values assigned in the step follow from what they depend on."""
        return self._counted(self._losses.uncut, index, inputs)

    def _counted(
        self,
        value: Callable[[int, Sequence[tf.Tensor]], tf.Tensor],
        index: int,
        inputs: Sequence[tf.Tensor],
    ) -> float:
        self.deadline.require_time()
        self.evaluations += 1
        try:
            return float(value(index, inputs))
        except tf.errors.OpError:
            return math.nan

    def along_as_trained(
        self, batch: Batch, base: Base, parameter: Parameter
    ) -> Callable[[Array], float] | None:
        """The loss of a parameter's tape in the precision that trains; None where that is another.

        Values that the tape and `along` hold fixed are computed there, and so move.
        """
        inputs = len(self._step.feeds.names)
        held = self.facts.constants[parameter.loss] or self._step.assigned
        if held or any(place >= inputs for place in parameter.inputs):
            return None

        def displaced(displacement: Array) -> float:
            self.deadline.require_time()
            moved = list(base.inputs)
            for position in parameter.inputs:
                moved[position] = tf.constant(as_floats(moved[position]) + displacement)
            there = self._demoted(batch, replace(base, inputs=tuple(moved)))
            try:
                return self._as_trained.losses_at(*there)[parameter.loss]
            except tf.errors.OpError:
                return math.nan

        return displaced

    # -- what the graph tells --------------------------------------------------------------------

    def part_of(self, loss: int) -> LossPart:
        """The graph that computes a loss."""
        return self._losses.part(loss)

    def is_of_names(self, base: Base, parameter: Parameter) -> bool:
        """Whether an input holds whole numbers that the step only uses as ids or a mask."""
        if not parameter.within:
            return False
        value = self.value(base, parameter)
        if np.any(value != np.rint(value)):
            return False
        (held,) = parameter.held_by
        return only_names(self._step.behind([parameter.loss]), held)

    # -- as trained ------------------------------------------------------------------------------

    def trained_at(self, batch: Batch, base: Base) -> Evaluated:
        """Losses and gradients at a point, in the precision that trains.

        Args:
            batch: the batch of the point, for what it holds beside floats.
            base: the point.
        """
        self.deadline.require_time()
        return self._as_trained.at(*self._demoted(batch, base))

    def compiled_at(self, batch: Batch, base: Base) -> Evaluated:
        """The same as `trained_at` where XLA compiles the step.

        Raises:
            TraceError: if XLA cannot.
        """
        self.deadline.require_time()
        return self._as_trained.compiled_at(*self._demoted(batch, base))

    def units_as_trained(self, batch: Batch, base: Base, loss: int) -> dict[str, Trained]:
        """What units of a loss give each other, and the gradients of it, in training precision.

        Args:
            batch: the batch of the point.
            base: the point.
            loss: the loss.

        Returns:
            The values by the names of their tensors in the float64 graph.
        """
        self.deadline.require_time()
        call = self._calls[loss]
        if call.division is None:
            return {}
        between = (*call.division.behind, *call.shares)
        inputs, of_units = self._inputs, replace(call, gradients=between)
        trained = AsTrained(self._graph_def, inputs.names, inputs.variables, [of_units])
        found = trained.at(*self._demoted(batch, base)).gradients
        return {
            self._step.promoted.names[tensor.name]: value
            for tensor, value in zip(between, found, strict=True)
            if tensor is not None and value is not None
        }

    def _demoted(self, batch: Batch, base: Base) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
        """A point in its own precision: the inputs of the step, and the numbers that it draws."""
        feeds = self._step.feeds
        values = feeds.demoted(base.inputs, self._inputs.values(batch))
        return values, feeds.drawn(base.inputs)
