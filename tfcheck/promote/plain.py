"""Plain operations: each in float64, or as an island between casts where it has no such form."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfcheck.errors import TraceError
from tfcheck.graph.nodes import copy_node, tensor_types
from tfcheck.internals import op_definition
from tfcheck.promote.draws import Draws
from tfcheck.promote.emitter import Emitter
from tfcheck.promote.float64_forms import float64_form
from tfcheck.promote.library import Library
from tfcheck.promote.notes import Note, Notes
from tfcheck.promote.saturation import unsaturated
from tfcheck.promote.types import promote_attributes


class Plain:
    """What becomes of operations that neither touch a variable nor call what has to be rewritten.

    Args:
        emitter: writes the nodes.
        library: the functions.
        draws: what draws random numbers.
        notes: where operations are noted that keep a lower precision.
    """

    def __init__(self, emitter: Emitter, library: Library, draws: Draws, notes: Notes) -> None:
        self._emitter = emitter
        self._library = library
        self._draws = draws
        self._notes = notes

    def add(self, node: Any, inputs: list[str]) -> None:
        """Rewrite an operation.

        Args:
            node: the operation.
            inputs: its inputs in the new graph.

        Raises:
            TraceError: if TensorFlow does not know it.
        """
        definition = op_definition(node.op)
        if definition is None:
            raise TraceError(
                f"Every operation of the training step must be one TensorFlow knows. Received: "
                f"op={node.op!r}. Load the library that defines it before the check."
            )
        if self._draws.rewrite(node, inputs):
            return
        if not self._emitter.promote:
            new = copy_node(node, inputs)
            self._library.keep_called(new)
            self._emitter.put(new)
            self._draws.note(node, definition)
            return
        if node.op == "Cast":
            inputs[0] = unsaturated(self._emitter.nodes, inputs[0], node.attr["DstT"].type)
        if not self._replace(node, definition, inputs):
            self._promote(node, definition, inputs)

    def _promote(self, node: Any, definition: Any, inputs: list[str]) -> None:
        """Raise an operation's precision, with casts where it differs from what is around it."""
        new = copy_node(node, inputs)
        calls = self._library.keep_called(new)
        island = not promote_attributes(new, definition, calls=calls)
        island |= self._cast_inputs(node, new, definition)
        self._emitter.put(new)
        island |= self._cast_outputs(node, new, definition)
        random = self._draws.note(node, definition)
        if island and not random:
            self._notes.islands.append(Note(node.op, node.name, self._emitter.function))

    def _cast_inputs(self, node: Any, new: Any, definition: Any) -> bool:
        """Cast the inputs that are of another type than is wanted, and tell whether there are."""
        wanted = tensor_types(new, definition.input_arg)
        original = tensor_types(node, definition.input_arg)
        differ = False
        for position, (is_now, was) in enumerate(zip(wanted, original, strict=True)):
            visible = self._emitter.visible(was)
            if visible != is_now:
                differ = True
                name = f"{node.name}/to_island_{position}"
                new.input[position] = self._emitter.cast(name, new.input[position], visible, is_now)
        return differ

    def _cast_outputs(self, node: Any, new: Any, definition: Any) -> bool:
        """Cast the outputs that are of another type than others see, and tell if there are any."""
        made = tensor_types(new, definition.output_arg)
        meant = tensor_types(node, definition.output_arg)
        refs = self._emitter.outputs(new, definition)
        differ = False
        for position, (ref, is_now, was) in enumerate(zip(refs, made, meant, strict=True)):
            visible = self._emitter.visible(was)
            if visible != is_now:
                differ = True
                name = f"{node.name}/from_island_{position}"
                self._emitter.rename(ref, self._emitter.cast(name, ref, is_now, visible))
        return differ

    def _replace(self, node: Any, definition: Any, inputs: list[str]) -> bool:
        """Put an operation's float64 form in its place, if there is one."""
        form = float64_form(node)
        if form is None:
            return False
        self._library.add(form)
        call = tf.compat.v1.NodeDef(name=node.name, op="PartitionedCall", input=inputs)
        call.attr["f"].func.name = form.signature.name
        call.attr["Tin"].list.type.extend(a.type for a in form.signature.input_arg)
        call.attr["Tout"].list.type.extend(a.type for a in form.signature.output_arg)
        self._emitter.put(call)
        self._emitter.rename_outputs(node.name, definition.output_arg)
        return True
