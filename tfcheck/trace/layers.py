"""Listening to layers and losses: their calls are noted, in a graph or in an eager run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from tfcheck.graph.division import LOSS
from tfcheck.internals import is_watched
from tfcheck.trace.gates import gated
from tfcheck.trace.recording import Recording
from tfcheck.unchanged.patching import Replacement, put_in_place
from tfcheck.variables import path_of


def noted_loss(recording: Recording) -> Replacement:
    """Notes the calls of losses in the graph that is traced, and what compiled ones give."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: Any, *args: Any, **options: Any) -> Any:
            with recording.calling(LOSS) if recording.tracing else nullcontext():
                loss = original(self, *args, **options)
            if any(self is own for own in tf.nest.flatten(getattr(recording.owner, "loss", None))):
                recording.compiled.append(loss)
            return loss

        return call

    return make


def noted_compiled(recording: Recording) -> Replacement:
    """Notes what `compute_loss` gives."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def compute_loss(self: keras.Model, *args: Any, **options: Any) -> Any:
            loss = original(self, *args, **options)
            recording.compiled.append(loss)
            return loss

        return compute_loss

    return make


def gated_layer(recording: Recording) -> Replacement:
    """Notes calls of layers in the graph that is traced, and puts gates before their inputs.

    Calls inside loops and nested functions belong to other graphs and are left alone.
    """

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: keras.Layer, *args: Any, **kwargs: Any) -> Any:
            with recording.own_calls.within(self, args, kwargs):
                return behind_gates(self, *args, **kwargs)

        def behind_gates(self: keras.Layer, *args: Any, **kwargs: Any) -> Any:
            if not recording.tracing:
                return original(self, *args, **kwargs)
            gates: dict[int, tf.Tensor] = {}
            args, kwargs = tf.nest.map_structure(lambda leaf: gated(leaf, gates), (args, kwargs))
            for gate in gates.values():
                names = (gate.op.name, gate.op.inputs[0].op.name)
                recording.gates |= dict.fromkeys(names, is_watched(gate))
            path, tracked = path_of(self), recording.own_calls.knows(self)
            with recording.calling(path, tracked=tracked):
                return original(self, *args, **kwargs)

        return call

    return make


def noted_backward(recording: Recording) -> Replacement:
    """Has the backward pass of a gradient of its own belong to the call that it was given in."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        # TensorFlow gives some of the arguments by these names.
        def tell(
            op_type: Any,
            output_tensors: Any,
            input_tensors: Any,
            backward_function: Callable[..., Any],
            **others: Any,
        ) -> Any:
            call = recording.innermost if recording.tracing else None

            def noted(*args: Any, **options: Any) -> Any:
                if call is None or not recording.tracing:
                    return backward_function(*args, **options)
                with recording.calling(call.path, backward_of=call):
                    return backward_function(*args, **options)

            return original(op_type, output_tensors, input_tensors, noted, **others)

        return tell

    return make


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
    stack: list[list[EagerCall]] = [[]]

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: keras.Layer, *args: Any, **kwargs: Any) -> Any:
            if not tf.executing_eagerly():
                return original(self, *args, **kwargs)
            stack.append([])
            outputs = original(self, *args, **kwargs)
            noted = EagerCall(self, (args, kwargs), tuple(stack.pop()))
            calls.append(noted)
            stack[-1].append(noted)
            return outputs

        return call

    with contextlib.ExitStack() as undo:
        put_in_place(undo, keras.Layer, "__call__", make)
        yield
