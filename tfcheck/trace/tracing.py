"""Tracing a step into a graph, with everything its tapes and optimizers do.

Nothing is executed, so nothing changes: a training step becomes a graph exactly as `fit` makes it
one, with the model's real variables captured by handle. During the trace, and only then,
`tf.GradientTape.gradient` and the optimizers' `apply` are listened to.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from tfcheck.errors import ModelError, NoTapeError, TraceError
from tfcheck.internals import TF_FUNCTION_KIND, live_variable, traced_anew
from tfcheck.trace.batch import Batch
from tfcheck.trace.listening import listening
from tfcheck.trace.recording import Recording
from tfcheck.trace.refusals import ALONE, explain
from tfcheck.trace.silence import dropout_held
from tfcheck.trace.steps import Step
from tfcheck.unchanged.patching import put_in_place
from tfcheck.unchanged.unchanged import unchanged, variables_kept


@dataclass(frozen=True)
class TracedStep:
    """A step as a graph.

    Attributes:
        function: the traced function; its graph holds all tensors of the recording.
        placeholders: the graph's inputs for the batch, flat.
        captures: for each captured outside tensor, that tensor and its placeholder.
        recording: the tapes and optimizers heard.
        made: the variables that the step makes where it runs for the first time; the graph only
            works as long as they are kept.
        source: `"train_step"`, `"loss_fn"`, `"compute_loss"` or `"layer"`.
    """

    function: Any
    placeholders: tuple[tf.Tensor, ...]
    captures: tuple[tuple[Any, tf.Tensor], ...]
    recording: Recording
    made: tuple[tf.Variable, ...]
    source: str


def trace(step: Step, batch: Batch) -> TracedStep:
    """Trace a step once on a batch, dropout held still, nothing executed.

    Args:
        step: the step of a built model or layer.
        batch: the batch whose shapes and dtypes to trace with.

    Raises:
        BatchError: if the model rejects the batch.
        ModelError: if the model is not built.
        NoTapeError: if it differentiates no variable.
        TraceError: if it cannot be traced.
    """
    function, recording, made = _trace(step, batch)
    if not _in_one_graph(function, recording):
        # A tape under @tf.function of its own works in another graph; written out, it does not.
        function, recording, made = _trace(step, batch, functions=functions_written_out)
    if not recording.tape_calls:
        require_tape(recording, step, idle=step.own and not _updates(function, recording, step))
    if not _in_one_graph(function, recording):
        raise TraceError(
            "Tapes must be used in the training step itself. Received: "
            f"{step.source} of {type(step.owner).__name__!r} with a tape inside a loop or another "
            "nested function. Move the tape out of it, or check with loss_fn."
        )
    count = len(batch.tensors)
    return TracedStep(
        function,
        tuple(function.inputs[:count]),
        tuple(zip(function.captured_inputs, function.inputs[count:], strict=True)),
        recording,
        tuple(made),
        step.source,
    )


def require_tape(recording: Recording, step: Step, *, idle: bool = False) -> None:
    """Raise a `NoTapeError` unless a tape differentiated something.

    Args:
        recording: what was heard.
        step: the step.
        idle: whether it changes no trainable variable in another way, either. Defaults to False.
    """
    if not recording.tape_calls:
        raise NoTapeError(
            "A training step must differentiate a loss with tf.GradientTape. Received: "
            f"{step.source} of {type(step.owner).__name__!r} in which no tape differentiates a "
            "variable. Check it with loss_fn.",
            idle=idle,
        )


def build_layer(layer: keras.Layer, batch: Batch, call: Callable[[Any], Any]) -> None:
    """Build a layer that is not built yet, by a call.

    Args:
        layer: the layer.
        batch: the arguments.
        call: calls it on them.

    Raises:
        BatchError: if the layer rejects them.
        TraceError: if the call raises for another reason.
    """
    if not layer.built:
        try:
            call(batch.structure)
        except Exception as error:
            raise explain(error, batch, ALONE) from error


def _trace(
    step: Step,
    batch: Batch,
    *,
    functions: Callable[[], AbstractContextManager[None]] | None = None,
) -> tuple[Any, Recording, list[tf.Variable]]:
    """Trace a step once, listening: its graph, what was heard, and the variables it made."""
    recording = step.recording()
    specs = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in batch.tensors]

    @tf.autograph.experimental.do_not_convert
    def run(*tensors: tf.Tensor) -> list[tf.Tensor]:
        recording.graph = tf.compat.v1.get_default_graph()
        step.run(batch.pack(tensors), recording)
        return []

    with (
        unchanged(step.owner, step.run) as made,
        variables_kept(),
        dropout_held(step.dropout),
        listening(recording),
        (functions or functions_traced_anew)(),
    ):
        try:
            return tf.compat.v1.wrap_function(run, specs), recording, made
        except (TraceError, ModelError, KeyboardInterrupt):
            raise
        except Exception as error:
            raise explain(error, batch, step.source) from error


def _updates(function: Any, recording: Recording, step: Step) -> bool:
    """Whether a step may change trainable variables: by an optimizer, or by assigning to them."""
    if recording.applied or function.graph.as_graph_def().library.function:
        return True
    handles = {id(live_variable(variable).handle) for variable in step.owner.trainable_variables}
    captured = function.captured_inputs
    inside = function.inputs[len(function.inputs) - len(captured) :]
    placeholders = {
        placeholder.op.name
        for outside, placeholder in zip(captured, inside, strict=True)
        if id(outside) in handles
    }
    return any(
        operation.type.startswith("Assign") and operation.inputs[0].op.name in placeholders
        for operation in function.graph.get_operations()
    )


def _in_one_graph(function: Any, recording: Recording) -> bool:
    """Whether there is a tape, and all tensors of all tapes belong to the traced graph."""
    tensors = [t for call in recording.tape_calls for t in (*call.targets, *call.gradients)]
    return bool(tensors) and all(t is None or t.graph is function.graph for t in tensors)


@contextlib.contextmanager
def functions_written_out() -> Iterator[None]:
    """Run what is under @tf.function in place of a call to it, in this thread."""
    with contextlib.ExitStack() as undo:
        put_in_place(
            undo,
            TF_FUNCTION_KIND,
            "__call__",
            lambda _: lambda function, *args, **options: function.python_function(*args, **options),
        )
        yield


@contextlib.contextmanager
def functions_traced_anew() -> Iterator[None]:
    """Trace what is under @tf.function as if it had not been, so that nothing of it stays there."""
    anew: dict[int, tuple[Any, Any]] = {}  # each with its original, so that no identity is reused

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(function: Any, *args: Any, **options: Any) -> Any:
            if type(function) is not TF_FUNCTION_KIND:  # one that was loaded has no Python to trace
                return original(function, *args, **options)
            if id(function) not in anew:
                anew[id(function)] = function, traced_anew(function)
            return original(anew[id(function)][1], *args, **options)

        return call

    with contextlib.ExitStack() as undo:
        put_in_place(undo, TF_FUNCTION_KIND, "__call__", make)
        yield
