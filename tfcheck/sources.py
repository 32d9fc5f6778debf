"""What the units of a loss are given, and what they give."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import tensorflow as tf

from tfcheck.lines import factors_of

LARGE = 2**13
"""Directions in tensors of more entries than this are products."""


class UndividedError(Exception):
    """Units cannot be told apart in a graph."""


@dataclass(frozen=True, eq=False)
class Source:
    """A tensor that units are given, as far as they use it themselves.

    Attributes:
        name: the tensor, in the float64 graph.
        shape: its shape.
        users: the units that use it.
        units: those of them that give something that the tape has a gradient of.
        total: the tensor of the tape's gradient of it; None where the tape gives None.
        beyond: the gradients of the gates that it goes through besides, which are in the total.
        handed: the tensor of the total as it goes on from here, and of nothing else; None for none.
        leaf: the tensor that holds the value of the variable that it is; None for what units make.
        number: its position among the sources.
    """

    name: str
    shape: tuple[int, ...]
    users: frozenset[int]
    units: frozenset[int]
    total: str | None
    beyond: tuple[str, ...]
    handed: str | None
    leaf: str | None
    number: int


@dataclass(frozen=True, eq=False)
class Output:
    """A tensor that a unit gives.

    Attributes:
        name: the tensor.
        weights: the gradients that weigh it, None for one.
        same: a tensor of the same value that is known at a point; None for none.
    """

    name: str
    weights: tuple[str | None, ...]
    same: str | None


@dataclass(frozen=True)
class Leaves:
    """What a loss is differentiated for, in the float64 graph.

    Attributes:
        totals: for each tensor that holds a value of it, the tensor of the tape's gradient, None
            where it gives None.
        variables: for each of these tensors the identity of the variable; None for a tensor.
        constants: tensors that the tape takes for constant.
    """

    totals: Mapping[str, str | None]
    variables: Mapping[str, int | None]
    constants: frozenset[str]


@dataclass(frozen=True)
class Kernel:
    """A large kernel of a single product.

    Attributes:
        user: the operation that it is multiplied in.
        transposed: whether that transposes it.
        factors: shapes of the two factors of a direction in it, as `as_tensors` gives them.
    """

    user: str
    transposed: bool
    factors: tuple[tuple[int, ...], tuple[int, ...]]


def kernel_of(source: Source, users: Sequence[tf.Operation]) -> Kernel | None:
    """A source as a large kernel, where it is one."""
    if len(users) != 1 or math.prod(source.shape) <= LARGE:
        return None
    (user,) = users
    if len(user.inputs) != 2 or user.inputs[1].name != source.name:
        return None
    transposed = False
    if user.type == "MatMul":
        transposed = user.get_attr("transpose_b")
    elif user.type != "Conv2D" or user.get_attr("data_format") != b"NHWC":
        return None
    elif user.inputs[0].shape[-1] != source.shape[2]:
        return None  # with groups, one output needs one of each group
    if math.prod(source.shape) <= (user.outputs[0].shape.num_elements() or math.inf):
        return None  # to move it costs less than to add to all that it gives
    inner, outer = factors_of(source.shape, transposed=transposed)
    return Kernel(user.name, transposed, (inner, (*outer, 1) if transposed else outer))
