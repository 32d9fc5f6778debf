"""The objective: the traced step as pure functions of plain tensors, in float64 and as trained.

An `Objective` holds one loss for each call of a tape. It can be evaluated at any point without
touching the model: variables, data and captured constants are all inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfcheck.batch import Batch
from tfcheck.directions import gaussian, generator
from tfcheck.errors import TraceError
from tfcheck.internals import variable_dtype
from tfcheck.promotion import PureGraph, purify
from tfcheck.tracing import TapeCall, TracedStep

Array = npt.NDArray[np.float64]

NUDGE = 2.0**-7
"""How far `Objective.nudged` moves the variables, relative to their scale."""


@dataclass(frozen=True, eq=False)
class Parameter:
    """One variable as one tape differentiates it.

    Attributes:
        variable: the live Keras or TensorFlow variable.
        path: its unique path in the report.
        loss: index of the loss it is differentiated for.
        inputs: indices of the inputs that hold its value: the value itself, then any value
            assigned to it within the step. Empty where the step never reads it.
    """

    variable: Any
    path: str
    loss: int
    inputs: tuple[int, ...]


@dataclass(frozen=True)
class Base:
    """The objective at the point where the model stands.

    Attributes:
        inputs: a tensor for each input of the objective, floats in float64.
        losses: value of each loss, in float64.
        losses_as_trained: the same in the training precision.
        scales: the loss scale inside each loss; 1 where there is none.
        gradients: analytic gradient for each parameter; None where the tape gave None.
    """

    inputs: tuple[tf.Tensor, ...]
    losses: tuple[float, ...]
    losses_as_trained: tuple[float, ...]
    scales: tuple[float, ...]
    gradients: tuple[Array | None, ...]


class Objective:
    """A traced training step that can be evaluated at any point.

    Attributes:
        parameters: the variables that tapes differentiate, in the order of the tapes' calls.
        source: what was traced.
        islands: operations without a float64 form.
        random_ops: operations that draw new numbers at every evaluation.
        lowest: lowest floating precision in the step as trained, such as `"float16"`.
    """

    def __init__(self, traced: TracedStep) -> None:
        recording = traced.recording
        graph = traced.function.graph
        for call in recording.tape_calls:
            for tensor in (*call.targets, *call.gradients):
                if tensor is not None and tensor.graph is not graph:
                    raise TraceError(
                        "Tapes must be used in the training step itself. Received: a tape inside a "
                        f"nested function ({tensor.graph.name!r}). Remove the inner @tf.function."
                    )
        self._traced = traced
        self.source = traced.source
        self._captured = traced.captures
        self._variable_dtypes = {
            placeholder.op.name: tf.as_dtype(dtype)
            for outside, placeholder in traced.captures
            if placeholder.dtype == tf.resource
            for dtype in [variable_dtype(outside)]
            if dtype is not None
        }
        names = [tensor.op.name for tensor in traced.placeholders]
        names += [placeholder.op.name for _, placeholder in traced.captures]

        graph_def = graph.as_graph_def()
        calls = recording.tape_calls
        scaled = {scaled.ref(): loss for scaled, loss in recording.loss_scales if tf.is_tensor(loss)}
        unscaled = [scaled.get(call.targets[0].ref()) if len(call.targets) == 1 else None for call in calls]
        fetches = [
            tensor.name
            for call, loss in zip(calls, unscaled, strict=True)
            for tensor in (*call.targets, *call.output_gradients, *call.gradients, loss)
            if tensor is not None
        ]
        pure = purify(graph_def, self._variable_dtypes, fetches)
        self.islands = pure.islands
        self.random_ops = pure.random_ops
        self.lowest = _lowest_float(graph_def)

        self._build(pure, names, calls, unscaled)
        self._build_as_trained(graph_def, names, calls)
        self._find_parameters(calls, names)
        self.evaluations = 0

    def _build(
        self,
        pure: PureGraph,
        names: Sequence[str],
        calls: Sequence[TapeCall],
        unscaled: Sequence[tf.Tensor | None],
    ) -> None:
        """Import the float64 graph: one function for the base point, one a loss for every other."""
        present = {node.name for node in pure.graph_def.node}
        self._inputs = [index for index, name in enumerate(names) if name in present]
        self._cuts = pure.cuts

        def imported() -> dict[str, Any]:
            wanted = list(dict.fromkeys([*pure.tensors.values(), *(cut.tensor for cut in pure.cuts)]))
            found = tf.graph_util.import_graph_def(pure.graph_def, return_elements=wanted, name="")
            tensors = dict(zip(wanted, found, strict=True))

            def new(tensor: tf.Tensor | None) -> tf.Tensor | None:
                return None if tensor is None else tensors[pure.tensors[tensor.name]]

            losses, held, scales, gradients = [], [tensors[cut.tensor] for cut in pure.cuts], [], []
            for call, loss in zip(calls, unscaled, strict=True):
                weights = [new(weight) for weight in call.output_gradients]
                held += [weight for weight in weights if weight is not None]
                total = _total([new(target) for target in call.targets], weights)
                losses.append(total)
                scales.append(tf.ones((), tf.float64) if loss is None else total / new(loss))
                gradients += [new(gradient) for gradient in call.gradients if gradient is not None]
            return {"losses": losses, "held": held, "scales": scales, "gradients": gradients}

        whole = tf.compat.v1.wrap_function(imported, [])
        outputs = whole.structured_outputs
        graph = whole.graph
        feeds = [graph.as_graph_element(f"{names[index]}:0") for index in self._inputs]
        held = outputs["held"]
        self._at_base = _concrete(whole, feeds, outputs)
        self._losses = [
            _concrete(whole, [*feeds, *_distinct(held)], loss) for loss in outputs["losses"]
        ]
        self._held_positions = [_position(held, tensor) for tensor in _distinct(held)]
        self._dtypes = [tensor.dtype for tensor in feeds]

    def _build_as_trained(
        self, graph_def: Any, names: Sequence[str], calls: Sequence[TapeCall]
    ) -> None:
        fetches = [
            tensor.name
            for call in calls
            for tensor in (*call.targets, *call.output_gradients)
            if tensor is not None
        ]
        pure = purify(graph_def, self._variable_dtypes, fetches, promote=False)
        present = {node.name for node in pure.graph_def.node}
        self._as_trained_inputs = [index for index, name in enumerate(names) if name in present]

        def imported() -> list[tf.Tensor]:
            wanted = list(dict.fromkeys(pure.tensors.values()))
            found = tf.graph_util.import_graph_def(pure.graph_def, return_elements=wanted, name="")
            tensors = dict(zip(wanted, found, strict=True))

            def new(tensor: tf.Tensor | None) -> tf.Tensor | None:
                return None if tensor is None else tf.cast(tensors[pure.tensors[tensor.name]], tf.float64)

            return [
                _total([new(target) for target in call.targets], [new(w) for w in call.output_gradients])
                for call in calls
            ]

        whole = tf.compat.v1.wrap_function(imported, [])
        feeds = [whole.graph.as_graph_element(f"{names[index]}:0") for index in self._as_trained_inputs]
        self._as_trained = _concrete(whole, feeds, whole.structured_outputs)

    def _find_parameters(self, calls: Sequence[TapeCall], names: Sequence[str]) -> None:
        position_of = {names[index]: position for position, index in enumerate(self._inputs)}
        placeholder_of = {
            id(outside): placeholder.op.name for outside, placeholder in self._captured
        }
        held_start = len(self._inputs)
        held_of = {position: held_start + i for i, position in enumerate(self._held_positions)}
        paths = _unique_paths([variable for call in calls for variable in call.variables])
        parameters = []
        for loss, call in enumerate(calls):
            for variable in call.variables:
                name = placeholder_of.get(id(_live(variable).handle), "")
                inputs = [position_of[name]] if name in position_of else []
                inputs += [
                    held_of[position]
                    for position, cut in enumerate(self._cuts)
                    if cut.variable == name and position in held_of
                ]
                parameters.append(Parameter(variable, paths[id(variable)], loss, tuple(inputs)))
        self.parameters = tuple(parameters)
        self._has_gradient = tuple(gradient is not None for call in calls for gradient in call.gradients)

    def at(self, batch: Batch) -> Base:
        """Evaluate losses and analytic gradients where the model stands now, on a batch.

        Args:
            batch: a batch with the shapes and dtypes that were traced.
        """
        values: list[Any] = list(batch.tensors)
        for outside, placeholder in self._captured:
            dtype = self._variable_dtypes.get(placeholder.op.name)
            values.append(
                outside if dtype is None else tf.raw_ops.ReadVariableOp(resource=outside, dtype=dtype)
            )
        as_trained = self._as_trained(*(values[index] for index in self._as_trained_inputs))
        inputs = [
            tf.cast(values[index], dtype) if dtype == tf.float64 else values[index]
            for index, dtype in zip(self._inputs, self._dtypes, strict=True)
        ]
        return self._evaluate(inputs, tuple(float(loss) for loss in as_trained))

    def nudged(self, base: Base, seed: int) -> Base:
        """The objective a little aside: every variable that is differentiated moves at random.

        A loss that is piecewise smooth has a derivative at almost every point, so a point drawn at
        random near a kink sits on none.
        """
        count = len(self._inputs)
        inputs = list(base.inputs[:count])
        for parameter in self.parameters:
            for position in parameter.inputs:
                if position < count and inputs[position] is base.inputs[position]:
                    value = np.asarray(inputs[position])
                    rng = generator(seed, parameter.path, "nudge")
                    inputs[position] = tf.constant(value + NUDGE * gaussian(rng, value))
        return self._evaluate(inputs, base.losses_as_trained)

    def _evaluate(self, inputs: Sequence[tf.Tensor], as_trained: tuple[float, ...]) -> Base:
        found = self._at_base(*inputs)
        held = [found["held"][position] for position in self._held_positions]
        scales = [float(scale) if np.isfinite(scale) and scale != 0 else 1.0 for scale in found["scales"]]
        gradients = iter(found["gradients"])
        return Base(
            inputs=(*inputs, *held),
            losses=tuple(float(loss) for loss in found["losses"]),
            losses_as_trained=as_trained,
            scales=tuple(scales),
            gradients=tuple(
                np.asarray(next(gradients), np.float64) if has else None for has in self._has_gradient
            ),
        )

    def loss(self, index: int, inputs: Sequence[tf.Tensor]) -> float:
        """Value of one loss at a point, given as one tensor for each input."""
        self.evaluations += 1
        return float(self._losses[index](*inputs))

    def along(self, base: Base, parameter: Parameter) -> Callable[[Array], float]:
        """The loss of a parameter's tape as a function of that parameter's displacement."""
        inputs = list(base.inputs)
        start = [np.asarray(inputs[position], np.float64) for position in parameter.inputs]

        def displaced(displacement: Array) -> float:
            for position, value in zip(parameter.inputs, start, strict=True):
                inputs[position] = tf.constant(value + displacement)
            return self.loss(parameter.loss, inputs)

        return displaced


def _concrete(whole: Any, feeds: Sequence[tf.Tensor], fetches: Any) -> Callable[..., Any]:
    """The part of a graph between feeds and fetches, as a function of positional tensors."""
    # A pruned function called directly describes every argument in text first, at 10 ms a call.
    pruned = whole.prune(feeds, fetches)
    specs = [tf.TensorSpec(feed.shape, feed.dtype) for feed in feeds]
    return tf.function(lambda *inputs: pruned(*inputs), autograph=False).get_concrete_function(*specs)


def _live(variable: Any) -> tf.Variable:
    return variable.value if isinstance(variable, keras.Variable) else variable


def _unique_paths(variables: Sequence[Any]) -> dict[int, str]:
    """A path for each variable; a path that several share is numbered from the second on."""
    paths: dict[int, str] = {}
    taken: dict[str, int] = {}
    for variable in variables:
        if id(variable) in paths:
            continue
        path = variable.path if isinstance(variable, keras.Variable) else variable.name.split(":")[0]
        taken[path] = taken.get(path, 0) + 1
        paths[id(variable)] = path if taken[path] == 1 else f"{path}#{taken[path]}"
    return paths


def _total(targets: Sequence[tf.Tensor], weights: Sequence[tf.Tensor | None]) -> tf.Tensor:
    """The scalar that `tape.gradient` differentiates: the weighted sum of all target entries."""
    sums = [
        tf.reduce_sum(tf.cast(target if weight is None else target * weight, tf.float64))
        for target, weight in zip(targets, weights, strict=True)
    ]
    return tf.add_n(sums)


def _distinct(tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    return list({tensor.ref(): tensor for tensor in tensors}.values())


def _position(tensors: Sequence[tf.Tensor], wanted: tf.Tensor) -> int:
    return next(index for index, tensor in enumerate(tensors) if tensor is wanted)


def _lowest_float(graph_def: Any) -> str:
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
