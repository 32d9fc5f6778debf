"""What the units of a loss are given, and what they give."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import tensorflow as tf

LARGE = 2**13
"""Directions in tensors of more entries than this are products."""


def is_large(shape: tuple[int, ...]) -> bool:
    """Whether directions in a tensor of this shape are products."""
    return len(shape) > 1 and math.prod(shape) > LARGE


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

    @property
    def large(self) -> bool:
        """Whether directions in it are products."""
        return is_large(self.shape)


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

    @property
    def named(self) -> tuple[str, ...]:
        """The gradients that weigh it which are not one."""
        return tuple(weight for weight in self.weights if weight is not None)


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
    """

    user: str
    transposed: bool


def kernel_of(source: Source, users: Sequence[tf.Operation]) -> Kernel | None:
    """A source as a large kernel, where it is one."""
    if len(users) != 1 or not source.large:
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
    return Kernel(user.name, transposed) if pays(user, transposed=transposed) else None


def pays(user: tf.Operation, *, transposed: bool) -> bool:
    """Whether a thin product beside costs less than to move the kernel, going by numbers moved."""
    kernel, outputs = user.inputs[1].shape, user.outputs[0].shape.num_elements()
    if not outputs:
        return False
    given = math.prod(kernel)
    last = kernel[0] if transposed else kernel[-1]
    inner, positions = given // last, outputs // last
    # A convolution of more than one pixel copies all patches that it is made of.
    copies = 1 if user.type == "MatMul" or kernel[0] == kernel[1] == 1 else 2
    return bool(copies * positions * inner + 2 * outputs < 2 * given)
