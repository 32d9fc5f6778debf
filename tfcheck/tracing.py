"""Tracing a model's own training step into a graph, with everything its tapes and optimizers do.

Nothing is executed, so nothing changes: the step becomes a graph exactly as `fit` makes it one,
with the model's real variables captured by handle. During the trace, and only then,
`tf.GradientTape.gradient` and the optimizers' `apply` are listened to.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import random
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfcheck.batch import Batch
from tfcheck.errors import BatchError, ModelError, TraceError
from tfcheck.internals import (
    copy_mask,
    lazily_built_parts,
    live_variable,
    recorded_losses,
    sublayers,
)
from tfcheck.silence import dropout_off

LossFunction = Callable[[keras.Model, Any, Any, Any], Any]


@dataclass(frozen=True, eq=False)
class TapeCall:
    """One call of `tape.gradient`.

    Attributes:
        targets: the tensors that were differentiated.
        output_gradients: their weights, or None each for one.
        sources: what they were differentiated with respect to: variables, or tensors of the graph
            at which it can be cut.
        gradients: the gradient of each as a dense tensor, or None where the tape gave None.
    """

    targets: tuple[tf.Tensor, ...]
    output_gradients: tuple[tf.Tensor | None, ...]
    sources: tuple[Any, ...]
    gradients: tuple[tf.Tensor | None, ...]


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
    """

    tape_calls: list[TapeCall] = field(default_factory=list)
    loss_calls: list[TapeCall] = field(default_factory=list)
    layer_calls: list[LayerCall] = field(default_factory=list)
    outputs: list[tf.Tensor] = field(default_factory=list)
    applied: list[Applied] = field(default_factory=list)
    loss_scales: list[tuple[tf.Tensor, tf.Tensor]] = field(default_factory=list)


@dataclass(frozen=True)
class TracedStep:
    """A training step as a graph.

    Attributes:
        function: the traced function; its graph holds all tensors of the recording.
        placeholders: the graph's inputs for the batch, flat.
        captures: for each captured outside tensor, that tensor and its placeholder.
        recording: the tapes and optimizers heard.
        source: `"train_step"`, `"loss_fn"` or `"compute_loss"`.
    """

    function: Any
    placeholders: tuple[tf.Tensor, ...]
    captures: tuple[tuple[Any, tf.Tensor], ...]
    recording: Recording
    source: str


def trace_step(
    model: keras.Model,
    batch: Batch,
    *,
    loss_fn: LossFunction | None = None,
    phase: str = "train",
    layers: bool = False,
) -> TracedStep:
    """Trace one training step of a built model on a batch, dropout silenced, nothing executed.

    Args:
        model: a built Keras model; compiled unless `loss_fn` is given.
        batch: the batch whose shapes and dtypes to trace with.
        loss_fn: replaces the train step: `loss_fn(model, x, y, sample_weight)` gives the loss.
        phase: `"train"` traces the model's own `train_step`; `"inference"` traces
            `compute_loss` of the model called with `training=False`.
        layers: whether to differentiate every layer call by itself, too. Defaults to False.

    Raises:
        BatchError: if the model rejects the batch.
        TraceError: if the step cannot be traced, or differentiates no variable.
    """
    if loss_fn is not None:
        source, step = "loss_fn", _loss_fn_step(model, batch, loss_fn)
    elif phase == "train":
        source, step = "train_step", _train_step(model)
    else:
        source, step = "compute_loss", _inference_step(model, batch)

    recording = Recording()
    specs = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in batch.tensors]

    @tf.autograph.experimental.do_not_convert
    def run(*tensors: tf.Tensor) -> list[tf.Tensor]:
        with listening_to_layers(recording) if layers else contextlib.nullcontext():
            step(batch.pack(tensors))
        return []

    with _unchanged(model), dropout_off(model), _listening(recording):
        try:
            function = tf.compat.v1.wrap_function(run, specs)
        except (TraceError, ModelError, KeyboardInterrupt):
            raise
        except Exception as error:
            raise _explain(error, batch, source) from error
    if not recording.tape_calls:
        raise TraceError(
            "A training step must differentiate a loss with tf.GradientTape. Received: "
            f"{source} of {type(model).__name__!r} in which no tape differentiates a variable. "
            "Check it with loss_fn."
        )
    count = len(specs)
    return TracedStep(
        function,
        tuple(function.inputs[:count]),
        tuple(zip(function.captured_inputs, function.inputs[count:], strict=True)),
        recording,
        source,
    )


