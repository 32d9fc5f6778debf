"""Listening to a training step while it is traced: its tapes, its optimizers, its layers."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import tensorflow as tf

from tfcheck.errors import telling_line
from tfcheck.internals import copy_mask, live_variable, recorded_losses, sublayers


@dataclass(frozen=True, eq=False)
class TapeCall:
    """One call of `tape.gradient`.

    Attributes:
        targets: the tensors that were differentiated.
        output_gradients: their weights, or None each for one.
        sources: what they were differentiated with respect to: variables, or tensors of the graph
            at which it can be cut.
        gradients: the gradient of each as a dense tensor, or None where the tape gave None.
        error: what the tape raised instead of giving gradients, `""` where it did not.
        names: a name for each source that is a tensor of the graph; empty where they need none.
        weights: scalars that the target was multiplied with or divided by.
        spans: while which operations of the graph, by their positions, the tape recorded; empty
            where that is not known.
    """

    targets: tuple[tf.Tensor, ...]
    output_gradients: tuple[tf.Tensor | None, ...]
    sources: tuple[Any, ...]
    gradients: tuple[tf.Tensor | None, ...]
    error: str = ""
    names: tuple[str, ...] = ()
    weights: tuple[tf.Tensor, ...] = ()
    spans: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, eq=False)
class LayerCall:
    """One call of a layer within the step, differentiated by itself.

    Attributes:
        path: the layer's Keras path.
        call: its outputs, weighted at random, against its inputs and its trainable variables.
        children: the calls of other layers that were made in it.
    """

    path: str
    call: TapeCall
    children: tuple[LayerCall, ...]


@dataclass(frozen=True)
class Applied:
    """One gradient as handed to an optimizer, as a dense tensor, and the variable it was for."""

    gradient: tf.Tensor
    variable: Any
    optimizer: Any


@dataclass
class Recording:
    """What was heard during a trace.

    Attributes:
        tape_calls: the tapes' calls for variables.
        loss_calls: the same losses against the outputs of the outermost layers, in the same order;
            like `layer_calls` only where layers were listened to.
        layer_calls: the layers' calls, inner ones before those they were made in.
        applied: what the optimizers were given.
        loss_scales: scaled losses, each with the loss before.
        known: the model's Keras variables by the identity of the `tf.Variable` behind each, which
            a step may use in its place.
        expected: variables that the step is expected to differentiate for.
        uses_loss_objects: whether a `keras.losses.Loss` was called, such as the compiled one.
        tapes: each tape that was used in a graph, by identity, and while which operations.
        reached: those of them that a tape reaches, by identity, whether or not it was asked.
    """

    tape_calls: list[TapeCall] = field(default_factory=list)
    loss_calls: list[TapeCall] = field(default_factory=list)
    layer_calls: list[LayerCall] = field(default_factory=list)
    outputs: list[tf.Tensor] = field(default_factory=list)
    applied: list[Applied] = field(default_factory=list)
    loss_scales: list[tuple[tf.Tensor, tf.Tensor]] = field(default_factory=list)
    known: Mapping[int, Any] = field(default_factory=dict)
    expected: tuple[Any, ...] = ()
    uses_loss_objects: bool = False
    tapes: dict[int, tuple[Any, list[tuple[int, int | None]]]] = field(default_factory=dict)
    reached: dict[int, Any] = field(default_factory=dict)

    def records(self, tape: tf.GradientTape, *, on: bool) -> None:
        """Note that a tape begins or ceases to record, where a graph is traced."""
        if tf.executing_eagerly():
            return
        _, spans = self.tapes.setdefault(id(tape), (tape, []))
        now = len(tf.compat.v1.get_default_graph().get_operations())
        if on:
            spans.append((now, None))
        elif spans:
            spans[-1] = (spans[-1][0], now)

    def spans_of(self, tape: tf.GradientTape) -> tuple[tuple[int, int], ...]:
        """While which operations a tape recorded, up to now."""
        _, spans = self.tapes.get(id(tape), (tape, []))
        if not spans:
            return ()
        now = len(tf.compat.v1.get_default_graph().get_operations())
        return tuple((start, now if end is None else end) for start, end in spans)

    def known_as(self, variable: Any) -> Any:
        """The model's Keras variable, where this is the `tf.Variable` behind one."""
        return self.known.get(id(variable), variable)


_NONE = tf.UnconnectedGradients.NONE

