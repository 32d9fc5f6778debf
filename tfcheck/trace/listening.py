"""Listening to a training step while it runs: to its tapes, its optimizers and its layers."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

import keras
import tensorflow as tf

from tfcheck.internals import telling_of_tapes
from tfcheck.trace.layers import gated_layer, noted_backward, noted_compiled, noted_loss
from tfcheck.trace.optimizers import recorded_apply, recorded_apply_gradients, recorded_scale
from tfcheck.trace.recording import Recording
from tfcheck.trace.tapes import (
    recorded_gradient,
    recording_begins,
    recording_ends,
    recording_pauses,
)
from tfcheck.unchanged.patching import put_in_place, threads_inherit


@contextlib.contextmanager
def listening(recording: Recording) -> Iterator[None]:
    """Record tapes and optimizers while the block runs; optimizers then apply nothing.

    This thread's alone, and those of threads that it starts in the block.
    """
    base = keras.optimizers.Optimizer
    with contextlib.ExitStack() as undo, threads_inherit():
        put = functools.partial(put_in_place, undo)
        put(tf.GradientTape, "gradient", recorded_gradient(recording))
        put(tf.GradientTape, "__enter__", recording_begins(recording))
        put(tf.GradientTape, "__exit__", recording_ends(recording))
        put(tf.GradientTape, "stop_recording", recording_pauses(recording))
        put(keras.Model, "compute_metrics", lambda _: lambda *_args, **_options: {})
        put(base, "apply_gradients", lambda _: recorded_apply_gradients)
        put(keras.Model, "compute_loss", noted_compiled(recording))
        put(keras.losses.Loss, "__call__", noted_loss(recording))
        put(keras.Layer, "__call__", gated_layer(recording))
        put(*telling_of_tapes(), noted_backward(recording))
        for optimizer in (base, *_descendants(base)):
            if optimizer is base or "apply" in vars(optimizer):
                put(optimizer, "apply", recorded_apply(recording))
            if "scale_loss" in vars(optimizer):
                put(optimizer, "scale_loss", recorded_scale(recording))
        yield


def _descendants(cls: type) -> list[type]:
    children: list[type] = cls.__subclasses__()
    return list(dict.fromkeys([*children, *(d for child in children for d in _descendants(child))]))