def _train_step(model: keras.Model) -> Callable[[Any], Any]:
    # A train_step under @tf.function is inlined: its tensors must belong to the traced graph.
    step = model.train_step
    return getattr(step, "python_function", step)


def _loss_fn_step(model: keras.Model, batch: Batch, loss_fn: LossFunction) -> Callable[[Any], Any]:
    def step(data: Any) -> None:
        with tf.GradientTape() as tape:
            loss = loss_fn(model, *batch.parts(data))
        if not tf.is_tensor(loss) or loss.shape.rank != 0:
            raise TraceError(
                "loss_fn must return a scalar tensor. Received: "
                f"{getattr(loss, 'shape', type(loss).__name__)}. Reduce the loss, for example by "
                "its mean."
            )
        tape.gradient(loss, model.trainable_variables)

    return step


def _inference_step(model: keras.Model, batch: Batch) -> Callable[[Any], Any]:
    def step(data: Any) -> None:
        x, y, sample_weight = batch.parts(data)
        with tf.GradientTape() as tape:
            y_pred = model(x, training=False)
            loss = model.compute_loss(
                x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=False
            )
        tape.gradient(loss, model.trainable_variables)

    return step


def _explain(error: Exception, batch: Batch, source: str) -> Exception:
    shapes = ", ".join(f"{dtype}{list(shape)}" for shape, dtype in batch.signature())
    lines = [line.strip() for line in _ANSI.sub("", str(error)).splitlines() if line.strip()]
    # Keras begins with a headline that says where, and says why below it.
    telling = [line for line in lines if not line.startswith("Exception encountered when calling")]
    reason = next(iter(telling or lines), type(error).__name__).rstrip(".") + "."
    if isinstance(error, ValueError | tf.errors.InvalidArgumentError) and _ABOUT_SHAPES.search(
        reason
    ):
        return BatchError(
            f"The batch must fit the model. Received: {shapes}; {source} says: {reason} "
            "Give a batch as fit would get it."
        )
    return TraceError(
        f"A training step must be traceable as a graph. Received: {source} raises "
        f"{type(error).__name__}: {reason} See whether fit can train the model on this batch."
    )


_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_ABOUT_SHAPES = re.compile(
    r"shape|dimension|incompatible|rank|expected|batch|axis|broadcast|input", re.IGNORECASE
)


# -- leaving everything as it was ------------------------------------------------------------


@contextlib.contextmanager
def _unchanged(model: keras.Model) -> Iterator[None]:
    """Put back what a trace changes in Python: recorded losses, built parts, random states."""
    layers = list(sublayers(model))
    unbuilt = [layer for layer in layers if not layer.built]
    losses = [part for layer in layers for part in recorded_losses(layer)]
    parts = [*lazily_built_parts(model), *model.metrics, *unbuilt]
    contents: list[tuple[Any, Any]] = [(part, copy.copy(part)) for part in losses]
    contents += [
        (value, copy.copy(value))
        for part in parts
        for value in vars(part).values()
        if isinstance(value, list | dict | set)
    ]
    attributes = [(part, dict(vars(part))) for part in parts]
    python_state = random.getstate()
    numpy_state = np.random.get_state()  # noqa: NPY002 - users draw from it
    try:
        with tf.variable_creator_scope(_no_weights):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
        for part, before in attributes:
            vars(part).clear()
            vars(part).update(before)
        for container, content in contents:
            container.clear()
            if isinstance(container, list):
                container.extend(content)
            else:
                container.update(content)


def _no_weights(create: Callable[..., Any], **options: Any) -> Any:
    """Refuse to create weights during a trace: a layer that builds itself changes the model."""
    if options.get("trainable", True):
        raise ModelError(
            "A model must be built before it is checked. Received: a layer that creates the "
            f"variable {options.get('name')!r} in the training step. Call the layer once, or train "
            "for a step, before the check."
        )
    return create(**options)