_lock = threading.RLock()


@contextlib.contextmanager
def listening(recording: Recording) -> Iterator[None]:
    """Record tapes and optimizers while the block runs; optimizers then apply nothing."""
    with _lock, contextlib.ExitStack() as undo:
        put = functools.partial(put_in_place, undo)
        base = keras.optimizers.Optimizer
        put(tf.GradientTape, "gradient", _recorded_gradient(recording))
        put(tf.GradientTape, "__enter__", _recording_begins(recording))
        put(tf.GradientTape, "__exit__", _recording_ends(recording))
        put(tf.GradientTape, "stop_recording", _recording_pauses(recording))
        put(keras.Model, "compute_metrics", lambda *_args, **_kwargs: {})
        put(base, "apply", _recorded_apply(recording))
        put(base, "apply_gradients", _recorded_apply_gradients)
        put(keras.losses.Loss, "__call__", _noted_loss(recording))
        for optimizer in (base, *_descendants(base)):
            if "apply" in vars(optimizer) and optimizer is not base:
                put(optimizer, "apply", _recorded_apply(recording))
            if "scale_loss" in vars(optimizer):
                scale_loss = _recorded_scale(recording, vars(optimizer)["scale_loss"])
                put(optimizer, "scale_loss", scale_loss)
        yield


def put_in_place(undo: contextlib.ExitStack, owner: type, name: str, value: Any) -> None:
    """Give a class another attribute, until `undo` is closed."""
    if name in vars(owner):
        undo.callback(setattr, owner, name, vars(owner)[name])
    else:
        undo.callback(delattr, owner, name)
    setattr(owner, name, value)


def _descendants(cls: type) -> list[type]:
    children: list[type] = cls.__subclasses__()
    return list(dict.fromkeys([*children, *(d for child in children for d in _descendants(child))]))


def _recorded_gradient(recording: Recording) -> Callable[..., Any]:
    original = tf.GradientTape.gradient

    @functools.wraps(original)
    def gradient(
        self: tf.GradientTape,
        target: Any,
        sources: Any,
        output_gradients: Any = None,
        **options: Any,
    ) -> Any:
        outputs = list(recording.outputs)
        flat_sources = tf.nest.flatten(sources)
        asked = {id(recording.known_as(source)) for source in flat_sources}
        connected = options.get("unconnected_gradients", _NONE) in (_NONE, _NONE.value)
        expected = recording.expected if connected else ()
        others = [variable for variable in expected if id(variable) not in asked]
        raised = ""
        try:
            result, to_outputs, to_others = original(
                self, target, [sources, outputs, others], output_gradients, **options
            )
            for variable, gradient in zip(others, to_others, strict=True):
                if gradient is not None:
                    recording.reached[id(variable)] = variable
            flat_results = tf.nest.flatten(result, expand_composites=False)
        except Exception as error:  # noqa: BLE001 - a finding; the step goes on with zeros
            raised = what_raised(error)
            result = tf.nest.map_structure(tf.zeros_like, sources)
            flat_results, to_outputs = [None] * len(flat_sources), [None] * len(outputs)
        pairs = [
            (
                recording.known_as(source),
                None if gradient is None else tf.convert_to_tensor(gradient),
            )
            for source, gradient in zip(flat_sources, flat_results, strict=True)
            if is_variable(source)
        ]
        if pairs:
            targets = tuple(tf.nest.flatten(target))
            weights = (
                (None,) * len(targets)
                if output_gradients is None
                else tuple(tf.nest.flatten(output_gradients))
            )
            variables, gradients = zip(*pairs, strict=True)
            spans = recording.spans_of(self)
            call = TapeCall(targets, weights, variables, gradients, raised, spans=spans)
            recording.tape_calls.append(replace(call, weights=_weights_of(targets)))
            reached = [(o, g) for o, g in zip(outputs, to_outputs, strict=True) if g is not None]
            # One call each: an output may be computed from another.
            recording.loss_calls += [
                TapeCall(
                    targets, weights, (output,), (tf.convert_to_tensor(gradient),), spans=spans
                )
                for output, gradient in reached
            ]
        return result

    return gradient


def _recording_begins(recording: Recording) -> Callable[..., Any]:
    original = vars(tf.GradientTape)["__enter__"]

    def enter(self: tf.GradientTape) -> tf.GradientTape:
        recording.records(self, on=True)
        return original(self)

    return enter


