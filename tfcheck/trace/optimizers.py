"""Listening to optimizers: what they are given is noted, and not applied."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import keras
import tensorflow as tf

from tfcheck.trace.recording import Applied, Recording
from tfcheck.trace.source_lines import place_here
from tfcheck.unchanged.patching import Replacement


def recorded_apply(recording: Recording) -> Replacement:
    """Has an optimizer note the gradients that it is given."""

    def apply(self: Any, grads: Any, trainable_variables: Any = None) -> None:
        # Without variables the gradients are for those the optimizer was built with.
        variables = trainable_variables or getattr(self, "_trainable_variables", ())
        # In the traced graph, wherever the optimizer is asked: a branch is a graph of its own.
        outside = recording.graph.as_default() if recording.graph is not None else nullcontext()
        with outside:
            divisor = _divisor(self)
        place = place_here()
        recording.applied += [
            Applied(tf.convert_to_tensor(gradient), recording.known_as(variable), divisor, place)
            for gradient, variable in zip(grads, variables, strict=False)
            if gradient is not None
        ]

    return lambda _: apply


def _divisor(optimizer: Any) -> Any:
    """What an optimizer divides gradients by before it applies them, 1 for nothing."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        # Built at its first use, and only then is there a variable.
        built = optimizer.built
        return tf.convert_to_tensor(optimizer.dynamic_scale) if built else optimizer.initial_scale
    return getattr(optimizer, "loss_scale_factor", None) or 1.0


def recorded_apply_gradients(self: Any, grads_and_vars: Any, **_options: Any) -> None:
    """Hands all that an optimizer is given to its `apply`."""
    # Keras's own rejects an empty list, which is what is left where every gradient is None.
    pairs = list(grads_and_vars)
    self.apply([gradient for gradient, _ in pairs], [variable for _, variable in pairs])


def recorded_scale(recording: Recording) -> Replacement:
    """Has an optimizer note the losses that it scales."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def scale_loss(self: Any, loss: Any) -> Any:
            scaled = original(self, loss)
            if scaled is not loss:
                recording.loss_scales.append((scaled, loss))
                recording.scaling.append((self, bool(self.built)))
            return scaled

        return scale_loss

    return make
