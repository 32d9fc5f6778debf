"""What layers and losses are given in a step, and the gradients of what they give.

The step is run once more for the sake of a few calls that are of interest: eagerly, or where only a
graph runs it, in one.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import tensorflow as tf

from tfcheck.errors import TfcheckError
from tfcheck.internals import mask_of
from tfcheck.objective.eager_step import listen_eagerly
from tfcheck.trace.batch import Batch
from tfcheck.trace.listening import is_float
from tfcheck.trace.steps import Step
from tfcheck.trace.tracing import trace
from tfcheck.unchanged.patching import put_in_place
from tfcheck.unchanged.unchanged import held_variables, variables_kept

_MOST_CALLS = 3
"""So many calls of a layer are noted: where one does not show what is wrong, another may."""


@dataclass(frozen=True, eq=False)
class Noted:
    """A call as it was made.

    Attributes:
        callee: the layer, or the loss.
        args: its positional arguments.
        kwargs: its named ones, with the masks that Keras adds and without `training`.
        training: the `training` that was in effect; None where nothing said.
        outputs: the floats that it gave.
        gradients: a loss's gradients of them, once a tape was asked; None for none.
        names: what to call the positional arguments; empty to count them.
    """

    callee: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    training: bool | None
    outputs: list[tf.Tensor]
    gradients: list[tf.Tensor | None] = field(default_factory=list)
    names: tuple[str, ...] = ()

    @property
    def leaves(self) -> list[Any]:
        """All tensors of it, and what else it was given."""
        found: list[Any] = tf.nest.flatten(self._whole)
        return found

    @property
    def _whole(self) -> tuple[Any, ...]:
        return (self.args, self.kwargs, self.outputs, self.gradients)

    def with_leaves(self, change: Callable[[Any], Any]) -> Noted:
        """The same with other leaves."""
        args, kwargs, outputs, gradients = tf.nest.map_structure(change, self._whole)
        return replace(self, args=args, kwargs=kwargs, outputs=outputs, gradients=gradients)


class Witness:
    """Notes calls in a step.

    Args:
        layers: the layers whose calls are noted, by identity.
        losses: whether those of losses are.
        eagerly: whether it is what runs eagerly that is noted, or else what is traced. Defaults to
            True.

    Attributes:
        calls: the calls, in the order in which they ended.
    """

    def __init__(self, layers: Set[int], *, losses: bool, eagerly: bool = True) -> None:
        self.calls: list[Noted] = []
        self._eagerly = eagerly
        self._layers = layers
        self._losses = losses
        self._training: bool | None = None
        self._depth = 0

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Note the calls that are made in the block, in this thread."""
        with contextlib.ExitStack() as undo:
            put_in_place(undo, keras.Layer, "__call__", self._layer_called)
            put_in_place(undo, tf.GradientTape, "gradient", self._asked)
            if self._losses:
                put_in_place(undo, keras.losses.Loss, "__call__", self._loss_called)
            yield

    def of(self, callee: Any) -> list[Noted]:
        """The calls of a layer."""
        return [call for call in self.calls if call.callee is callee]

    def _layer_called(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
            if tf.executing_eagerly() is not self._eagerly:
                return original(layer, *args, **kwargs)
            parameters = inspect.signature(layer.call).parameters
            names = [n for n, p in parameters.items() if p.kind is not p.VAR_KEYWORD]
            given = {**dict(zip(names, args, strict=False)), **kwargs}
            training = self._training = self._resolved(given, parameters)
            self._depth += 1
            try:
                outputs = original(layer, *args, **kwargs)
            finally:
                self._depth -= 1
                if not self._depth:
                    self._training = None
            if id(layer) in self._layers and len(self.of(layer)) < _MOST_CALLS:
                args, kwargs = _without_training(names, args, kwargs)
                kwargs |= _masks(names, given)
                kwargs = {n: v for n, v in kwargs.items() if not _is_default(v, parameters.get(n))}
                self.calls.append(Noted(layer, args, kwargs, training, _floats(outputs)))
            return outputs

        return call

    def _resolved(self, given: dict[str, Any], parameters: Mapping[str, Any]) -> bool | None:
        """The `training` in effect in a call, as Keras finds it."""
        if "training" in given:
            return given["training"]
        if self._training is not None or "training" not in parameters:
            return self._training
        default = parameters["training"].default
        return None if default is inspect.Parameter.empty else default

    def _loss_called(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(loss: Any, *args: Any, **kwargs: Any) -> Any:
            outputs = original(loss, *args, **kwargs)
            if tf.executing_eagerly() is self._eagerly:
                self.calls.append(Noted(loss, args, kwargs, None, []))
            return outputs

        return call

    def _asked(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def gradient(tape: tf.GradientTape, target: Any, sources: Any, *others: Any) -> Any:
            waiting = [call for call in self.calls if call.outputs and not call.gradients]
            if not self._eagerly:  # in loops and functions are other graphs
                here = tf.compat.v1.get_default_graph()
                waiting = [call for call in waiting if call.outputs[0].graph is here]
            outputs = [call.outputs for call in waiting]
            found, shares = original(tape, target, [sources, outputs], *others)
            for call, of_call in zip(waiting, shares, strict=True):
                if any(share is not None for share in of_call):
                    call.gradients[:] = of_call
            return found

        return gradient


def _without_training(
    names: Sequence[str], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A call's arguments but for `training`; what stood behind it is named."""
    named = {name: value for name, value in kwargs.items() if name != "training"}
    if "training" in names[: len(args)]:
        first = names.index("training")
        named |= dict(zip(names[first + 1 :], args[first + 1 :], strict=False))
        args = args[:first]
    return args, named


def seen(step: Step, batch: Batch, layers: Set[int], *, losses: bool) -> Witness:
    """What calls in a step are given, where it stands now.

    Args:
        step: the step.
        batch: the debug batch.
        layers: the layers whose calls are of interest, by identity.
        losses: whether those of losses are.

    Raises:
        TfcheckError: if the step does not run, or is not what it was.
    """
    witness = Witness(layers, losses=losses)
    try:
        with witness.watching():
            listen_eagerly(step, batch)
    except TfcheckError:
        if step.eager:
            raise
        return _seen_in_graph(step, batch, Witness(layers, losses=losses, eagerly=False))
    return witness


def _seen_in_graph(step: Step, batch: Batch, witness: Witness) -> Witness:
    """The same from a graph of the step, of which only what is of interest is computed."""
    with witness.watching():
        traced = trace(step, batch)
    graph = traced.function.graph

    def is_foreign(leaf: Any) -> bool:
        return tf.is_symbolic_tensor(leaf) and leaf.graph is not graph

    calls = [call for call in witness.calls if not any(map(is_foreign, call.leaves))]
    wanted = {leaf.name: leaf for c in calls for leaf in c.leaves if tf.is_symbolic_tensor(leaf)}
    part = traced.function.prune(list(traced.placeholders), list(wanted.values()))
    with variables_kept(held_variables(step.owner)):
        values = dict(zip(wanted, part(*batch.tensors), strict=True))

    def value(leaf: Any) -> Any:
        return values[leaf.name] if tf.is_symbolic_tensor(leaf) else leaf

    witness.calls[:] = [call.with_leaves(value) for call in calls]
    return witness


def _floats(outputs: Any) -> list[tf.Tensor]:
    return [leaf for leaf in tf.nest.flatten(outputs) if is_float(leaf)]


def _is_default(value: Any, parameter: inspect.Parameter | None) -> bool:
    return value is None and parameter is not None and parameter.default is None


def _masks(names: Sequence[str], given: Mapping[str, Any]) -> dict[str, Any]:
    """The masks that tensors bring with them, as the arguments that Keras makes of them."""
    tensors = {name: value for name, value in given.items() if _is_of_tensors(value)}
    masks = {}
    for name, value in tensors.items():
        argument = "mask" if len(tensors) == 1 else f"{name}_mask"
        mask = tf.nest.map_structure(mask_of, value)
        if argument in names and given.get(argument) is None and _is_any(mask):
            masks[argument] = mask
    return masks


def _is_of_tensors(value: Any) -> bool:
    leaves = tf.nest.flatten(value)
    return bool(leaves) and all(isinstance(leaf, tf.Tensor) for leaf in leaves)


def _is_any(mask: Any) -> bool:
    return any(leaf is not None for leaf in tf.nest.flatten(mask))
