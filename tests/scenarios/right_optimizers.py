"""Right models whose optimizers do more than descend, or that a strategy distributes."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from right import Case, around, dense, tricky, vectors

L = keras.layers


@tricky
def optimizers_that_do_more(rng: np.random.Generator) -> Case:
    """Averages, weight decay, clipping, accumulation and a schedule, after one step."""
    schedule = keras.optimizers.schedules.CosineDecay(1e-2, 10)
    optimizer = keras.optimizers.AdamW(
        schedule,
        weight_decay=0.1,
        global_clipnorm=0.1,
        use_ema=True,
        ema_overwrite_frequency=2,
        gradient_accumulation_steps=2,
    )
    model = around(dense(), optimizer=optimizer)
    x, y = vectors(rng)
    model.train_on_batch(x, y)
    return Case(model, x, y)


@tricky
def muon_and_its_friends(rng: np.random.Generator) -> Case:
    """An optimizer that orthogonalises the gradients of kernels."""
    return Case(around(dense(), optimizer=keras.optimizers.Muon(1e-2)), *vectors(rng))


@tricky
def distributed(rng: np.random.Generator) -> Case:
    """Variables made under a distribution strategy."""
    with tf.distribute.OneDeviceStrategy("/cpu:0").scope():
        model = around(dense(), optimizer="adam")
    return Case(model, *vectors(rng))


@tricky
def mirrored(rng: np.random.Generator) -> Case:
    """Variables of a mirrored strategy."""
    with tf.distribute.MirroredStrategy(["/cpu:0"]).scope():
        model = around(dense(), L.BatchNormalization(), optimizer="adam")
    return Case(model, *vectors(rng))
