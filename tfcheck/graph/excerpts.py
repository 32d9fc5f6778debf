"""Functions out of graphs: importing a `GraphDef`, and cutting callable parts from it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from tfcheck.formats import FORMATS
from tfcheck.graph.nodes import all_nodes, canonical, functions_behind


def import_tensors(graph_def: Any, wanted: Iterable[str]) -> dict[str, tf.Tensor]:
    """Import a graph into the current one; the wanted tensors by name."""
    names = list(dict.fromkeys(wanted))
    found = tf.graph_util.import_graph_def(graph_def, return_elements=names, name="")
    return dict(zip(names, found, strict=True))


class Excerpts:
    """Parts of a graph, imported into others: much faster than to copy them operation by operation.

    Args:
        graph_def: the graph.
    """

    def __init__(self, graph_def: Any) -> None:
        self._graph_def = graph_def
        self._nodes = {node.name: node for node in graph_def.node}
        self._functions = {f.signature.name: f for f in graph_def.library.function}

    def node(self, name: str) -> Any:
        """The node of a name."""
        return self._nodes[name]

    def assembled(
        self, nodes: Iterable[Any], given: Mapping[str, tf.Tensor], wanted: Sequence[str]
    ) -> list[tf.Tensor]:
        """Import nodes that are made of this graph's into the current one.

        Args:
            nodes: the nodes.
            given: tensors to put in the place of those of these names.
            wanted: the names of the tensors that are wanted.
        """
        excerpt = tf.compat.v1.GraphDef()
        excerpt.versions.CopyFrom(self._graph_def.versions)
        excerpt.node.extend(nodes)
        called = functions_behind(excerpt.node, self._functions)
        excerpt.library.function.extend(called.values())
        found: list[tf.Tensor] = tf.graph_util.import_graph_def(
            excerpt, input_map=dict(given), return_elements=list(wanted), name=""
        )
        return found

    def imported(
        self, given: Mapping[str, tf.Tensor], wanted: Sequence[str], name: str
    ) -> list[tf.Tensor]:
        """Import what is between tensors into the current graph.

        Args:
            given: tensors to put in the place of those of these names, such as `"add:0"`.
            wanted: the names of the tensors that are wanted.
            name: what the names of the new operations begin with.
        """
        excerpt = tf.compat.v1.GraphDef()
        excerpt.versions.CopyFrom(self._graph_def.versions)
        excerpt.node.extend(self.between(given, wanted))
        called = functions_behind(excerpt.node, self._functions)
        excerpt.library.function.extend(called.values())
        needed = {canonical(ref, in_function=False) for node in excerpt.node for ref in node.input}
        mapped = {ref: tensor for ref, tensor in given.items() if ref in needed or ref in wanted}
        found: list[tf.Tensor] = tf.graph_util.import_graph_def(
            excerpt, input_map=mapped, return_elements=list(wanted), name=name
        )
        return found

    def used(self, given: Sequence[str], wanted: Iterable[str]) -> list[int]:
        """The positions of those of the given tensors that the wanted ones depend on."""
        wanted = list(wanted)
        nodes = self.between(frozenset(given), wanted)
        refs = {canonical(ref, in_function=False) for node in nodes for ref in node.input}
        return [position for position, ref in enumerate(given) if ref in refs or ref in wanted]

    def between(self, given: Collection[str], wanted: Iterable[str]) -> list[Any]:
        """The nodes that the wanted tensors depend on, up to those that are given."""
        pending = [ref for ref in wanted if ref not in given]
        needed: set[str] = set()
        while pending:
            name = pending.pop().lstrip("^").split(":")[0]
            if name in needed:
                continue
            needed.add(name)
            pending += [
                ref
                for ref in self._nodes[name].input
                if canonical(ref, in_function=False) not in given
            ]
        return [node for name, node in self._nodes.items() if name in needed]


@dataclass(frozen=True)
class LossPart:
    """The part of a graph that computes a loss.

    Attributes:
        number: which of the losses it is.
        source: the graph.
        feeds: the tensors of the graph that are given.
        positions: where the tensors to give for them are in a point.
        loss: the name of the loss.
    """

    number: int
    source: Excerpts
    feeds: Sequence[tf.Tensor]
    positions: Sequence[int]
    loss: str


def operations_between(feeds: Iterable[tf.Tensor], result: tf.Tensor) -> Iterator[tf.Operation]:
    """The operations that a tensor depends on, feeds aside, each after those it depends on."""
    fed = {feed.ref() for feed in feeds}
    done: set[tf.Operation] = set()
    pending = [(result.op, False)]
    while pending:
        op, ready = pending.pop()
        if ready:
            yield op
        elif op not in done:
            done.add(op)
            pending.append((op, True))
            pending += [(tensor.op, False) for tensor in op.inputs if tensor.ref() not in fed]


def callable_part(
    source: Excerpts, feeds: Sequence[tf.Tensor], fetches: Any, *, jit_compile: bool = False
) -> Callable[..., Any]:
    """The part of a graph between feeds and fetches, as a function of positional tensors.

    Args:
        source: the graph.
        feeds: tensors of the graph that are given.
        fetches: a structure of tensors of the graph that are wanted.
        jit_compile: whether XLA compiles it. Defaults to False.
    """
    names = [feed.name for feed in feeds]
    wanted = tf.nest.flatten(fetches)

    def evaluate(*part_feeds: tf.Tensor) -> Any:
        given = dict(zip(names, part_feeds, strict=True))
        beyond = list(dict.fromkeys(t.name for t in wanted if t.name not in given))
        found = dict(zip(beyond, source.imported(given, beyond, ""), strict=True))
        return tf.nest.pack_sequence_as(
            fetches, [found[t.name] if t.name in found else given[t.name] for t in wanted]
        )

    specs = [tf.TensorSpec(f.shape, f.dtype) for f in feeds]
    if not jit_compile:
        return graph_function(evaluate, specs)
    function = tf.function(evaluate, autograph=False, jit_compile=True)
    return function.get_concrete_function(*specs)


def graph_function(evaluate: Callable[..., Any], specs: Sequence[Any]) -> Callable[..., Any]:
    """A Python function as a graph, to be called with arguments of just this structure.

    What `tf.function` does about its arguments at every call takes longer than a small network.

    Args:
        evaluate: computes tensors from tensors.
        specs: a structure of `tf.TensorSpec` for each of its arguments.
    """

    def packed(*tensors: tf.Tensor) -> Any:
        return evaluate(*tf.nest.pack_sequence_as(list(specs), tensors))

    wrapped = tf.compat.v1.wrap_function(packed, tf.nest.flatten(list(specs)))
    return lambda *arguments: wrapped(*tf.nest.flatten(list(arguments)))


def weighted_total(targets: Sequence[tf.Tensor], weights: Sequence[tf.Tensor | None]) -> tf.Tensor:
    """The scalar that `tape.gradient` differentiates: the weighted sum of all target entries."""
    sums = [
        tf.reduce_sum(tf.cast(target if weight is None else target * weight, tf.float64))
        for target, weight in zip(targets, weights, strict=True)
    ]
    return tf.add_n(sums)


def lowest_float(graph_def: Any) -> str:
    """The lowest-precision float type that any node of the graph or its functions uses."""
    nodes = list(all_nodes(graph_def))
    used = {
        dtype
        for node in nodes
        for value in node.attr.values()
        for dtype in ([value.type] if value.WhichOneof("value") == "type" else value.list.type)
    }
    for name in reversed(FORMATS):
        if tf.as_dtype(name).as_datatype_enum in used:
            return name
    return "float64"