def _recording_ends(recording: Recording) -> Callable[..., Any]:
    original = vars(tf.GradientTape)["__exit__"]

    def leave(self: tf.GradientTape, *error: Any) -> Any:
        recording.records(self, on=False)
        return original(self, *error)

    return leave


def _recording_pauses(recording: Recording) -> Callable[..., Any]:
    original = vars(tf.GradientTape)["stop_recording"]

    @contextlib.contextmanager
    def pause(self: tf.GradientTape) -> Iterator[None]:
        recording.records(self, on=False)
        with original(self):
            yield
        recording.records(self, on=True)

    return pause


def _weights_of(targets: Sequence[tf.Tensor]) -> tuple[tf.Tensor, ...]:
    """The scalars that one target was last multiplied with or divided by, as a loss scale is."""
    weights: list[tf.Tensor] = []
    tensor = targets[0] if len(targets) == 1 else None
    while isinstance(tensor, tf.Tensor) and hasattr(tensor, "graph"):
        operation = tensor.op
        if operation.type in ("Identity", "Cast"):
            (tensor,) = operation.inputs
        elif operation.type in ("Mul", "RealDiv") and tensor.shape.rank == 0:
            first, second = operation.inputs
            one = second if _leads_to_a_loss(first) else first
            tensor = first if one is second else second
            weights.append(one)
        else:
            break
    return tuple(weights)


def _leads_to_a_loss(tensor: tf.Tensor) -> bool:
    """Whether a factor is computed in the step, rather than a constant or a variable's value."""
    while tensor.op.type in ("Identity", "Cast"):
        (tensor,) = tensor.op.inputs
    return tensor.op.type not in ("Const", "ReadVariableOp", "Placeholder")


def _recorded_apply(recording: Recording) -> Callable[..., None]:
    def apply(self: Any, grads: Any, trainable_variables: Any = None) -> None:
        # Without variables the gradients are for those the optimizer was built with.
        variables = trainable_variables or getattr(self, "_trainable_variables", ())
        recording.applied += [
            Applied(tf.convert_to_tensor(gradient), recording.known_as(variable), self)
            for gradient, variable in zip(grads, variables, strict=False)
            if gradient is not None
        ]

    return apply


def _recorded_apply_gradients(self: Any, grads_and_vars: Any, **_options: Any) -> None:
    # Keras's own rejects an empty list, which is what is left where every gradient is None.
    pairs = list(grads_and_vars)
    self.apply([gradient for gradient, _ in pairs], [variable for _, variable in pairs])


def _noted_loss(recording: Recording) -> Callable[..., Any]:
    original = vars(keras.losses.Loss)["__call__"]

    @functools.wraps(original)
    def call(self: Any, *args: Any, **options: Any) -> Any:
        recording.uses_loss_objects = True
        return original(self, *args, **options)

    return call


def _recorded_scale(recording: Recording, original: Callable[..., Any]) -> Callable[..., Any]:
    def scale_loss(self: Any, loss: Any) -> Any:
        scaled = original(self, loss)
        if scaled is not loss:
            recording.loss_scales.append((scaled, loss))
        return scaled

    return scale_loss


