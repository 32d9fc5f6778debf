"""What is differentiated: a model's training step, a loss of one's own, or a layer alone.

Each is a function of the batch that runs with everything listened to, in a graph or eagerly.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from tfcheck.errors import TraceError
from tfcheck.internals import copy_mask, live_variable, recorded_losses, sublayers
from tfcheck.trace.batch import Batch
from tfcheck.trace.gates import cut, is_float
from tfcheck.trace.layers import EagerCall
from tfcheck.trace.own_calls import OwnCalls
from tfcheck.trace.recording import Recording
from tfcheck.trace.tapes import differentiated
from tfcheck.variables import is_overwritten, path_of

LossFunction = Callable[[keras.Model, Any, Any, Any], Any]


@dataclass(frozen=True)
class Step:
    """Something to differentiate.

    Attributes:
        owner: the model or layer that it belongs to.
        source: `"train_step"`, `"loss_fn"`, `"compute_loss"` or `"layer"`.
        run: `run(data, recording)` does it once, on the `data` of a `train_step` or the arguments
            of a layer's call; the recording is the one that listens.
        eager: whether it is meant to run eagerly, so that it must not be traced.
        dropout: how dropout is held still: see `dropout_held`.
    """

    owner: keras.Layer
    source: str
    run: Callable[[Any, Recording], None]
    eager: bool = False
    dropout: str = "off"

    @property
    def own(self) -> bool:
        """Whether this is a `train_step` of the user's own."""
        if self.source != "train_step":
            return False
        return type(self.owner).train_step is not keras.Model.train_step

    @property
    def own_loss(self) -> bool:
        """Whether its loss is computed by code of the user's own."""
        if self.source != "train_step":
            return False
        return self.own or type(self.owner).compute_loss is not keras.Model.compute_loss

    def recording(self) -> Recording:
        """An empty recording, which knows what to listen for."""
        return Recording(
            known={
                id(part): variable
                for variable in self.owner.variables
                for live in [live_variable(variable)]
                for part in (live, *getattr(live, "values", ()))  # one for each replica
            },
            expected=tuple(self.owner.trainable_variables) if self.own else (),
            owner=self.owner,
            own_calls=OwnCalls(self.owner),
        )


def model_step(
    model: keras.Model, *, loss_fn: LossFunction | None = None, phase: str = "train"
) -> Step:
    """The step of a model that is to be checked.

    Args:
        model: a built Keras model; compiled unless `loss_fn` is given.
        loss_fn: replaces the train step: `loss_fn(model, x, y, sample_weight)` gives the loss.
            Defaults to None.
        phase: `"train"` (the default) is the model's own `train_step`; `"inference"` is
            `compute_loss` of the model called with `training=False`.
    """
    eager = runs_eagerly(model)
    if loss_fn is not None:
        return Step(model, "loss_fn", _of_loss_fn(model, loss_fn), eager)
    if phase == "train":
        # A train_step under @tf.function is inlined: its tensors must belong to the traced graph.
        train = getattr(model.train_step, "python_function", model.train_step)
        return Step(model, "train_step", lambda data, _recording: train(data), eager)
    return Step(model, "compute_loss", _of_inference(model), eager)


def runs_eagerly(model: keras.Layer) -> bool:
    """Whether `fit` would run a model's step eagerly: what such a step does in a graph is unknown.

    It may keep tensors in objects of its own, or branch on their values.
    """
    return bool(getattr(model, "run_eagerly", False)) or tf.config.functions_run_eagerly()


def _of_loss_fn(model: keras.Model, loss_fn: LossFunction) -> Callable[[Any, Recording], None]:
    def run(data: Any, _recording: Recording) -> None:
        with tf.GradientTape() as tape:
            loss = loss_fn(model, *keras.utils.unpack_x_y_sample_weight(data))
        if not tf.is_tensor(loss) or loss.shape.rank != 0:
            raise TraceError(
                "loss_fn must return a scalar tensor. Received: "
                f"{getattr(loss, 'shape', type(loss).__name__)}. Reduce the loss, for example by "
                "its mean."
            )
        tape.gradient(loss, model.trainable_variables)

    return run


def takes_training(layer: keras.Layer) -> bool:
    """Whether a layer's call has an argument `training`."""
    return "training" in inspect.signature(layer.call).parameters


def _of_inference(model: keras.Model) -> Callable[[Any, Recording], None]:
    def run(data: Any, _recording: Recording) -> None:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            y_pred = model(x, training=False)
            loss = model.compute_loss(
                x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=False
            )
        tape.gradient(loss, model.trainable_variables)

    return run


