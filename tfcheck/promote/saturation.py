"""Numbers in eight bits saturate: they are clipped to their type's range before the cast to it.

In float64 there is neither that rounding nor that range, as there is none of float16's. A clip to a
narrower range is a choice of the model's, and stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

_LARGEST = {
    tf.as_dtype(name).as_datatype_enum: float(tf.as_dtype(name).max)
    for name in ("float8_e4m3fn", "float8_e5m2")
}
_CLIPS = frozenset({"Minimum", "Maximum"})


def unsaturated(nodes: Mapping[str, Any], ref: str, becomes: int) -> str:
    """What a cast is of, before it is clipped to the range of the type that it is cast to.

    Args:
        nodes: the nodes before the cast, by their names.
        ref: the tensor that is cast.
        becomes: the type that it is cast to.

    Returns:
        The tensor before the clip; the same one where there is none.
    """
    largest = _LARGEST.get(becomes)
    while largest is not None and (node := _maker(nodes, ref)) is not None and node.op in _CLIPS:
        bound = _number(nodes, node.input[1])
        if bound is None or abs(bound) < largest:
            break
        ref = node.input[0]
    return ref


def _maker(nodes: Mapping[str, Any], ref: str) -> Any | None:
    """The node that makes a tensor."""
    return nodes.get(ref.partition(":")[0])


def _number(nodes: Mapping[str, Any], ref: str) -> float | None:
    """The number that a constant is, or what it is the negative of; None for anything else."""
    node = _maker(nodes, ref)
    if node is not None and node.op in ("Neg", "Cast", "Identity"):
        number = _number(nodes, node.input[0])
        return -number if number is not None and node.op == "Neg" else number
    if node is None or node.op != "Const":
        return None
    value = np.asarray(tf.make_ndarray(node.attr["value"].tensor))
    return float(value) if value.size == 1 else None
