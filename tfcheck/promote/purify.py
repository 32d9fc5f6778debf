"""Rewriting a traced graph into a pure function of plain tensors, in float64.

Two things happen to a `GraphDef`, in one pass over its nodes and those of its functions:

- **Variables become values.** A captured variable handle turns into an input that holds the
  variable's value; reads become references to it. An assignment changes what later reads see and
  nothing else, so nothing live can be changed by running the result. As for `tf.GradientTape`, an
  assigned value is a leaf of its own (a *cut*): no derivative flows through an assignment.
- **Floats are promoted.** float8, float16, bfloat16 and float32 become float64, and complex64
  becomes complex128, in attributes, constants and function signatures. An operation that has no
  float64 form stays as it is, an *island* between casts. Operations that draw random numbers stay
  too: their float64 streams differ.

Control dependencies are dropped: printing, assertions and state updates are no part of the loss.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from tfcheck.graph.nodes import downstream, reachable
from tfcheck.promote.notes import told
from tfcheck.promote.rewriting import Body, Program


@dataclass(frozen=True)
class Cut:
    """A value assigned to a variable within the step, as later reads of it see it.

    Attributes:
        variable: name of the input that holds the variable's value.
        tensor: name of the tensor that holds the assigned value.
    """

    variable: str
    tensor: str


@dataclass(frozen=True)
class PureGraph:
    """A graph without variables, and what became of the names asked for.

    Attributes:
        graph_def: the rewritten graph, its functions included.
        tensors: new name of every fetched tensor, by its old name.
        cuts: values assigned to variables within the step.
        drawn: for each tensor of raw random numbers, by its name, the tensor to feed in order to
            hold them fixed; not of those that a variable has a part in.
        islands: operations that kept a lower precision and depend on a float variable, each as
            `"type (node)"`.
        random_ops: operations that draw new numbers at every evaluation, in the same form.
        sampled: names of the nodes that draw floats from a distribution which a variable has a
            part in.
    """

    graph_def: Any
    tensors: dict[str, str]
    cuts: tuple[Cut, ...]
    drawn: dict[str, str]
    islands: tuple[str, ...]
    random_ops: tuple[str, ...]
    sampled: frozenset[str]


def purify(
    graph_def: Any,
    variables: Mapping[str, tf.TensorSpec],
    fetches: Sequence[str],
    *,
    sources: Iterable[str] = (),
    promote: bool = True,
) -> PureGraph:
    """Rewrite a graph into a pure one, by default in float64.

    Args:
        graph_def: `GraphDef` of a traced function.
        variables: shape and dtype of the variable behind each captured handle, by placeholder name.
        fetches: names of the tensors that are wanted, as in `"add:0"`.
        sources: names of the tensors, other than variables, that are differentiated with respect
            to. Defaults to none.
        promote: whether to promote floats to float64. Defaults to True.

    Returns:
        The pure graph, pruned to what the fetches need.

    Raises:
        TraceError: if a variable is used by an operation that cannot be made pure.
    """
    functions = {function.signature.name: function for function in graph_def.library.function}
    program = Program(functions, promote=promote)
    body = Body(program)
    for node in graph_def.node:
        body.add(node, variables)
    names = {name: body.emitter.resolve(name) for name in fetches}
    cuts = tuple(Cut(variable, tensor) for variable, tensor in body.variables.cuts)

    finished = program.library.finished
    result = tf.compat.v1.GraphDef()
    result.versions.CopyFrom(graph_def.versions)
    wanted = [*names.values(), *(cut.tensor for cut in cuts)]
    result.node.extend(reachable(body.emitter.nodes, wanted))
    result.library.function.extend(finished.values())
    kept = {node.name for node in result.node}
    moving = {name for name, spec in variables.items() if spec.dtype.is_floating}
    moving |= {_node(names[source]) for source in sources}
    moved = downstream(result.node, moving)

    # What a metric assigns to its variables is in the graph, too, and no part of any fetch.
    fetched = reachable(body.emitter.nodes, names.values())
    notes, draws = program.notes, body.draws
    return PureGraph(
        graph_def=result,
        tensors=names,
        cuts=cuts,
        drawn={
            ref: body.emitter.resolve(ref)
            for ref, discrete in draws.drawn
            if _node(ref) in kept and (discrete or _node(ref) not in moved)
        },
        islands=told(notes.islands, fetched, moved, finished),
        random_ops=told(notes.random_ops, fetched, kept, finished),
        sampled=frozenset(draws.sampled) & kept & moved,
    )


def _node(ref: str) -> str:
    """The name of the node that makes a tensor."""
    return ref.split(":", maxsplit=1)[0]
