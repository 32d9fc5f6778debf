"""Right models of sequences: recurrence, attention and masks."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from right import Case, net, out_of_reach, series, tricky, wired

L = keras.layers


@tricky
def stateful_recurrence(rng: np.random.Generator) -> Case:
    """A stateful LSTM that carries its state from batch to batch; the state is not at zero."""
    model = keras.Sequential(
        [keras.Input(batch_shape=(3, 5, 3)), L.LSTM(3, stateful=True), L.Dense(2)], name="net"
    )
    model.compile("sgd", "mse")
    x, y = series(rng)
    model.predict_on_batch(x)
    return Case(model, x, y)


@tricky
def recurrences_with_masks(rng: np.random.Generator) -> Case:
    """Bidirectional LSTM and GRU over sequences of unequal length, one of them empty."""
    x, y = series(rng)
    x[0, 2:] = 0
    x[1] = 0
    layers = [
        L.Masking(),
        L.Bidirectional(L.LSTM(2, return_sequences=True)),
        L.GRU(3, return_sequences=True, reset_after=False),
        L.GRU(2, go_backwards=True),
        L.Dense(2),
    ]
    return Case(net(*layers, shape=(5, 3)), x, y)


@tricky
def recurrent_dropout(rng: np.random.Generator) -> Case:
    """Dropout on inputs and states of stacked recurrent cells."""
    cells = [L.LSTMCell(2, dropout=0.3, recurrent_dropout=0.3), L.GRUCell(3, recurrent_dropout=0.4)]
    layers = [L.RNN(cells), L.Dropout(0.5), L.Dense(2)]
    return Case(net(*layers, shape=(5, 3)), *series(rng))


@tricky
def position_embeddings_and_grouped_queries(rng: np.random.Generator) -> Case:
    """A transformer block with grouped queries, a padding mask and a tied output embedding."""
    ids = keras.Input((5,), dtype="int32")
    table = L.Embedding(9, 4, mask_zero=True)
    x = table(ids)
    attention = L.GroupQueryAttention(4, 4, 2, dropout=0.1)
    x = L.LayerNormalization()(x + attention(x, x, use_causal_mask=True))
    x = x + L.Dense(4)(L.Dense(6, activation="gelu")(x))
    logits = L.Lambda(lambda h: h, name="hidden")(x)
    model = keras.Model(ids, L.Dense(9)(logits))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0)
    model.compile("adamw", loss)
    tokens = np.array([[1, 2, 3, 4, 5], [6, 7, 0, 0, 0], [8, 8, 8, 1, 0]], np.int32)
    return Case(model, tokens, np.roll(tokens, -1, 1))


@tricky
def additive_attention_with_masks(rng: np.random.Generator) -> Case:
    """Scaled dot-product and additive attention, some keys masked by −1e9."""

    def wire(model: Any, x: Any, training: bool) -> Any:
        mask = tf.reduce_any(x != 0, -1)
        one = model.dot([x, x], mask=[None, mask], training=training)
        two = model.additive([x, x], mask=[None, mask], training=training)
        return model.head(tf.reduce_mean(tf.concat([one, two], -1), 1))

    x, y = series(rng)
    x[0, 3:] = 0
    dot = L.Attention(use_scale=True, dropout=0.2)
    return Case(wired(wire, x, dot=dot, additive=L.AdditiveAttention(), head=L.Dense(2)), x, y)


@tricky
def connectionist_temporal_classification(rng: np.random.Generator) -> Case:
    """The CTC loss, a sum over all alignments with a gradient of its own."""
    model = net(L.Dense(4), shape=(8, 3), loss=keras.losses.CTC())
    return Case(model, rng.normal(size=(2, 8, 3)), np.array([[1, 2, 0], [3, 3, 1]], np.int32))


@out_of_reach
def masked_by_accidental_zeros(rng: np.random.Generator) -> Case:
    """Masking after a layer whose bias is still zero: the loss jumps as soon as it moves."""
    x, y = series(rng)
    x[0, 3:] = 0
    layers = [L.Dense(3), L.Masking(), L.LSTM(2), L.Dense(2)]
    return Case(net(*layers, shape=(5, 3)), x, y)
