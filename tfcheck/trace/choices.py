"""What a training step chooses to do that makes no derivative wrong: told in a note.

To train a network as it is at inference, to clip gradients, to compile a loss that is not used:
each may be meant, and each is forgotten easily.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import keras
import tensorflow as tf

from tfcheck.errors import some
from tfcheck.graph.division import before_all
from tfcheck.internals import sublayers
from tfcheck.trace.own_calls import OwnCall
from tfcheck.trace.recording import Applied, Recording, TapeCall
from tfcheck.trace.source_lines import place_of
from tfcheck.trace.steps import takes_training
from tfcheck.variables import path_of


class Choices:
    """What a training step chooses to do: looked for where it is asked, and once.

    Args:
        recording: what was heard of the step.
    """

    def __init__(self, recording: Recording) -> None:
        self._recording = recording

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """How it calls what it trains, and what becomes of its gradients, a sentence each."""
        return (*_as_at_inference(self._recording), *_changed_on_the_way(self._recording))

    @cached_property
    def ignores_compiled(self) -> bool:
        """Whether no loss is computed by way of what the model is compiled with."""
        return self._recording.graph is not None and not _uses_compiled(self._recording)

    def note_on_compiled(self, model: keras.Model) -> str:
        """Say that the loss a model is compiled with is not what trains."""
        compiled = some([_name_of(loss) for loss in tf.nest.flatten(model.loss)])
        place = place_of(self._recording.tape_calls[0].targets[0].op)
        return (
            f"The model is compiled with a loss ({compiled}) that its training step does not use: "
            f"what trains is computed{_at(place) or ' otherwise'}."
        )


# -- networks that are trained as they are at inference --------------------------------------


def _as_at_inference(recording: Recording) -> Iterator[str]:
    """Say which networks are trained, and called otherwise than with `training=True`."""
    asked = {id(source) for call in recording.tape_calls for source in call.sources}
    calls: dict[int, list[OwnCall]] = {}
    for call in recording.own_calls.made:
        calls.setdefault(id(call.layer), []).append(call)
    for of_layer in calls.values():
        layer = of_layer[0].layer
        acting = [path_of(part) for part in sublayers(layer) if _acts_otherwise(part)]
        trained = any(id(variable) in asked for variable in layer.trainable_variables)
        if not acting or not trained or not all(_at_inference(call) for call in of_layer):
            continue
        yield (
            f"The training step calls {path_of(layer)} {_how(of_layer[0])}, so that what "
            f"trains is not what these layers do in training: {some(acting)}."
        )


def _how(call: OwnCall) -> str:
    if not takes_training(call.layer):
        return "without training=True, which its call does not take"
    how = "with training=False" if call.training is False else "without training=True"
    return how + _at(call.place)


def _at_inference(call: OwnCall) -> bool:
    return call.training is None or call.training is False


def _acts_otherwise(layer: keras.Layer) -> bool:
    """Whether a layer does something else in training than at inference."""
    if isinstance(layer, keras.layers.BatchNormalization):
        return bool(layer.trainable)
    if isinstance(layer, keras.layers.SpectralNormalization):
        return True
    if any(_is_positive(getattr(layer, name, None)) for name in _STRENGTHS):
        return True
    if type(layer).__module__.startswith("keras."):
        return type(layer).__name__.startswith("Random")
    return takes_training(layer) and len(list(sublayers(layer))) == 1


_STRENGTHS = ("rate", "stddev", "dropout", "recurrent_dropout")
"""What Keras's layers keep of how strongly they act in training alone."""


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and value > 0


# -- gradients that are changed on their way -------------------------------------------------


def _changed_on_the_way(recording: Recording) -> Iterator[str]:
    """Say which gradients are clipped or normalised before an optimizer gets them."""
    if recording.graph is None:
        return
    position_of = {op: number for number, op in enumerate(recording.graph.get_operations())}
    found: dict[str, list[tf.Operation]] = {}
    for applied in recording.applied:
        way, how = list(_way_of(applied, recording.tape_calls, position_of)), ""
        if any(_clips(operation) for operation in way):
            how = "clips"
        elif any(operation.type in _OF_NORMS for operation in way):
            how = "normalises"
        if how:
            found.setdefault(how, []).append(next(o for o in way if _tells(o)))
    for how, operations in found.items():
        yield (
            f"The training step {how} {len(operations)} gradient(s) on their way to the "
            f"optimizer{_at(place_of(operations[0]))}. What was checked is what the tape found."
        )


def _way_of(
    applied: Applied, calls: Sequence[TapeCall], position_of: Mapping[tf.Operation, int]
) -> Iterator[tf.Operation]:
    """The operations between what a tape found for a variable and what an optimizer is given."""
    found = [c.made for c in calls if any(source is applied.variable for source in c.sources)]
    pending, seen = [applied.gradient.op] if found else [], set()
    while pending:
        operation = pending.pop()
        # What is in another graph is made in a branch or a loop.
        if operation in seen or position_of.get(operation, -1) < found[-1]:
            continue
        seen.add(operation)
        yield operation
        pending += [tensor.op for tensor in operation.inputs]


def _clips(operation: tf.Operation) -> bool:
    return operation.type in ("ClipByValue", "Minimum") or "clip" in operation.name


def _tells(operation: tf.Operation) -> bool:
    return _clips(operation) or operation.type in _OF_NORMS


_OF_NORMS = frozenset({"EuclideanNorm", "L2Loss", "Rsqrt", "Sign", "Sqrt"})


# -- a compiled loss that is not what trains -------------------------------------------------


def _uses_compiled(recording: Recording) -> bool:
    """Whether any target is computed from what `compute_loss` or the compiled loss gives."""
    given = [tensor for tensor in recording.compiled if tf.is_symbolic_tensor(tensor)]
    if any(tensor.graph is not recording.graph for tensor in given):
        return True  # within a function of its own, where it goes is not known
    before = before_all(target for call in recording.tape_calls for target in call.targets)
    return not before.isdisjoint(tensor.op.name for tensor in given)


def _name_of(loss: Any) -> str:
    return str(getattr(loss, "__name__", None) or getattr(loss, "name", loss))


def _at(place: Any) -> str:
    return f" at {place}" if place else ""
