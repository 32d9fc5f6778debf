"""The loss that a model is compiled with, in its parts, whatever its `train_step` computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfcheck.internals import copy_mask
from tfcheck.trace.recording import Recording
from tfcheck.trace.steps import Step, takes_training

PENALTIES = "regularisation losses"
ADDED = "losses that layers add"
DATA = "output"
"""The names of the parts; outputs are numbered from 0."""


class CompiledStep:
    """The compiled loss in parts, each with a tape of its own.

    Attributes:
        step: the step that differentiates the parts.
        parts: their names, known once the step is traced: one for each output, `PENALTIES` and
            `ADDED`; then what may have been ignored, such as `"the sample weights"`, for the loss
            of all outputs without it.
    """

    def __init__(self, model: keras.Model) -> None:
        self.parts: list[str] = []
        self._model = model
        self.step = Step(model, "compiled", self._run)

    def _run(self, data: Any, _recording: Recording) -> None:
        model = self._model
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        variables = model.trainable_variables
        parts: dict[str, Any] = {}
        with tf.GradientTape(persistent=True) as tape:
            y_pred = model(x, training=True) if takes_training(model) else model(x)
            everything = _total([tf.reduce_sum(loss) for loss in model.losses])
            penalties = _total([v.regularizer(v) for v in variables if v.regularizer is not None])

            def of_outputs(outputs: Any, weight: Any = sample_weight) -> Any:
                return keras.Model.compute_loss(model, x, y, outputs, weight) - everything

            for number, outputs in enumerate(_one_by_one(y_pred)):
                parts[f"{DATA} {number}"] = of_outputs(outputs)
            parts[PENALTIES] = penalties
            parts[ADDED] = everything - penalties
            unmasked = tf.nest.map_structure(tf.identity, y_pred)
            if sample_weight is not None:
                parts["the sample weights"] = of_outputs(y_pred, None)
                parts["the sample weights and the mask"] = of_outputs(unmasked, None)
            parts["the mask"] = of_outputs(unmasked)
        for loss in parts.values():
            tape.gradient(loss, variables)
        self.parts[:] = list(parts)


def _one_by_one(y_pred: Any) -> list[Any]:
    """The outputs, each time with the gradients of all but one stopped."""
    flat = tf.nest.flatten(y_pred)
    if len(flat) == 1:
        return [y_pred]
    stopped = [tf.stop_gradient(output) for output in flat]
    for output, copy in zip(flat, stopped, strict=True):
        copy_mask(output, copy)
    return [
        tf.nest.pack_sequence_as(y_pred, [*stopped[:i], output, *stopped[i + 1 :]])
        for i, output in enumerate(flat)
    ]


def _total(terms: Sequence[Any]) -> Any:
    return tf.add_n([tf.cast(term, keras.config.floatx()) for term in (0.0, *terms)])
