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

import itertools
import zlib
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from tfcheck.errors import TraceError
from tfcheck.graph.nodes import (
    KEPT_MARKS,
    called_functions,
    canonical,
    copy_node,
    downstream,
    first_output,
    functions_behind,
    functions_of,
    output_refs,
    reachable,
    set_types,
    tensor_types,
    types_of,
)
from tfcheck.internals import op_definition
from tfcheck.promote.float64_forms import float64_form
from tfcheck.promote.saturation import unsaturated
from tfcheck.promote.types import (
    DRAWING,
    FOREIGN,
    HIGH,
    MIDDLE,
    RANDOM,
    STATELESS,
    TYPED_BY_MEANING,
    has_form,
    promote_constant,
    raised,
)

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
_SKIP = 1_000_003
"""How far a generator's state moves on where numbers are drawn: anywhere else will do."""

_DROPPED_VARIABLE_OPS = frozenset({"DestroyResourceOp", "VarIsInitializedOp"})
_SCATTERS = {
    "ResourceScatterAdd": "TensorScatterAdd",
    "ResourceScatterSub": "TensorScatterSub",
    "ResourceScatterUpdate": "TensorScatterUpdate",
    "ResourceScatterNdAdd": "TensorScatterAdd",
    "ResourceScatterNdSub": "TensorScatterSub",
    "ResourceScatterNdUpdate": "TensorScatterUpdate",
}


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
    program = _Program(functions, promote)
    body = _Body(program)
    for node in graph_def.node:
        body.add(node, variables)
    names = {name: body.resolve(canonical(name, in_function=False)) for name in fetches}
    cuts = tuple(Cut(variable, tensor) for variable, tensor in body.cuts)
    wanted = [*names.values(), *(cut.tensor for cut in cuts)]

    result = tf.compat.v1.GraphDef()
    result.versions.CopyFrom(graph_def.versions)
    result.node.extend(reachable(body.nodes, wanted))
    result.library.function.extend(program.finished.values())
    kept = {node.name for node in result.node}
    moving = {name for name, spec in variables.items() if spec.dtype.is_floating}
    moving |= {names[source].split(":")[0] for source in sources}
    moved = downstream(result.node, moving)

    # What a metric assigns to its variables is in the graph, too, and no part of any fetch.
    fetched = reachable(body.nodes, names.values())

    def noted(notes: Iterable[_Note], among: Set[str]) -> tuple[str, ...]:
        calling = [node for node in fetched if node.name in among]
        bodies = functions_behind(calling, program.finished)
        inside = {(name, node.name) for name, body in bodies.items() for node in body.node_def}
        inside |= {("", node.name) for node in calling}
        chosen = (note for note in notes if (note.function, note.node) in inside)
        return tuple(dict.fromkeys(f"{note.op} ({note.node})" for note in chosen))

    return PureGraph(
        result,
        names,
        cuts,
        {
            ref: body.resolve(ref)
            for ref, discrete in body.drawn
            if ref.split(":")[0] in kept and (discrete or ref.split(":")[0] not in moved)
        },
        noted(program.islands, moved),
        noted(program.random_ops, kept),
        frozenset(
            ref.split(":")[0]
            for ref in body.sampled
            if ref.split(":")[0] in kept and ref.split(":")[0] in moved
        ),
    )


@dataclass(frozen=True)
class _Note:
    """An operation that a reader should know of.

    Attributes:
        op: its type.
        node: its name.
        function: the function that it is in, as rewritten; `""` for none.
    """

    op: str
    node: str
    function: str


# TensorFlow keeps one namespace of functions for the whole process.
_serial = itertools.count()

# A function's arguments: None for a plain tensor, a DataType for a variable's handle that has
# become a value of that (already promoted) type.
_Kinds = tuple[int | None, ...]


@dataclass
class _Specialised:
    """A function rewritten for one combination of argument kinds."""

    name: str
    result_kinds: _Kinds


