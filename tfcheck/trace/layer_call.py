"""A call of a layer by itself, ready to be traced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from tfcheck.trace.batch import Batch, layer_inputs, split_arguments
from tfcheck.trace.steps import Step, layer_step, plain_call
from tfcheck.trace.tracing import build_layer


def layer_call(
    layer: keras.Layer,
    inputs: Sequence[Any],
    arguments: Mapping[str, Any] | None,
    output_gradients: Any,
    phase: str,
) -> tuple[Step, Batch]:
    """A call of a layer, which is built if it is not, and what it is given.

    Args:
        layer: the layer.
        inputs: the positional arguments.
        arguments: the named ones, None for none.
        output_gradients: weights of the outputs, None for random ones.
        phase: `"train"` or `"inference"`.
    """
    named, fixed = split_arguments(arguments)
    batch = layer_inputs((*inputs, named) if named else inputs)
    # Built as at inference: a call in training would move the averages of a batch normalization.
    build_layer(layer, batch, plain_call(layer, "inference", fixed, named=bool(named)))
    call = plain_call(layer, phase, fixed, named=bool(named))
    return layer_step(layer, call, output_gradients=output_gradients), batch