# -- listening -------------------------------------------------------------------------------

_listening_lock = threading.RLock()


@contextlib.contextmanager
def _listening(recording: Recording) -> Iterator[None]:
    """Record tapes and optimizers while the block runs; optimizers then apply nothing."""
    with _listening_lock, contextlib.ExitStack() as undo:

        def replace(owner: type, name: str, value: Any) -> None:
            if name in vars(owner):
                undo.callback(setattr, owner, name, vars(owner)[name])
            else:
                undo.callback(delattr, owner, name)
            setattr(owner, name, value)

        base = keras.optimizers.Optimizer
        replace(tf.GradientTape, "gradient", _recorded_gradient(recording))
        replace(keras.Model, "compute_metrics", lambda *_args, **_kwargs: {})
        replace(base, "apply", _recorded_apply(recording))
        for optimizer in _descendants(base):
            if "apply" in vars(optimizer):
                replace(optimizer, "apply", _recorded_apply(recording))
            if "scale_loss" in vars(optimizer):
                scale_loss = _recorded_scale(recording, vars(optimizer)["scale_loss"])
                replace(optimizer, "scale_loss", scale_loss)
        yield


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
        asked = [sources, outputs] if outputs else sources
        found = original(self, target, asked, output_gradients, **options)
        result, to_outputs = found if outputs else (found, [])
        flat_sources = tf.nest.flatten(sources)
        flat_results = tf.nest.flatten(result, expand_composites=False)
        pairs = [
            (source, None if gradient is None else tf.convert_to_tensor(gradient))
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
            recording.tape_calls.append(TapeCall(targets, weights, variables, gradients))
            reached = [(o, g) for o, g in zip(outputs, to_outputs, strict=True) if g is not None]
            # One call each: an output may be computed from another.
            recording.loss_calls += [
                TapeCall(targets, weights, (output,), (tf.convert_to_tensor(gradient),))
                for output, gradient in reached
            ]
        return result

    return gradient


def _recorded_apply(recording: Recording) -> Callable[..., None]:
    def apply(self: Any, grads: Any, trainable_variables: Any = None) -> None:
        # Without variables the gradients are for those the optimizer was built with.
        variables = trainable_variables or getattr(self, "_trainable_variables", ())
        recording.applied += [
            Applied(tf.convert_to_tensor(gradient), variable)
            for gradient, variable in zip(grads, variables, strict=False)
            if gradient is not None
        ]

    return apply


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
    differentiate = vars(tf.GradientTape)["gradient"].__wrapped__

    def call(self: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        if tf.compat.v1.get_default_graph() is not graph:
            return original(self, *args, **kwargs)
        inputs: list[tf.Tensor] = []
        args, kwargs = tf.nest.map_structure(lambda leaf: _cut(leaf, inputs), (args, kwargs))
        stack.append([])
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = original(self, *args, **kwargs)
        children = stack.pop()
        targets = [leaf for leaf in tf.nest.flatten(outputs) if _is_float(leaf)]
        sources = [*inputs, *self.trainable_variables]
        if targets and sources:
            weights = [_cotangent(target, position) for position, target in enumerate(targets)]
            found = differentiate(tape, targets, list(map(live_variable, sources)), weights)
            gradients = tuple(None if g is None else tf.convert_to_tensor(g) for g in found)
            layer_call = LayerCall(
                self.path or self.name,
                TapeCall(tuple(targets), tuple(weights), tuple(sources), gradients),
                tuple(children),
            )
            recording.layer_calls.append(layer_call)
            stack[-1].append(layer_call)
        if len(stack) == 1:
            outputs = tf.nest.map_structure(lambda leaf: _cut(leaf, recording.outputs), outputs)
        return outputs

    keras.Layer.__call__ = call
    try:
        yield
    finally:
        keras.Layer.__call__ = original


def _is_float(leaf: Any) -> bool:
    return isinstance(leaf, tf.Tensor) and leaf.dtype.is_floating


def _cut(leaf: Any, cuts: list[tf.Tensor]) -> Any:
    """A float tensor through an identity, at which the graph can be cut; all else as it is."""
    if not _is_float(leaf):
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
