"""Tracing a model's own training step into a graph, with everything its tapes and optimizers do.

Nothing is executed, so nothing changes: the step becomes a graph exactly as `fit` makes it one,
with the model's real variables captured by handle. During the trace, and only then,
`tf.GradientTape.gradient` and the optimizers' `apply` are listened to.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfcheck.batch import Batch
from tfcheck.errors import BatchError, ModelError, TraceError, telling_line
from tfcheck.internals import (
    lazily_built_parts,
    recorded_losses,
    sublayers,
)
from tfcheck.listening import (
    Recording,
    cut,
    differentiated,
    is_float,
    listen_to_regularizers,
    listening,
    listening_to_layers,
)
from tfcheck.silence import dropout_off

LossFunction = Callable[[keras.Model, Any, Any, Any], Any]


@dataclass(frozen=True)
class TracedStep:
    """A training step as a graph.

    Attributes:
        function: the traced function; its graph holds all tensors of the recording.
        placeholders: the graph's inputs for the batch, flat.
        captures: for each captured outside tensor, that tensor and its placeholder.
        recording: the tapes and optimizers heard.
        source: `"train_step"`, `"loss_fn"`, `"compute_loss"` or `"layer"`.
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

    function, recording = _trace(model, batch, step, source, layers=layers)
    if not _in_one_graph(function, recording):
        # A tape under @tf.function of its own works in another graph; written out, it does not.
        with _functions_written_out():
            function, recording = _trace(model, batch, step, source, layers=layers)
    if not recording.tape_calls:
        raise TraceError(
            "A training step must differentiate a loss with tf.GradientTape. Received: "
            f"{source} of {type(model).__name__!r} in which no tape differentiates a variable. "
            "Check it with loss_fn."
        )
    if not _in_one_graph(function, recording):
        raise TraceError(
            "Tapes must be used in the training step itself. Received: "
            f"{source} of {type(model).__name__!r} with a tape inside a loop or another nested "
            "function. Move the tape out of it, or check with loss_fn."
        )
    return _traced(function, recording, batch, source)


def _traced(function: Any, recording: Recording, batch: Batch, source: str) -> TracedStep:
    count = len(batch.tensors)
    return TracedStep(
        function,
        tuple(function.inputs[:count]),
        tuple(zip(function.captured_inputs, function.inputs[count:], strict=True)),
        recording,
        source,
    )


def trace_layer(
    layer: keras.Layer, batch: Batch, *, phase: str = "train", layers: bool = False
) -> TracedStep:
    """Trace one call of a built layer, nothing executed.

    Its outputs, and losses that it adds, are weighted at random; they are differentiated with
    respect to the float inputs and the trainable variables.

    Args:
        layer: a built layer.
        batch: the positional arguments of the call.
        phase: `"train"` or `"inference"`: the call's `training`, where it takes one.
        layers: whether to differentiate every layer call by itself, too. Defaults to False.

    Raises:
        BatchError: if the layer rejects the inputs.
        TraceError: if the call cannot be traced, or there is nothing to differentiate.
    """
    differentiate = tf.GradientTape.gradient
    calls = []

    def step(data: Any) -> None:
        inputs: list[tf.Tensor] = []
        arguments = tf.nest.map_structure(lambda leaf: cut(leaf, inputs), data)
        before = {id(loss) for part in sublayers(layer) for loss in recorded_losses(part)[0]}
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(*arguments, **call_options(layer, phase))
        losses = [loss for part in sublayers(layer) for loss in recorded_losses(part)[0]]
        added = [loss for loss in losses if id(loss) not in before]
        targets = [leaf for leaf in (*tf.nest.flatten(outputs), *added) if is_float(leaf)]
        sources = [*inputs, *layer.trainable_variables]
        path = layer.path or layer.name
        names = [
            f"{path}/input" if len(inputs) == 1 else f"{path}/input_{position}"
            for position in range(len(inputs))
        ]
        names += [variable.path for variable in layer.trainable_variables]
        if targets and sources:
            calls.append(differentiated(differentiate, tape, targets, sources, names))

    source = "layer"
    function, recording = _trace(layer, batch, step, source, layers=layers)
    recording.tape_calls[:] = calls
    if not calls:
        raise TraceError(
            "A layer must have a float output, and a float input or a trainable variable. "
            f"Received: {type(layer).__name__!r} without. Check a layer that is differentiated."
        )
    return _traced(function, recording, batch, source)


def build_layer(layer: keras.Layer, batch: Batch) -> None:
    """Build a layer that is not built yet, by calling it on the arguments of a batch.

    Raises:
        BatchError: if the layer rejects them.
        TraceError: if the call raises for another reason.
    """
    if not layer.built:
        try:
            layer(*batch.structure)
        except Exception as error:
            raise _explain(error, batch, "the layer") from error


def call_options(layer: keras.Layer, phase: str) -> dict[str, bool]:
    """The `training` argument for a layer's call, where it takes one."""
    parameters = inspect.signature(layer.call).parameters
    return {"training": phase == "train"} if "training" in parameters else {}


def _trace(
    model: keras.Layer,
    batch: Batch,
    step: Callable[[Any], Any],
    source: str,
    *,
    layers: bool,
) -> tuple[Any, Recording]:
    """Trace a step once, listening."""
    recording = Recording()
    specs = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in batch.tensors]

    @tf.autograph.experimental.do_not_convert
    def run(*tensors: tf.Tensor) -> list[tf.Tensor]:
        with listening_to_layers(recording) if layers else contextlib.nullcontext():
            step(batch.pack(tensors))
        if layers:
            listen_to_regularizers(model, recording)
        return []

    with _unchanged(model), dropout_off(model), listening(recording):
        try:
            return tf.compat.v1.wrap_function(run, specs), recording
        except (TraceError, ModelError, KeyboardInterrupt):
            raise
        except Exception as error:
            raise _explain(error, batch, source) from error


def _in_one_graph(function: Any, recording: Recording) -> bool:
    """Whether there is a tape, and all tensors of all tapes belong to the traced graph."""
    tensors = [t for call in recording.tape_calls for t in (*call.targets, *call.gradients)]
    return bool(tensors) and all(t is None or t.graph is function.graph for t in tensors)


@contextlib.contextmanager
def _functions_written_out() -> Iterator[None]:
    """Trace what is under @tf.function in place of a call to it."""
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


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
    signature = batch.signature()
    shapes = ", ".join(f"{dtype}{list(shape)}" for shape, dtype in signature[:_SHOWN])
    if len(signature) > _SHOWN:
        shapes += f" and {len(signature) - _SHOWN} more arrays (lists count as many inputs)"
    reason = telling_line(str(error))
    if "None values not supported" in reason:
        reason += " Perhaps the targets are missing."
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


_SHOWN = 6
_ABOUT_SHAPES = re.compile(
    r"shape|dimension|incompatible|rank|expected|batch|axis|broadcast|input|missing", re.IGNORECASE
)


# -- leaving everything as it was ------------------------------------------------------------


@contextlib.contextmanager
def _unchanged(model: keras.Layer) -> Iterator[None]:
    """Put back what a trace changes in Python: recorded losses, built parts, random states."""
    layers = list(sublayers(model))
    unbuilt = [layer for layer in layers if not layer.built]
    losses = [part for layer in layers for part in recorded_losses(layer)]
    parts = [*lazily_built_parts(model), *getattr(model, "metrics", ()), *unbuilt]
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
