"""The objective: a training step as pure functions of a point.

An `Objective` holds one loss for each call of a tape. It can be evaluated at any point without
touching the model: variables and data are all inputs. How, that is for its two kinds to say: as a
graph in float64 (`graph_objective.py`), or by running the step (`eager_objective.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import tensorflow as tf

from tfcheck.deadline import UNLIMITED, Deadline
from tfcheck.graph.excerpts import LossPart
from tfcheck.measure.directions import NUDGE, Array, gaussian, generator, scale_of
from tfcheck.objective.facts import StepFacts
from tfcheck.objective.point import Base, Parameter, as_floats
from tfcheck.objective.traced_graph import NOT_TRACED, TracedGraph
from tfcheck.trace.batch import Batch
from tfcheck.units.apart import Apart
from tfcheck.units.apart_at import ApartAt


class Objective(ABC):
    """A training step that can be evaluated at any point.

    What only a graph can tell has an answer here, too: that nothing is known.

    Args:
        facts: what is known of the step.
        parameters: what its tapes differentiate for.
        loss_count: how many losses it has.
        apart: for each loss its units by themselves. Defaults to none that can be told apart.
        traced: the graph that the step was traced into. Defaults to one of which nothing is known.

    Attributes:
        facts: what is known of the step, the same at every point.
        parameters: what the tapes differentiate with respect to, in the order of their calls.
        loss_count: how many losses the step has, one for each call of a tape.
        apart: for each loss its units by themselves; None where they cannot be told apart.
        traced: where losses and parameters are in the traced graph.
        evaluations: how often a loss was evaluated.
        deadline: when evaluating it has to end; no point is evaluated after that.
    """

    def __init__(
        self,
        facts: StepFacts,
        parameters: Sequence[Parameter],
        loss_count: int,
        *,
        apart: Sequence[Apart | None] | None = None,
        traced: TracedGraph = NOT_TRACED,
    ) -> None:
        self.facts = facts
        self.parameters = tuple(parameters)
        self.loss_count = loss_count
        self.apart = (None,) * loss_count if apart is None else tuple(apart)
        self.traced = traced
        self.evaluations = 0
        self.deadline: Deadline = UNLIMITED

    # -- points ----------------------------------------------------------------------------------

    @abstractmethod
    def at(self, batch: Batch) -> Base:
        """Evaluate losses and analytic gradients where the model stands now, on a batch.

        Args:
            batch: a batch with the shapes and dtypes that the objective was made with.
        """

    @abstractmethod
    def aside(self, base: Base, seed: int) -> Base | None:
        """Losses, gradients and what is applied where everything is a good deal different.

        Every float that goes into the step, be it of a variable or of the batch, is multiplied with
        a random number near 1; the same one in every objective of the same model and seed.

        Args:
            base: the point to move away from.
            seed: seeds the factors.

        Returns:
            The other point; None where the step cannot be evaluated there.
        """

    @abstractmethod
    def nudged(self, base: Base, loss: int, seed: int, size: float = NUDGE) -> Base:
        """One loss a little aside: all that it is differentiated with respect to moves at random.

        A loss that is piecewise smooth has a derivative at almost every point, so a point drawn at
        random near a kink sits on none. Only the loss asked for and its gradients are of use there.

        Args:
            base: the point to move from.
            loss: the loss.
            seed: seeds the moves.
            size: how far, relative to the scale of what moves.
        """

    def _nudged_inputs(self, base: Base, loss: int, seed: int, size: float) -> list[tf.Tensor]:
        """The inputs of the point that `nudged` moves to."""
        inputs = list(base.inputs)
        for parameter in self.parameters:
            if parameter.loss != loss or not parameter.inputs:
                continue
            value = self.value(base, parameter)
            rng = generator(seed, parameter.stream, "nudge")
            change = size * gaussian(rng, value.shape, scale_of(value))
            for position in parameter.inputs:
                inputs[position] = tf.constant(as_floats(base.inputs[position]) + change)
        return inputs

    # -- losses ----------------------------------------------------------------------------------

    @abstractmethod
    def loss(self, index: int, inputs: Sequence[tf.Tensor]) -> float:
        """Value of one loss at a point, given as one tensor for each input.

        It is `nan` where the point is refused, as by an operation such as a Cholesky decomposition.
        """

    def holds_back(self, loss: int) -> bool:  # noqa: ARG002 - the same for all
        """Whether `loss_uncut` of this loss may depend on more than `loss` does."""
        return False

    def loss_uncut(self, index: int, inputs: Sequence[tf.Tensor]) -> float:
        """Value of one loss where values assigned in the step follow from what they depend on.

        For a tape, and for `loss`, they are leaves of their own where the loss `holds_back`.
        """
        return self.loss(index, inputs)

    @staticmethod
    def value(base: Base, parameter: Parameter) -> Array:
        """A parameter's value at a point."""
        if parameter.inputs:
            return as_floats(base.inputs[parameter.inputs[0]])
        return as_floats(parameter.variable)

    def along(
        self, base: Base, parameter: Parameter, *, uncut: bool = False
    ) -> Callable[[Array], float]:
        """The loss of a parameter's tape as a function of that parameter's displacement.

        Args:
            base: the point.
            parameter: the parameter.
            uncut: whether to go through values assigned in the step, unlike the tape. Defaults to
                False.
        """
        loss = self.loss_uncut if uncut else self.loss
        inputs = list(base.inputs)
        values = [as_floats(base.inputs[position]) for position in parameter.inputs]

        def displaced(displacement: Array) -> float:
            for position, value in zip(parameter.inputs, values, strict=True):
                inputs[position] = tf.constant(value + displacement)
            return loss(parameter.loss, inputs)

        return displaced

    def along_as_trained(
        self,
        batch: Batch,  # noqa: ARG002 - the same for all
        base: Base,  # noqa: ARG002
        parameter: Parameter,  # noqa: ARG002
    ) -> Callable[[Array], float] | None:
        """The same in the precision that trains; None where `along` is, or where it is not known.

        Args:
            batch: the batch of the point.
            base: the point.
            parameter: the parameter.
        """
        return None

    # -- what a graph tells ----------------------------------------------------------------------

    def part_of(self, loss: int) -> LossPart | None:  # noqa: ARG002 - the same for all
        """The graph that computes a loss; None where there is none."""
        return None

    def is_of_names(self, base: Base, parameter: Parameter) -> bool:  # noqa: ARG002
        """Whether an input holds whole numbers that the step only uses as ids or a mask."""
        return False

    def units_at(self, base: Base, loss: int) -> ApartAt | None:
        """The units of a loss at a point by themselves; None where they cannot be told apart."""
        apart = self.apart[loss]
        if apart is None or not base.units:
            return None
        return ApartAt(apart, {**_fed(apart, base), **base.units}, self.deadline)

    @staticmethod
    def given(base: Base, apart: Apart) -> dict[str, tf.Tensor]:
        """What units are given at a point by variables, by the names of the tensors.

        Args:
            base: the point.
            apart: the units.
        """
        given = _fed(apart, base)
        read = {s.name: given[s.leaf] for s in apart.sources if s.leaf is not None}
        return {**base.units, **given, **read}


def _fed(apart: Apart, base: Base) -> dict[str, tf.Tensor]:
    """The inputs of a point, by the names of the tensors in the graph that units are cut from."""
    return {feed.name: v for feed, v in zip(apart.promoted.feeds, base.inputs, strict=True)}