@contextlib.contextmanager
def listening_to_layers(recording: Recording) -> Iterator[None]:
    """Differentiate every layer call of the graph being traced by itself, where it is made.

    Each layer gets its inputs through an identity, at which the graph can be cut, and a tape of its
    own. Calls inside loops and nested functions belong to other graphs and are left alone.
    """
    graph = tf.compat.v1.get_default_graph()
    original = keras.Layer.__call__
    stack: list[list[LayerCall]] = [[]]

    def call(self: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        if tf.compat.v1.get_default_graph() is not graph:
            return original(self, *args, **kwargs)
        inputs: list[tf.Tensor] = []
        args, kwargs = tf.nest.map_structure(lambda leaf: cut(leaf, inputs), (args, kwargs))
        stack.append([])
        added_before = {id(loss) for loss in recorded_losses(self)[0]}
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = original(self, *args, **kwargs)
        children = stack.pop()
        added = [loss for loss in recorded_losses(self)[0] if id(loss) not in added_before]
        targets = [leaf for leaf in (*tf.nest.flatten(outputs), *added) if is_float(leaf)]
        sources = [*inputs, *self.trainable_variables]
        if targets and sources:
            layer_call = LayerCall(
                self.path or self.name,
                differentiated(tape, targets, sources),
                tuple(children),
            )
            recording.layer_calls.append(layer_call)
            stack[-1].append(layer_call)
        if len(stack) == 1:
            outputs = tf.nest.map_structure(lambda leaf: cut(leaf, recording.outputs), outputs)
        return outputs

    keras.Layer.__call__ = call
    try:
        yield
    finally:
        keras.Layer.__call__ = original


def listen_to_regularizers(model: keras.Layer, recording: Recording) -> None:
    """Differentiate the regularizer of every trainable variable by itself, as its layer's part."""
    # Outer layers come first, so that the innermost one remains.
    owners = {
        id(variable): (layer, variable)
        for layer in sublayers(model)
        for variable in layer.trainable_variables
    }
    for layer, variable in owners.values():
        if getattr(variable, "regularizer", None) is None:
            continue
        with tf.GradientTape() as tape:
            target = tf.convert_to_tensor(variable.regularizer(variable))
        if is_float(target):
            call = differentiated(tape, [target], [variable])
            recording.layer_calls.append(LayerCall(layer.path or layer.name, call, ()))


@dataclass(frozen=True, eq=False)
class EagerCall:
    """One call of a layer in a step that runs eagerly.

    Attributes:
        layer: the layer.
        arguments: the positional and the keyword arguments it was given.
        children: the calls of other layers that were made in it.
    """

    layer: keras.Layer
    arguments: tuple[tuple[Any, ...], dict[str, Any]]
    children: tuple[EagerCall, ...]


@contextlib.contextmanager
def noting_layers(calls: list[EagerCall]) -> Iterator[None]:
    """Note every layer call that is made eagerly, inner ones before those they are made in."""
    original = keras.Layer.__call__
    stack: list[list[EagerCall]] = [[]]

    def call(self: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        if not tf.executing_eagerly():
            return original(self, *args, **kwargs)
        stack.append([])
        outputs = original(self, *args, **kwargs)
        noted = EagerCall(self, (args, kwargs), tuple(stack.pop()))
        calls.append(noted)
        stack[-1].append(noted)
        return outputs

    keras.Layer.__call__ = call
    try:
        yield
    finally:
        keras.Layer.__call__ = original


def differentiated(
    tape: tf.GradientTape,
    targets: Sequence[tf.Tensor],
    sources: Sequence[Any],
    names: Sequence[str] = (),
) -> TapeCall:
    """Ask a tape for gradients of randomly weighted targets, and take down what it does.

    Args:
        tape: the tape.
        targets: what is differentiated.
        sources: tensors and variables to differentiate with respect to.
        names: names for the sources. Defaults to none.
    """
    differentiate = vars(tf.GradientTape)["gradient"].__wrapped__
    weights = [_cotangent(target, position) for position, target in enumerate(targets)]
    raised = ""
    try:
        found = differentiate(tape, targets, list(map(live_variable, sources)), weights)
        gradients = tuple(None if g is None else tf.convert_to_tensor(g) for g in found)
    except Exception as error:  # noqa: BLE001 - whatever a tape raises is a finding
        raised = what_raised(error)
        gradients = (None,) * len(sources)
    return TapeCall(tuple(targets), tuple(weights), tuple(sources), gradients, raised, tuple(names))


def what_raised(error: Exception) -> str:
    """An exception of a tape in one line."""
    return f"{type(error).__name__}: {telling_line(str(error))}"


def is_float(leaf: Any) -> bool:
    """Whether this is a tensor of floats."""
    return isinstance(leaf, tf.Tensor) and leaf.dtype.is_floating


def cut(leaf: Any, cuts: list[tf.Tensor]) -> Any:
    """A float tensor through an identity, at which the graph can be cut; all else as it is."""
    if not is_float(leaf):
        return leaf
    identity = tf.identity(leaf)
    copy_mask(leaf, identity)
    cuts.append(identity)
    return identity


def _cotangent(output: tf.Tensor, position: int) -> tf.Tensor:
    """Random weights for a layer's output, the same at every evaluation."""
    shape = output.shape if output.shape.is_fully_defined() else tf.shape(output)
    return tf.cast(tf.random.stateless_normal(shape, seed=(position, 7)), output.dtype)


def is_variable(value: Any) -> bool:
    """Whether this is a Keras or TensorFlow variable."""
    return isinstance(value, keras.Variable | tf.Variable)
