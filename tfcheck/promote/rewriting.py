"""Rewriting a graph and the functions that it calls: which node, in which order, and the calls.

Nodes are taken in program order, so that a read sees what was assigned before it. A function is
rewritten once for each combination of handles and plain tensors that it is called with.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from tfcheck.graph.nodes import (
    KEPT_MARKS,
    called_functions,
    copy_node,
    functions_of,
    reachable,
    set_types,
    types_of,
)
from tfcheck.internals import op_definition
from tfcheck.promote.draws import Draws
from tfcheck.promote.emitter import Emitter
from tfcheck.promote.library import Library
from tfcheck.promote.notes import Notes
from tfcheck.promote.plain import Plain
from tfcheck.promote.variables import Variables

_Kinds = tuple[int | None, ...]
"""A function's arguments: None for a plain tensor, a DataType for a variable's handle that has
become a value of that (already promoted) type."""

# TensorFlow keeps one namespace of functions for the whole process.
_serial = itertools.count()


@dataclass(frozen=True)
class _Specialised:
    """A function rewritten for one combination of argument kinds."""

    name: str
    result_kinds: _Kinds


class Program:
    """The functions of a graph, rewritten on demand, and what was noticed on the way.

    Args:
        functions: the functions, by name.
        promote: whether floats are promoted to float64.

    Attributes:
        library: the functions, before and after.
        promote: whether floats are promoted to float64.
        notes: what was noticed.
    """

    def __init__(self, functions: Mapping[str, Any], *, promote: bool) -> None:
        self.library = Library(functions)
        self.promote = promote
        self.notes = Notes()
        self._memo: dict[tuple[str, _Kinds], _Specialised] = {}

    def specialise(self, name: str, kinds: _Kinds) -> _Specialised:
        """Rewrite a function for these argument kinds, once."""
        key = (name, kinds)
        if key not in self._memo:
            new_name = f"{name}_pure{next(_serial)}"
            self._memo[key] = _Specialised(new_name, ())
            self._memo[key] = self._rewrite(self.library.given[name], new_name, kinds)
        return self._memo[key]

    def _rewrite(self, function: Any, new_name: str, kinds: _Kinds) -> _Specialised:
        body = Body(self, new_name)
        result = _without_body(function)
        result.signature.name = new_name
        for argument, kind in zip(result.signature.input_arg, kinds, strict=True):
            argument.ClearField("handle_data")
            if kind is None:
                argument.type = body.emitter.visible(argument.type)
            else:
                argument.type = kind
                body.variables.declare(argument.name, kind)
        for node in function.node_def:
            body.add(node, {})
        result_kinds: list[int | None] = []
        for output in result.signature.output_arg:
            output.ClearField("handle_data")
            ref = body.emitter.resolve(function.ret[output.name])
            kind = body.variables.kind(ref)
            output.type = body.emitter.visible(output.type) if kind is None else kind
            result.ret[output.name] = body.variables.value(ref)
            result_kinds.append(kind)
        result.node_def.extend(reachable(body.emitter.nodes, result.ret.values()))
        self.library.add(result)
        return _Specialised(new_name, tuple(result_kinds))


def _without_body(function: Any) -> Any:
    """A copy of a function without its nodes, its control outputs and bookkeeping marks."""
    result = tf.compat.v1.GraphDef().library.function.add()
    result.CopyFrom(function)
    for field in ("node_def", "control_ret", "arg_attr", "resource_arg_unique_id"):
        result.ClearField(field)
    for mark in set(result.attr) - KEPT_MARKS:
        del result.attr[mark]
    result.signature.ClearField("control_output")
    return result


class Body:
    """One graph or function while it is rewritten, in program order.

    Args:
        program: the functions that it may call.
        function: the function's new name. Defaults to `""`, for the graph itself.

    Attributes:
        emitter: the new nodes.
        variables: the variables, as values.
        draws: the random numbers that are drawn.
    """

    def __init__(self, program: Program, function: str = "") -> None:
        self._program = program
        self.emitter = Emitter(function, promote=program.promote)
        self.variables = Variables(self.emitter)
        self.draws = Draws(self.emitter, program.notes)
        self._plain = Plain(self.emitter, program.library, self.draws, program.notes)

    def add(self, node: Any, variables: Mapping[str, tf.TensorSpec]) -> None:
        """Rewrite one node.

        Args:
            node: the node.
            variables: shape and dtype of the variable behind each placeholder that is a handle, by
                the placeholder's name.
        """
        if node.op == "Placeholder" and node.name in variables:
            self._add_variable(node.name, variables[node.name])
            return
        inputs = [self.emitter.resolve(ref) for ref in node.input if not ref.startswith("^")]
        functions = self._program.library.given
        if node.op in functions:
            self._add_named_call(node, inputs)
        elif node.op in _CALLS and any(name in functions for name in called_functions(node)):
            self._add_call(node, inputs)
        elif any(ref in self.variables.handles for ref in inputs):
            self.variables.add(node, inputs)
        else:
            self._plain.add(node, inputs)

    def _add_variable(self, name: str, spec: tf.TensorSpec) -> None:
        """An input that holds a variable's value, in the place of its handle."""
        dtype = self.emitter.visible(spec.dtype.as_datatype_enum)
        shape = tf.compat.v1.AttrValue(shape=spec.shape.as_proto())
        ref = self.emitter.emit(name, "Placeholder", (), dtype=dtype, shape=shape)
        self.variables.declare(ref, dtype)

    def _add_call(self, node: Any, inputs: Sequence[str]) -> None:
        names, tin, tout, leading = _CALLS[node.op]
        new = copy_node(node, (*inputs[:leading], *map(self.variables.value, inputs[leading:])))
        kinds = tuple(map(self.variables.kind, inputs[leading:]))
        result_kinds = self._specialise_called(new, names, kinds)
        for attribute, which in ((tin, kinds), (tout, result_kinds)):
            given = zip(which, types_of(node.attr[attribute]), strict=True)
            types = [self.emitter.visible(t) if kind is None else kind for kind, t in given]
            set_types(new.attr[attribute], types)
        if "Tcond" in new.attr:
            new.attr["Tcond"].type = self.emitter.visible(new.attr["Tcond"].type)
        if "output_shapes" in new.attr:
            _forget_shapes(new.attr["output_shapes"].list.shape, result_kinds)
        self.emitter.put(new)
        refs = self.emitter.outputs(new, op_definition(node.op))
        for ref, kind in zip(refs, result_kinds, strict=True):
            if kind is not None:
                self.variables.declare(ref, kind)

    def _specialise_called(self, node: Any, names: Sequence[str], kinds: _Kinds) -> _Kinds:
        """Have a call call what its functions have become, and tell the kinds of its results."""
        result_kinds: _Kinds = ()
        for name in reversed(names):
            for function in functions_of(node.attr[name]):
                specialised = self._program.specialise(function.name, kinds)
                function.name = specialised.name
                function.ClearField("attr")
                result_kinds = specialised.result_kinds
        return result_kinds

    def _add_named_call(self, node: Any, inputs: Sequence[str]) -> None:
        """A call in the old form, in which a function's name stands for the operation."""
        signature = self._program.library.given[node.op].signature
        call = tf.compat.v1.NodeDef(name=node.name, op="StatefulPartitionedCall", input=node.input)
        call.attr["f"].func.name = node.op
        for attribute, arguments in (("Tin", signature.input_arg), ("Tout", signature.output_arg)):
            call.attr[attribute].list.SetInParent()
            call.attr[attribute].list.type.extend(argument.type for argument in arguments)
        self._add_call(call, inputs)
        self.emitter.rename_outputs(node.name, signature.output_arg)


def _forget_shapes(shapes: Any, kinds: _Kinds) -> None:
    """Say nothing of the shapes of those results that were handles."""
    for shape, kind in zip(shapes, kinds, strict=False):
        if kind is not None:
            shape.Clear()
            shape.unknown_rank = True


_CALLS = {
    "PartitionedCall": (("f",), "Tin", "Tout", 0),
    "StatefulPartitionedCall": (("f",), "Tin", "Tout", 0),
    "If": (("then_branch", "else_branch"), "Tin", "Tout", 1),
    "StatelessIf": (("then_branch", "else_branch"), "Tin", "Tout", 1),
    "Case": (("branches",), "Tin", "Tout", 1),
    "StatelessCase": (("branches",), "Tin", "Tout", 1),
    "While": (("body", "cond"), "T", "T", 0),
    "StatelessWhile": (("body", "cond"), "T", "T", 0),
}
"""Operations that call: the attributes that hold the functions, those that hold the types of
arguments and of results, and how many inputs are none of the functions'."""
