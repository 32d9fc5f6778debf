"""Inputs that are numbers in form only: ids and masks, given as floats.

A layer casts them to integers and looks something up, or compares them with zero. That there is no
gradient is as it should be. What is cast to integers and goes on as a number is another matter.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from tfcheck.graph.nodes import OF_SHAPES, canonical, output_refs, tensor_types
from tfcheck.internals import op_definition

_MOVING = frozenset(
    {
        *("Identity", "EnsureShape", "Reshape", "ExpandDims", "Squeeze", "StopGradient", "Tile"),
        *("StridedSlice", "Slice", "Transpose", "Pack", "ConcatV2", "Pad", "PadV2", "Unpack"),
        *("BroadcastTo", "Rint", "Round", "Floor", "Ceil", "ReverseV2", "Split"),
    }
)
"""Operations that hand whole numbers on as they are."""

_COMPARING = frozenset({"Equal", "NotEqual"})


def only_names(nodes: Iterable[Any], source: str) -> bool:
    """Whether floats are only used as integers that name something, or compared for equality.

    Args:
        nodes: the nodes that a loss is computed from, in program order.
        source: the tensor of the floats.
    """
    floats, integers = {canonical(source, in_function=False)}, set[str]()
    used = False
    for node in nodes:
        refs = {canonical(ref, in_function=False) for ref in node.input}
        definition = op_definition(node.op)
        if node.op in OF_SHAPES or refs.isdisjoint(floats | integers):
            continue
        if definition is None or node.name == source.split(":", maxsplit=1)[0]:
            return False
        made = dict(
            zip(
                output_refs(node, definition, in_function=False),
                map(tf.as_dtype, tensor_types(node, definition.output_arg)),
                strict=True,
            )
        )
        if not refs.isdisjoint(floats):
            moved = node.op in _MOVING or node.op == "Cast"
            if not moved and node.op not in _COMPARING:
                return False
            floats |= {ref for ref, dtype in made.items() if dtype.is_floating}
        elif (node.op == "Cast" and _counts(node)) or "f" in node.attr:
            return False
        used = True
        integers |= {ref for ref, dtype in made.items() if not dtype.is_floating}
    return used


def _counts(node: Any) -> bool:
    """Whether a cast makes numbers of integers again."""
    given, made = (tf.as_dtype(node.attr[name].type) for name in ("SrcT", "DstT"))
    return bool(given.is_integer and made.is_floating)
