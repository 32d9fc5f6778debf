"""A point: where the model stands, and what the objective gives there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from tfcheck.measure.directions import Array, generator
from tfcheck.objective.as_trained import Trained
from tfcheck.trace.recording import TapeCall
from tfcheck.variables import is_variable

ASIDE = 2.0**-3
"""By which part `Objective.aside` changes every number: so that gradients change in size, too."""


@dataclass(frozen=True, eq=False)
class Parameter:
    """One variable, or one tensor within the step, as one tape differentiates it.

    Attributes:
        variable: the live Keras or TensorFlow variable; for a tensor within the step, that tensor.
        path: its unique path in the report; for a tensor its name in the graph.
        loss: index of the loss it is differentiated for.
        inputs: indices of the inputs that hold its value: the value itself, then any value
            assigned to it within the step. Empty where the step never reads it.
        number: its position among those of its loss.
        moves_alike: whether it moves alike for all losses, which are then known by one run.
        held_by: the names of the tensors that hold its value in the float64 graph; empty where
            there is none.
        total: the tensor of the tape's gradient there; None where the tape gives None.
    """

    variable: Any
    path: str
    loss: int
    inputs: tuple[int, ...]
    number: int = 0
    moves_alike: bool = False
    held_by: tuple[str, ...] = ()
    total: str | None = None

    @property
    def stream(self) -> str:
        """What seeds the random numbers that are drawn for it.

        Its path would not do: Keras numbers the names of layers through all models of a process.
        """
        if self.moves_alike:
            return f"all.{self.inputs[0]}"
        return f"{self.loss}.{self.number}"

    @property
    def within(self) -> bool:
        """Whether this is a tensor within the step rather than a variable."""
        return not is_variable(self.variable)


@dataclass(frozen=True)
class Base:
    """The objective at the point where the model stands.

    Attributes:
        inputs: a tensor for each input of the objective, floats in float64.
        losses: value of each loss, in float64.
        losses_as_trained: the same in the training precision.
        scales: the loss scale inside each loss; 1 where there is none.
        gradients: analytic gradient for each parameter; None where the tape gave None.
        errors: for each loss what its tape raised in place of gradients, `""` for nothing.
        coarse: the losses whose gradients have no float64 form, and are those that train.
        applied: what the optimizers were given, in the order of their calls.
        divisors: what the optimizers divide each of these by.
        factors: for each loss of the step the scalars that it was last multiplied with, or, as
            their inverse, divided by.
        gradients_as_trained: the gradient of each parameter of the step's own losses in the
            training precision, None where it is unknown; empty where none is.
        units: what units give each other, and the gradients of it, by the tensors' names; empty
            where the tapes cannot run.
    """

    inputs: tuple[tf.Tensor, ...]
    losses: tuple[float, ...]
    losses_as_trained: tuple[float, ...]
    scales: tuple[float, ...]
    gradients: tuple[Array | None, ...]
    errors: tuple[str, ...]
    coarse: frozenset[int] = frozenset()
    applied: tuple[Array, ...] = ()
    divisors: tuple[float, ...] = ()
    gradients_as_trained: tuple[Trained | None, ...] = ()
    factors: tuple[tuple[float, ...], ...] = ()
    units: Mapping[str, tf.Tensor] = field(default_factory=dict)

    def factors_of(self, parameter: Parameter) -> tuple[float, ...]:
        """The scalars in the loss that a parameter of the step is differentiated for."""
        return self.factors[parameter.loss] if parameter.loss < len(self.factors) else ()


def elsewhere(value: tf.Tensor, seed: int, label: str) -> tf.Tensor:
    """A tensor with each of its floats multiplied with a random number near 1.

    In the state of the step, as against the batch, zeros move too, and counters go on.
    """
    of_state = not label.startswith(BATCH)
    if of_state and value.dtype.is_integer and value.shape.rank == 0:
        return value + tf.constant(_COUNTED_ON, value.dtype)
    if not value.dtype.is_floating:
        return value
    plain = np.asarray(value, np.float64)
    draws = ASIDE * generator(seed, label, "aside").uniform(-1, 1, plain.shape)
    moved = np.where((plain == 0) & of_state, draws, plain * (1 + draws))
    return tf.constant(moved, value.dtype)


BATCH = "batch "
"""What the labels of the batch's tensors begin with."""

_COUNTED_ON = 7


def as_floats(value: Any) -> Array:
    """A tensor in float64; a complex one is unknown, since its derivatives are not measured."""
    array = np.asarray(value)
    if np.iscomplexobj(array):
        return np.full(array.shape, math.nan)
    return array.astype(np.float64, copy=False)


def spread(call: TapeCall, found: Sequence[tf.Tensor]) -> list[Array | None]:
    """The gradients of a call as arrays, with None where the tape gave none."""
    rest = iter(found)
    return [
        None if gradient is None or value is None else as_floats(value)
        for gradient in call.gradients
        for value in [None if gradient is None else next(rest)]
    ]