@dataclass
class _Program:
    """The functions of a graph, rewritten on demand, and what was noticed on the way."""

    functions: Mapping[str, Any]
    promote: bool
    finished: dict[str, Any] = field(default_factory=dict)
    islands: list[_Note] = field(default_factory=list)
    random_ops: list[_Note] = field(default_factory=list)
    _memo: dict[tuple[str, _Kinds], _Specialised] = field(default_factory=dict)

    def visible(self, dtype: int) -> int:
        """The type under which a tensor of this type is passed around in the new graph."""
        return HIGH.get(dtype, dtype) if self.promote else dtype

    def specialise(self, name: str, kinds: _Kinds) -> _Specialised:
        """Rewrite a function for these argument kinds, once."""
        key = (name, kinds)
        if key not in self._memo:
            new_name = f"{name}_pure{next(_serial)}"
            self._memo[key] = _Specialised(new_name, ())
            self._memo[key] = self._rewrite(self.functions[name], new_name, kinds)
        return self._memo[key]

    def keep(self, name: str) -> None:
        """Take a function over as it is, with all it calls."""
        if name in self.finished or name not in self.functions:
            return
        self.finished[name] = self.functions[name]
        for node in self.functions[name].node_def:
            for called in called_functions(node):
                self.keep(called)

    def _rewrite(self, function: Any, new_name: str, kinds: _Kinds) -> _Specialised:
        body = _Body(self, new_name)
        result = tf.compat.v1.GraphDef().library.function.add()
        result.CopyFrom(function)
        result.ClearField("node_def")
        result.ClearField("control_ret")
        result.ClearField("arg_attr")
        result.ClearField("resource_arg_unique_id")
        for mark in set(result.attr) - KEPT_MARKS:
            del result.attr[mark]
        signature = result.signature
        signature.name = new_name
        signature.ClearField("control_output")
        for argument, kind in zip(signature.input_arg, kinds, strict=True):
            argument.ClearField("handle_data")
            if kind is None:
                argument.type = self.visible(argument.type)
            else:
                argument.type = kind
                body.declare_variable(argument.name, kind)
        for node in function.node_def:
            body.add(node, {})
        result_kinds: list[int | None] = []
        for output in signature.output_arg:
            output.ClearField("handle_data")
            ref = body.resolve(canonical(function.ret[output.name], in_function=True))
            handle = body.handles.get(ref)
            if handle is not None:
                ref = handle.value
                output.type = handle.dtype
            else:
                output.type = self.visible(output.type)
            result_kinds.append(handle.dtype if handle else None)
            result.ret[output.name] = ref
        result.node_def.extend(reachable(body.nodes, result.ret.values()))
        self.finished[new_name] = result
        return _Specialised(new_name, tuple(result_kinds))


@dataclass
class _Handle:
    """A variable within one body: where it came from and what a read sees now."""

    source: str
    dtype: int
    value: str


