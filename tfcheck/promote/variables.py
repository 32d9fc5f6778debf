"""Operations on variables, as operations on values.

A read becomes a reference to the value. An assignment changes what later reads see and nothing
else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from tfcheck.errors import TraceError
from tfcheck.graph.nodes import first_output
from tfcheck.promote.emitter import Emitter


@dataclass
class Handle:
    """A variable within one graph or function: where it came from and what a read sees now.

    Attributes:
        source: the tensor that it came as.
        dtype: the type of its value.
        value: the tensor that a read sees.
    """

    source: str
    dtype: int
    value: str


class Variables:
    """The variables of one graph or function while it is rewritten, in program order.

    Args:
        emitter: writes the nodes.

    Attributes:
        handles: the variable behind each tensor that was a handle, by the tensor's name.
        cuts: the variables that are assigned to, each by the name of the input that holds its
            value, and the tensor of what is assigned; not those of functions.
    """

    def __init__(self, emitter: Emitter) -> None:
        self._emitter = emitter
        self.handles: dict[str, Handle] = {}
        self.cuts: list[tuple[str, str]] = []

    def declare(self, ref: str, dtype: int) -> None:
        """Add a variable whose handle has become a value of this (already promoted) type."""
        self.handles[ref] = Handle(ref, dtype, ref)

    def kind(self, ref: str) -> int | None:
        """The type of the value of a variable; None for a plain tensor."""
        return self.handles[ref].dtype if ref in self.handles else None

    def value(self, ref: str) -> str:
        """The tensor that a handle has become by now; a plain tensor as it is."""
        return self.handles[ref].value if ref in self.handles else ref

    def add(self, node: Any, inputs: Sequence[str]) -> None:
        """Rewrite an operation on a variable.

        Args:
            node: the operation.
            inputs: its inputs in the new graph, of which at least one is a handle.

        Raises:
            TraceError: if the operation cannot be made pure.
        """
        handle = self.handles.get(inputs[0])
        if handle is None or any(ref in self.handles for ref in inputs[1:]):
            raise _impure(node)
        use = _Use(self._emitter, node, handle, inputs[1:])
        if node.op == "Identity":
            self.handles[use.output] = handle
        elif node.op in _READING:
            _READING[node.op](use)
        elif node.op in _ASSIGNED:
            self._assign(handle, node.name, _ASSIGNED[node.op](use))
        elif node.op not in _DROPPED:
            raise _impure(node)

    def _assign(self, handle: Handle, name: str, value: str) -> None:
        emit = self._emitter.emit
        handle.value = emit(f"{name}/assigned", "Identity", (value,), T=handle.dtype)
        if not self._emitter.in_function:
            self.cuts.append((handle.source.removesuffix(":0"), handle.value))


@dataclass(frozen=True)
class _Use:
    """One operation on a variable.

    Attributes:
        emitter: writes what takes its place.
        node: the operation.
        handle: the variable.
        inputs: what else it is given.
    """

    emitter: Emitter
    node: Any
    handle: Handle
    inputs: Sequence[str]

    @property
    def output(self) -> str:
        """The name of what it gives."""
        return first_output(self.node, self.emitter.in_function)

    def emit(self, part: str, op: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Write a part of what takes the operation's place; the part that gives what it gave is
        `""`.
        """
        name = f"{self.node.name}/{part}" if part else self.node.name
        return self.emitter.emit(name, op, inputs, **attributes)

    def constant(self, part: str, value: int, dtype: tf.DType = tf.int32) -> str:
        """Write a constant."""
        return self.emitter.constant(f"{self.node.name}/{part}", value, dtype)


# -- what is read: each writes a node that gives what the operation gave ---------------------


def _read(use: _Use) -> None:
    # A node of its own: the handle's name now also names the value.
    same = use.emit("", "Identity", (use.handle.value,), T=use.handle.dtype)
    use.emitter.rename(use.output, same)


def _gather(use: _Use) -> None:
    axis = use.constant("axis", int(use.node.attr["batch_dims"].i))
    use.emit(
        "",
        "GatherV2",
        (use.handle.value, use.inputs[0], axis),
        Tparams=use.handle.dtype,
        Tindices=use.node.attr["Tindices"].type,
        Taxis=_WHOLE,
        batch_dims=use.node.attr["batch_dims"],
    )


def _gather_nd(use: _Use) -> None:
    types = {"Tparams": use.handle.dtype, "Tindices": use.node.attr["Tindices"].type}
    use.emit("", "GatherNd", (use.handle.value, use.inputs[0]), **types)


def _shape(use: _Use) -> None:
    types = {"T": use.handle.dtype, "out_type": use.node.attr["out_type"].type}
    use.emit("", "Shape", (use.handle.value,), **types)


def _read_and_skip(use: _Use) -> None:
    """The state of a random generator, which moves on; that it does is no assignment to follow."""
    handle = use.handle
    _read(use)
    step = use.constant("step", _SKIP, tf.int64)
    handle.value = use.emit("skipped", "AddV2", (handle.value, step), T=handle.dtype)


# -- what is assigned: each gives the tensor that the variable is from then on ---------------


def _assigned(use: _Use) -> str:
    return use.inputs[0]


def _sum(use: _Use) -> str:
    return use.emit("sum", "AddV2", (use.handle.value, use.inputs[0]), T=use.handle.dtype)


def _difference(use: _Use) -> str:
    return use.emit("difference", "Sub", (use.handle.value, use.inputs[0]), T=use.handle.dtype)


def _scattered_rows(use: _Use) -> str:
    axis = use.constant("axis", -1)
    types = {"T": use.node.attr["Tindices"].type, "Tdim": _WHOLE}
    return _scattered(use, use.emit("indices", "ExpandDims", (use.inputs[0], axis), **types))


def _scattered_entries(use: _Use) -> str:
    return _scattered(use, use.inputs[0])


def _scattered(use: _Use, indices: str) -> str:
    op = use.node.op.replace("Resource", "Tensor").replace("Nd", "")
    types = {"T": use.handle.dtype, "Tindices": use.node.attr["Tindices"].type}
    return use.emit("scattered", op, (use.handle.value, indices, use.inputs[1]), **types)


_READING: dict[str, Callable[[_Use], None]] = {
    "ReadVariableOp": _read,
    "ResourceGather": _gather,
    "ResourceGatherNd": _gather_nd,
    "VariableShape": _shape,
    "RngReadAndSkip": _read_and_skip,
}
_ASSIGNED: dict[str, Callable[[_Use], str]] = {
    "AssignVariableOp": _assigned,
    "AssignAddVariableOp": _sum,
    "AssignSubVariableOp": _difference,
    "ResourceScatterAdd": _scattered_rows,
    "ResourceScatterSub": _scattered_rows,
    "ResourceScatterUpdate": _scattered_rows,
    "ResourceScatterNdAdd": _scattered_entries,
    "ResourceScatterNdSub": _scattered_entries,
    "ResourceScatterNdUpdate": _scattered_entries,
}
_DROPPED = frozenset({"DestroyResourceOp", "VarIsInitializedOp"})

_WHOLE = tf.int32.as_datatype_enum

_SKIP = 1_000_003
"""How far a generator's state moves on where numbers are drawn: anywhere else will do."""


def _impure(node: Any) -> TraceError:
    return TraceError(
        "Operations of the training step may only read, gather or assign variables. Received: "
        f"op={node.op!r} ({node.name}). Move it out of the step, or check with loss_fn."
    )
