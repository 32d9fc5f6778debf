"""Writing the nodes of a new graph: what each is called, and under which name its tensors go on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import tensorflow as tf

from tfcheck.graph.nodes import canonical, output_refs
from tfcheck.internals import op_definition
from tfcheck.promote.types import HIGH


class Emitter:
    """The nodes of one graph or function, as they are written anew.

    Args:
        function: the name of the function; `""` for the graph itself.
        promote: whether floats are promoted to float64.

    Attributes:
        nodes: the new nodes, by name, in program order.
    """

    def __init__(self, function: str, *, promote: bool) -> None:
        self.function = function
        self.promote = promote
        self.nodes: dict[str, Any] = {}
        self._alias: dict[str, str] = {}

    @property
    def in_function(self) -> bool:
        """Whether this is a function's body, where tensors have other names than in graphs."""
        return bool(self.function)

    def visible(self, dtype: int) -> int:
        """The type under which a tensor of this type is passed around in the new graph."""
        return HIGH.get(dtype, dtype) if self.promote else dtype

    # -- names of tensors ------------------------------------------------------------------

    def resolve(self, ref: str) -> str:
        """The name in the new graph of a tensor of the old one."""
        ref = canonical(ref, self.in_function)
        return self._alias.get(ref, ref)

    def rename(self, ref: str, new: str) -> None:
        """Have another tensor stand for one of the old graph."""
        self._alias[ref] = new

    def rename_outputs(self, name: str, arguments: Iterable[Any]) -> None:
        """Have the outputs of a call stand for those of the operation that it takes the place of.

        Args:
            name: the node's name.
            arguments: the operation's outputs, each a tensor.
        """
        # In a graph, outputs are numbered either way.
        if self.in_function:
            for position, argument in enumerate(arguments):
                self.rename(f"{name}:{argument.name}:0", f"{name}:output:{position}")

    def outputs(self, node: Any, definition: Any) -> list[str]:
        """The names of all outputs of a node."""
        return output_refs(node, definition, self.in_function)

    # -- nodes -----------------------------------------------------------------------------

    def put(self, node: Any) -> None:
        """Add a node as it is."""
        self.nodes[node.name] = node

    def emit(self, name: str, op: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Add a node.

        Args:
            name: its name.
            op: its type.
            inputs: the names of its inputs in the new graph.
            **attributes: its attributes: types, or anything as an `AttrValue`.

        Returns:
            The name of its first output.
        """
        node = tf.compat.v1.NodeDef(name=name, op=op, input=inputs)
        for attribute, value in attributes.items():
            if isinstance(value, int):
                node.attr[attribute].type = value
            else:
                node.attr[attribute].CopyFrom(value)
        self.put(node)
        return self.outputs(node, op_definition(op))[0]

    def cast(self, name: str, ref: str, source: int, target: int) -> str:
        """Add a cast of a tensor from one type to another."""
        return self.emit(name, "Cast", (ref,), SrcT=source, DstT=target)

    def constant(self, name: str, value: int | list[int], dtype: tf.DType = tf.int32) -> str:
        """Add a constant."""
        tensor = tf.make_tensor_proto(value, dtype=dtype)
        attribute = tf.compat.v1.AttrValue(tensor=tensor)
        return self.emit(name, "Const", (), value=attribute, dtype=dtype.as_datatype_enum)
