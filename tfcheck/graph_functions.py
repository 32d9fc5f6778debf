"""Functions out of graphs: importing a `GraphDef`, and cutting callable parts from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import tensorflow as tf


def import_tensors(graph_def: Any, wanted: Iterable[str]) -> dict[str, tf.Tensor]:
    """Import a graph into the current one; the wanted tensors by name."""
    names = list(dict.fromkeys(wanted))
    found = tf.graph_util.import_graph_def(graph_def, return_elements=names, name="")
    return dict(zip(names, found, strict=True))


def callable_part(
    whole: Any, feeds: Sequence[tf.Tensor], fetches: Any, *, jit_compile: bool = False
) -> Callable[..., Any]:
    """The part of a graph between feeds and fetches, as a function of positional tensors.

    Args:
        whole: the function whose graph it is.
        feeds: tensors of the graph that are given.
        fetches: a structure of tensors that are wanted.
        jit_compile: whether XLA compiles it. Defaults to False.
    """
    # A pruned function called directly describes every argument in text first, at 10 ms a call.
    pruned = whole.prune(feeds, fetches)
    specs = [tf.TensorSpec(feed.shape, feed.dtype) for feed in feeds]

    def evaluate(*inputs: tf.Tensor) -> Any:
        return pruned(*inputs)

    function = tf.function(evaluate, autograph=False, jit_compile=jit_compile)
    return function.get_concrete_function(*specs)


def weighted_total(targets: Sequence[tf.Tensor], weights: Sequence[tf.Tensor | None]) -> tf.Tensor:
    """The scalar that `tape.gradient` differentiates: the weighted sum of all target entries."""
    sums = [
        tf.reduce_sum(tf.cast(target if weight is None else target * weight, tf.float64))
        for target, weight in zip(targets, weights, strict=True)
    ]
    return tf.add_n(sums)


def lowest_float(graph_def: Any) -> str:
    """The lowest-precision float type that any node of the graph or its functions uses."""
    nodes = [*graph_def.node, *(node for f in graph_def.library.function for node in f.node_def)]
    used = {
        dtype
        for node in nodes
        for value in node.attr.values()
        for dtype in ([value.type] if value.WhichOneof("value") == "type" else value.list.type)
    }
    for dtype in (tf.bfloat16, tf.float16, tf.float32):
        if dtype.as_datatype_enum in used:
            return str(dtype.name)
    return "float64"
