"""The nodes of a `GraphDef`: their types, their tensors' names, what depends on what."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Any

from tfcheck.internals import op_definition

KEPT_MARKS = frozenset({"_lower_using_switch_merge", "_XlaMustCompile"})
"""Marks that change what a node does: some operations, such as the backward pass of a grouped
convolution, have a kernel in compiled functions only."""


def canonical(ref: str, in_function: bool) -> str:
    """One spelling a tensor: `"node:0"` in graphs, `"node:output:0"` in functions."""
    return ref if in_function or ":" in ref else f"{ref}:0"


def first_output(node: Any, in_function: bool) -> str:
    """The name of a node's first output."""
    if not in_function:
        return f"{node.name}:0"
    definition = op_definition(node.op)
    outputs = definition.output_arg if definition is not None else ()
    return f"{node.name}:{outputs[0].name}:0" if outputs else node.name


def copy_node(node: Any, inputs: Iterable[str]) -> Any:
    """The node with new data inputs, without control inputs, placement and bookkeeping marks."""
    new = type(node)(name=node.name, op=node.op, input=inputs)
    for name, value in node.attr.items():
        if not name.startswith("_") or name in KEPT_MARKS:
            new.attr[name].CopyFrom(value)
    return new


def types_of(attribute: Any) -> list[int]:
    """The types that a type attribute holds."""
    if attribute.WhichOneof("value") == "type":
        return [attribute.type]
    return list(attribute.list.type)


def set_types(attribute: Any, types: Sequence[int]) -> None:
    """Put types into a type attribute, which holds one or a list."""
    if attribute.WhichOneof("value") == "type":
        attribute.type = types[0]
    else:
        del attribute.list.type[:]
        attribute.list.type.extend(types)


def tensor_types(node: Any, arguments: Any) -> list[int]:
    """The type of each tensor that a node's arguments stand for."""
    return [dtype for argument in arguments for dtype in _argument_types(node, argument)]


def _argument_types(node: Any, argument: Any) -> list[int]:
    if argument.type_list_attr:
        return list(node.attr[argument.type_list_attr].list.type)
    dtype = node.attr[argument.type_attr].type if argument.type_attr else argument.type
    count = node.attr[argument.number_attr].i if argument.number_attr else 1
    return [dtype] * count


def output_refs(node: Any, definition: Any, in_function: bool) -> list[str]:
    """The names of all outputs of a node."""
    refs: list[str] = []
    for argument in definition.output_arg:
        for position in range(len(_argument_types(node, argument))):
            refs.append(
                f"{node.name}:{argument.name}:{position}"
                if in_function
                else f"{node.name}:{len(refs)}"
            )
    return refs


def functions_of(attribute: Any) -> Any:
    """The functions that a function attribute holds."""
    return [attribute.func] if attribute.WhichOneof("value") == "func" else attribute.list.func


def all_nodes(graph_def: Any) -> Iterator[Any]:
    """The nodes of a graph and of all its functions."""
    yield from graph_def.node
    for function in graph_def.library.function:
        yield from function.node_def


def called_functions(node: Any) -> Iterable[str]:
    """The names of the functions that a node calls."""
    for value in node.attr.values():
        kind = value.WhichOneof("value")
        if kind == "func" or (kind == "list" and value.list.func):
            yield from (function.name for function in functions_of(value))


def functions_behind(nodes: Iterable[Any], functions: Mapping[str, Any]) -> dict[str, Any]:
    """The functions that nodes call, and those that these call, by name.

    Args:
        nodes: the nodes.
        functions: the `FunctionDef`s that there are, by name.
    """
    pending = [name for node in nodes for name in called_functions(node)]
    found: dict[str, Any] = {}
    while pending:
        name = pending.pop()
        if name not in found and name in functions:
            found[name] = functions[name]
            pending += [n for node in found[name].node_def for n in called_functions(node)]
    return found


OF_SHAPES = frozenset({"Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike"})
"""Operations that see nothing of a tensor but its shape."""


def downstream(nodes: Iterable[Any], sources: Set[str]) -> set[str]:
    """The names of the nodes, given in program order, whose values depend on those of the sources.

    The shape of a value does not depend on it.
    """
    found = set(sources)
    for node in nodes:
        if node.op not in OF_SHAPES and any(ref.split(":")[0] in found for ref in node.input):
            found.add(node.name)
    return found


def meets(nodes: Sequence[Any], carried: Set[str], others: Set[str], given: Set[str]) -> bool:
    """Whether a value, or what follows from it alone, is first met by what comes from others.

    Args:
        nodes: the nodes, in program order.
        carried: names of the nodes that hold the value.
        others: names of the nodes that the others come from.
        given: names of all nodes that something comes from.
    """
    from_others = downstream(nodes, others)
    from_elsewhere = downstream(nodes, given - carried)
    carriers = set(carried)
    for node in nodes:
        inputs = {ref.split(":")[0] for ref in node.input}
        if inputs & carriers:
            if inputs & from_others:
                return True
            if not inputs & from_elsewhere:
                carriers.add(node.name)
    return False


def assigned_in(graph_def: Any) -> set[str]:
    """The names of the nodes of a graph that hold variables which something assigns to.

    Those that a function assigns to, such as a branch or the body of a loop, are among them.
    """
    bodies = {function.signature.name: function for function in graph_def.library.function}
    known: dict[str, set[int]] = {}

    def changed_by(name: str) -> set[int]:
        """The positions of the arguments that a function assigns to."""
        if name in bodies and name not in known:
            known[name] = set()
            arguments = [argument.name for argument in bodies[name].signature.input_arg]
            changed = changed_among(bodies[name].node_def)
            known[name] = {i for i, argument in enumerate(arguments) if argument in changed}
        return known.get(name, set())

    def changed_among(nodes: Iterable[Any]) -> set[str]:
        changed: set[str] = set()
        for node in nodes:
            inputs = [ref.split(":")[0] for ref in node.input]
            if node.op.startswith(_ASSIGNING):
                changed.add(inputs[0])
            before = 1 if node.op in _CHOOSING else 0
            for name in called_functions(node):
                changed |= {
                    inputs[before + i] for i in changed_by(name) if before + i < len(inputs)
                }
        return changed

    return changed_among(graph_def.node)


_ASSIGNING = ("Assign", "ResourceScatter", "ResourceApply", "ResourceSparseApply")
_CHOOSING = frozenset({"If", "StatelessIf", "Case", "StatelessCase"})
"""Operations whose first input chooses among functions that get the others."""


def reachable(nodes: Mapping[str, Any], wanted: Iterable[str]) -> list[Any]:
    """The nodes that the wanted tensors depend on, in program order."""
    pending = [ref.split(":")[0] for ref in wanted]
    needed: set[str] = set()
    while pending:
        name = pending.pop()
        if name in needed or name not in nodes:
            continue
        needed.add(name)
        pending.extend(ref.split(":")[0] for ref in nodes[name].input)
    return [node for name, node in nodes.items() if name in needed]