def layer_step(
    layer: keras.Layer,
    call: Callable[[Any], Any],
    *,
    eager: bool = False,
    output_gradients: Any = None,
) -> Step:
    """One call of a built layer, differentiated by itself.

    Its outputs, and losses that it adds, are differentiated with respect to the float inputs and
    the trainable variables.

    Args:
        layer: a built layer.
        call: calls it on the arguments it is given.
        eager: whether it is meant to run eagerly. Defaults to False.
        output_gradients: what weighs its float outputs, in their structure. Defaults to None, for
            random weights.
    """

    def run(data: Any, recording: Recording) -> None:
        inputs: list[tf.Tensor] = []
        # Of ragged and sparse tensors, the values are differentiated for.
        arguments = tf.nest.map_structure(
            lambda leaf: cut(leaf, inputs), data, expand_composites=True
        )
        before = {id(loss) for part in sublayers(layer) for loss in recorded_losses(part)[0]}
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = call(arguments)
        losses = [loss for part in sublayers(layer) for loss in recorded_losses(part)[0]]
        added = [loss for loss in losses if id(loss) not in before]
        flat = tf.nest.flatten(outputs, expand_composites=True)
        given = [leaf for leaf in flat if is_float(leaf)]
        targets = [*given, *(loss for loss in added if is_float(loss))]
        weights = _weights(output_gradients, given, len(targets))
        variables = [v for v in layer.trainable_variables if not is_overwritten(v)]
        sources = [*inputs, *variables]
        if not targets or not sources:
            raise TraceError(
                "A layer must have a float output, and a float input or a trainable variable. "
                f"Received: {type(layer).__name__!r} without. Check a layer that is differentiated."
            )
        path = path_of(layer)
        names = [
            f"{path}/input" if len(inputs) == 1 else f"{path}/input_{position}"
            for position in range(len(inputs))
        ]
        names += [variable.path for variable in variables]
        recording.tape_calls[:] = [
            differentiated(recording, tape, targets, sources, names, weights=weights)
        ]

    return Step(layer, "layer", run, eager)


def _weights(output_gradients: Any, outputs: Sequence[tf.Tensor], count: int) -> list[tf.Tensor]:
    """The weights of a layer's outputs, and ones for the losses that it adds; none for None."""
    if output_gradients is None:
        return []
    weights = [tf.convert_to_tensor(weight) for weight in tf.nest.flatten(output_gradients)]
    shapes = [[tuple(tensor.shape) for tensor in tensors] for tensors in (weights, outputs)]
    if shapes[0] != shapes[1]:
        raise TraceError(
            "output_gradients must have the shapes of the layer's float outputs. Received: "
            f"{shapes[0]} for outputs of {shapes[1]}. Give one array an output."
        )
    cast = [tf.cast(w, output.dtype) for w, output in zip(weights, outputs, strict=True)]
    return [*map(tf.identity, cast), *(tf.ones(()) for _ in range(count - len(cast)))]


def repeated_call(call: EagerCall, *, eager: bool) -> tuple[Step, Batch]:
    """A call that was made once, to be made again: as a step, and the tensors it was given.

    Args:
        call: the call.
        eager: whether it is meant to run eagerly.
    """
    leaves = tf.nest.flatten(call.arguments)
    tensors = [leaf for leaf in leaves if isinstance(leaf, tf.Tensor)]

    def again(given: Any) -> Any:
        rest = iter(given)
        filled = [next(rest) if isinstance(leaf, tf.Tensor) else leaf for leaf in leaves]
        for leaf, new in zip(leaves, filled, strict=True):
            copy_mask(leaf, new)
        args, kwargs = tf.nest.pack_sequence_as(call.arguments, filled)
        return call.layer(*args, **kwargs)

    return layer_step(call.layer, again, eager=eager), Batch(tuple(tensors), None)


def plain_call(
    layer: keras.Layer, phase: str, fixed: Mapping[str, Any], *, named: bool
) -> Callable[[Any], Any]:
    """A call of a layer.

    Args:
        layer: the layer.
        phase: `"train"` or `"inference"`: the `training` of the call, and of layers within.
        fixed: named arguments that are always the same.
        named: whether the last of the arguments it is given is a dict of named ones.
    """
    # Keras keeps `training` for the layers within where the layer itself does not take it.
    options = {**fixed, "training": phase == "train"}

    def call(arguments: Sequence[Any]) -> Any:
        if not named:
            return layer(*arguments, **options)
        *positional, by_name = arguments
        return layer(*positional, **by_name, **options)

    return call