class _Body:
    """The nodes of one graph or function while they are rewritten, in program order."""

    def __init__(self, program: _Program, function: str = "") -> None:
        self.program = program
        self.function = function
        self.in_function = bool(function)
        self.nodes: dict[str, Any] = {}
        self.handles: dict[str, _Handle] = {}
        self.cuts: list[tuple[str, str]] = []
        self.drawn: list[tuple[str, bool]] = []
        self.sampled: list[str] = []
        self._alias: dict[str, str] = {}

    def resolve(self, ref: str) -> str:
        return self._alias.get(ref, ref)

    def declare_variable(self, ref: str, dtype: int) -> None:
        self.handles[ref] = _Handle(ref, dtype, ref)

    def add(self, node: Any, variables: Mapping[str, tf.TensorSpec]) -> None:
        """Rewrite one node. `variables` names the placeholders that are variable handles."""
        if node.op == "Placeholder" and node.name in variables:
            spec = variables[node.name]
            dtype = self.program.visible(spec.dtype.as_datatype_enum)
            shape = tf.compat.v1.AttrValue(shape=spec.shape.as_proto())
            self._emit(node.name, "Placeholder", (), dtype=dtype, shape=shape)
            self.declare_variable(f"{node.name}:0", dtype)
            return
        inputs = [
            self.resolve(canonical(ref, self.in_function))
            for ref in node.input
            if not ref.startswith("^")
        ]
        if node.op in self.program.functions:
            self._add_named_call(node, inputs)
        elif node.op in _CALLS and any(
            name in self.program.functions for name in called_functions(node)
        ):
            self._add_call(node, inputs)
        elif any(ref in self.handles for ref in inputs):
            self._add_variable_op(node, inputs)
        else:
            self._add_plain(node, inputs)

    # -- plain operations ------------------------------------------------------------------

    def _add_plain(self, node: Any, inputs: list[str]) -> None:
        definition = op_definition(node.op)
        if definition is None:
            raise TraceError(
                f"Every operation of the training step must be one TensorFlow knows. Received: "
                f"op={node.op!r}. Load the library that defines it before the check."
            )
        if self._fix_draw(node, inputs):
            return
        if node.op == "Cast" and self.program.promote:
            inputs[0] = unsaturated(self.nodes, inputs[0], node.attr["DstT"].type)
        new = copy_node(node, inputs)
        if not self.program.promote:
            self._keep_functions(new)
            self.nodes[new.name] = new
            self._note_random(node, definition)
            return
        if self._replace(node, definition, inputs):
            return
        island = not self._promote_attributes(new, definition)
        wanted = tensor_types(new, definition.input_arg)
        original = tensor_types(node, definition.input_arg)
        for position, (is_now, was) in enumerate(zip(wanted, original, strict=True)):
            visible = self.program.visible(was)
            if visible != is_now:
                island = True
                new.input[position] = self._cast(
                    f"{node.name}/to_island_{position}", inputs[position], visible, is_now
                )
        self.nodes[new.name] = new
        made = tensor_types(new, definition.output_arg)
        meant = tensor_types(node, definition.output_arg)
        refs = output_refs(new, definition, self.in_function)
        for position, (ref, is_now, was) in enumerate(zip(refs, made, meant, strict=True)):
            visible = self.program.visible(was)
            if visible != is_now:
                self._alias[ref] = self._cast(
                    f"{node.name}/from_island_{position}", ref, is_now, visible
                )
                island = True
        random = self._note_random(node, definition)
        if island and not random:
            self.program.islands.append(_Note(node.op, node.name, self.function))

    def _replace(self, node: Any, definition: Any, inputs: list[str]) -> bool:
        """Put an operation's float64 form in its place, if there is one."""
        form = float64_form(node)
        if form is None:
            return False
        self.program.finished[form.signature.name] = form
        call = tf.compat.v1.NodeDef(name=node.name, op="PartitionedCall", input=inputs)
        call.attr["f"].func.name = form.signature.name
        call.attr["Tin"].list.type.extend(a.type for a in form.signature.input_arg)
        call.attr["Tout"].list.type.extend(a.type for a in form.signature.output_arg)
        self.nodes[node.name] = call
        if self.in_function:
            for position, argument in enumerate(definition.output_arg):
                new = f"{node.name}:output:{position}"
                self._alias[f"{node.name}:{argument.name}:0"] = new
        return True

    def _note_random(self, node: Any, definition: Any) -> bool:
        random = bool(RANDOM.match(node.op))
        if random and any(
            tf.as_dtype(dtype).is_floating for dtype in tensor_types(node, definition.output_arg)
        ):
            self.sampled.append(node.name)
        if (random and definition.is_stateful) or (node.op in DRAWING and not self.in_function):
            self.program.random_ops.append(_Note(node.op, node.name, self.function))
        elif node.op not in FOREIGN or self.in_function:
            return random
        refs = output_refs(node, definition, self.in_function)
        types = tensor_types(node, definition.output_arg)
        self.drawn += [
            (ref, not tf.as_dtype(dtype).is_floating)
            for ref, dtype in zip(refs, types, strict=True)
        ]
        return random

    def _fix_draw(self, node: Any, inputs: list[str]) -> bool:
        """Rewrite a random operation so that what it draws can be held fixed, if it must be."""
        if node.op == "RandomShuffle" and not self.in_function:
            self._shuffle(node, inputs[0])
            return True
        stateless = STATELESS.get(node.op)
        if stateless is None or not self.in_function:
            return False
        # In a function there is nothing to feed, so a seed takes the place of a state.
        digest = zlib.crc32(node.name.encode())
        seed = self._constant(f"{node.name}/seed", [digest & 0xFFFF, digest >> 16])
        dtype = node.attr["dtype" if "dtype" in node.attr else "Tout"].type
        types = {"dtype": dtype, "T": node.attr["T"].type, "Tseed": tf.int32.as_datatype_enum}
        ref = self._emit(node.name, stateless, (inputs[0], seed, *inputs[1:]), **types)
        visible = self.program.visible(dtype)
        if visible != dtype:
            self._alias[ref] = self._cast(f"{node.name}/raised", ref, dtype, visible)
        return True

    def _shuffle(self, node: Any, value: str) -> None:
        """Shuffling as gathering by a random permutation, which can be held fixed."""
        whole = tf.int32.as_datatype_enum
        name, dtype = node.name, self.program.visible(node.attr["T"].type)
        zero = self._constant(f"{name}/zero", 0)
        shape = self._emit(f"{name}/shape", "Shape", (value,), T=dtype, out_type=whole)
        types = {"Tindices": whole, "Taxis": whole}
        count = self._emit(f"{name}/count", "GatherV2", (shape, zero, zero), Tparams=whole, **types)
        one = self._constant(f"{name}/one", 1)
        order = self._emit(f"{name}/order", "Range", (zero, count, one), Tidx=whole)
        # Where operations must be deterministic, one without a seed is refused.
        seeds = {key: node.attr[key] for key in ("seed", "seed2")}
        permutation = self._emit(f"{name}/permutation", "RandomShuffle", (order,), T=whole, **seeds)
        self._emit(name, "GatherV2", (value, permutation, zero), Tparams=dtype, **types)
        self.program.random_ops.append(_Note(node.op, f"{name}/permutation", self.function))
        self.drawn.append((permutation, True))

    def _promote_attributes(self, node: Any, definition: Any) -> bool:
        """Set a node's types to the highest precision with a kernel; False if below float64."""
        attributes = {
            attribute.name: attribute
            for attribute in definition.attr
            if attribute.type in ("type", "list(type)")
        }
        low = {
            name
            for name in attributes
            if name in node.attr and HIGH.keys() & types_of(node.attr[name])
        }
        if self._keep_functions(node) or node.op in TYPED_BY_MEANING:
            return not low
        if node.op == "Const":
            promote_constant(node)
            return True
        if not low:
            return True
        if RANDOM.match(node.op):
            return False  # in another precision it draws other numbers
        for candidate in (HIGH, MIDDLE):
            types = {name: raised(node.attr[name], candidate) for name in low}
            if has_form(node.op, attributes, types):
                for name, value in types.items():
                    node.attr[name].CopyFrom(value)
                return candidate is HIGH
        return False

    def _keep_functions(self, node: Any) -> bool:
        called = list(called_functions(node))
        for name in called:
            self.program.keep(name)
        return bool(called)

    # -- calls -----------------------------------------------------------------------------

    def _add_call(self, node: Any, inputs: list[str]) -> None:
        names, tin, tout, leading = _CALLS[node.op]
        new = copy_node(node, inputs)
        arguments = inputs[leading:]
        kinds = tuple(self.handles[ref].dtype if ref in self.handles else None for ref in arguments)
        for position, ref in enumerate(arguments):
            if ref in self.handles:
                new.input[leading + position] = self.handles[ref].value
        result_kinds: _Kinds = ()
        for name in reversed(names):
            for function in functions_of(new.attr[name]):
                specialised = self.program.specialise(function.name, kinds)
                function.name = specialised.name
                function.ClearField("attr")
                result_kinds = specialised.result_kinds
        for attribute, which in ((tin, kinds), (tout, result_kinds)):
            set_types(
                new.attr[attribute],
                [
                    kind if kind is not None else self.program.visible(dtype)
                    for kind, dtype in zip(which, types_of(node.attr[attribute]), strict=True)
                ],
            )
        if "Tcond" in new.attr:
            new.attr["Tcond"].type = self.program.visible(new.attr["Tcond"].type)
        if "output_shapes" in new.attr:
            shapes = new.attr["output_shapes"].list.shape
            for shape, kind in zip(shapes, result_kinds, strict=False):
                if kind is not None:
                    shape.Clear()
                    shape.unknown_rank = True
        self.nodes[new.name] = new
        refs = output_refs(new, op_definition(node.op), self.in_function)
        for ref, kind in zip(refs, result_kinds, strict=True):
            if kind is not None:
                self.declare_variable(ref, kind)

    def _add_named_call(self, node: Any, inputs: list[str]) -> None:
        """A call in the old form, in which a function's name stands for the operation."""
        signature = self.program.functions[node.op].signature
        call = tf.compat.v1.NodeDef(name=node.name, op="StatefulPartitionedCall", input=node.input)
        call.attr["f"].func.name = node.op
        for attribute, arguments in (("Tin", signature.input_arg), ("Tout", signature.output_arg)):
            call.attr[attribute].list.SetInParent()
            call.attr[attribute].list.type.extend(argument.type for argument in arguments)
        self._add_call(call, inputs)
        if self.in_function:
            for position, argument in enumerate(signature.output_arg):
                new = f"{node.name}:output:{position}"
                self._alias[f"{node.name}:{argument.name}:0"] = new

    # -- variables -------------------------------------------------------------------------

    def _add_variable_op(self, node: Any, inputs: list[str]) -> None:
        handle = self.handles.get(inputs[0])
        if handle is None or any(ref in self.handles for ref in inputs[1:]):
            raise _impure(node)
        value, dtype, name = handle.value, handle.dtype, node.name
        ref = first_output(node, self.in_function)
        match node.op:
            case "Identity":
                self.handles[ref] = handle
            case "ReadVariableOp":
                # A node of its own: the handle's name now also names the value.
                self._alias[ref] = self._emit(name, "Identity", (value,), T=dtype)
            case "ResourceGather":
                axis = self._constant(f"{name}/axis", int(node.attr["batch_dims"].i))
                self._emit(
                    name,
                    "GatherV2",
                    (value, inputs[1], axis),
                    Tparams=dtype,
                    Tindices=node.attr["Tindices"].type,
                    Taxis=tf.int32.as_datatype_enum,
                    batch_dims=node.attr["batch_dims"],
                )
            case "ResourceGatherNd":
                self._emit(
                    name,
                    "GatherNd",
                    (value, inputs[1]),
                    Tparams=dtype,
                    Tindices=node.attr["Tindices"].type,
                )
            case "VariableShape":
                self._emit(name, "Shape", (value,), T=dtype, out_type=node.attr["out_type"].type)
            case "AssignVariableOp":
                self._assign(handle, name, inputs[1])
            case "AssignAddVariableOp":
                self._assign(
                    handle, name, self._emit(f"{name}/sum", "AddV2", (value, inputs[1]), T=dtype)
                )
            case "AssignSubVariableOp":
                self._assign(
                    handle,
                    name,
                    self._emit(f"{name}/difference", "Sub", (value, inputs[1]), T=dtype),
                )
            case op if op in _SCATTERS:
                indices = inputs[1]
                if "Nd" not in op:
                    axis = self._constant(f"{name}/axis", -1)
                    indices = self._emit(
                        f"{name}/indices",
                        "ExpandDims",
                        (indices, axis),
                        T=node.attr["Tindices"].type,
                        Tdim=tf.int32.as_datatype_enum,
                    )
                scattered = self._emit(
                    f"{name}/scattered",
                    _SCATTERS[op],
                    (value, indices, inputs[2]),
                    T=dtype,
                    Tindices=node.attr["Tindices"].type,
                )
                self._assign(handle, name, scattered)
            case "RngReadAndSkip":
                old = self._emit(name, "Identity", (value,), T=dtype)
                self._alias[ref] = old
                step = self._constant(f"{name}/step", _SKIP, tf.int64)
                handle.value = self._emit(f"{name}/skipped", "AddV2", (value, step), T=dtype)
            case op if op in _DROPPED_VARIABLE_OPS:
                pass
            case _:
                raise _impure(node)

    def _assign(self, handle: _Handle, name: str, value: str) -> None:
        handle.value = self._emit(f"{name}/assigned", "Identity", (value,), T=handle.dtype)
        if not self.in_function:
            self.cuts.append((handle.source.removesuffix(":0"), handle.value))

    # -- emitting --------------------------------------------------------------------------

    def _emit(self, name: str, op: str, inputs: Sequence[str], **attributes: Any) -> str:
        node = tf.compat.v1.NodeDef(name=name, op=op, input=inputs)
        for attribute, value in attributes.items():
            if isinstance(value, int):
                node.attr[attribute].type = value
            else:
                node.attr[attribute].CopyFrom(value)
        self.nodes[name] = node
        definition = op_definition(op)
        return output_refs(node, definition, self.in_function)[0]

    def _cast(self, name: str, ref: str, source: int, target: int) -> str:
        return self._emit(name, "Cast", (ref,), SrcT=source, DstT=target)

    def _constant(self, name: str, value: int | list[int], dtype: tf.DType = tf.int32) -> str:
        tensor = tf.make_tensor_proto(value, dtype=dtype)
        attribute = tf.compat.v1.AttrValue(tensor=tensor)
        return self._emit(name, "Const", (), value=attribute, dtype=dtype.as_datatype_enum)


def _impure(node: Any) -> TraceError:
    return TraceError(
        "Operations of the training step may only read, gather or assign variables. Received: "
        f"op={node.op!r} ({node.name}). Move it out of the step, or check with loss_fn."
    )
