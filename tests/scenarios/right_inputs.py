"""Right models with inputs and outputs of many kinds."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from formula import Formula
from right import Case, around, dense, net, series, tricky, vectors, wired

L = keras.layers


@tricky
def strings_as_inputs(rng: np.random.Generator) -> Case:
    """Look-ups of strings and hashes of them, inside the model."""
    words = keras.Input((2,), dtype="string")
    looked_up = L.StringLookup(vocabulary=["a", "b", "c"])(words)
    rows = L.Embedding(5, 3)(looked_up)
    hashed = L.CategoryEncoding(4, output_mode="count")(L.Hashing(4)(words))
    joined = L.Concatenate()([L.Flatten()(rows), hashed])
    model = keras.Model(words, L.Dense(2)(joined))
    model.compile("sgd", "mse")
    x = tf.constant([["a", "b"], ["c", "never seen"], ["b", "b"]])
    return Case(model, x, rng.normal(size=(3, 2)))


@tricky
def ragged_inputs(rng: np.random.Generator) -> Case:
    """Sequences of unequal length in a ragged tensor, one of them empty."""
    ids = tf.ragged.constant([[1, 2, 2], [], [3, 1]], dtype=tf.int32)

    def wire(model: Any, ids: Any, _training: bool) -> Any:
        flat = model.table(ids.flat_values)
        return model.head(tf.reduce_sum(ids.with_flat_values(flat), axis=1))

    model = wired(wire, ids, table=L.Embedding(5, 3), head=L.Dense(2))
    return Case(model, ids, rng.normal(size=(3, 2)))


@tricky
def sparse_inputs(rng: np.random.Generator) -> Case:
    """A sparse input through a dense layer."""
    inputs = keras.Input((5,), sparse=True)
    model = keras.Model(inputs, L.Dense(2)(dense()(inputs)))
    model.compile("sgd", "mse")
    x = tf.sparse.from_dense(np.eye(4, 5, dtype="float32"))
    return Case(model, x, rng.normal(size=(4, 2)))


@tricky
def graph_attention(rng: np.random.Generator) -> Case:
    """Attention over edges: gathers, a segment softmax made stable by a segment maximum."""
    source, target = tf.constant([0, 1, 1, 2, 3, 3]), tf.constant([1, 0, 2, 2, 0, 1])

    def attend(h: Any, a: Any) -> Any:
        score = tf.nn.leaky_relu(tf.concat([tf.gather(h, source), tf.gather(h, target)], -1) @ a)
        top = tf.stop_gradient(tf.gather(tf.math.unsorted_segment_max(score, target, 4), target))
        weight = tf.exp(score - top)
        total = tf.gather(tf.math.unsorted_segment_sum(weight, target, 4), target)
        messages = weight / total * tf.gather(h, source)
        return h + tf.math.unsorted_segment_sum(messages, target, 4)

    return Case(around(Formula(attend, {"a": (8, 1)}, name="edges")), *vectors(rng, 4))


@tricky
def weights_of_samples(rng: np.random.Generator) -> Case:
    """Sample weights of zero, one and a thousand, on a loss for each time step, with a mask."""
    layers = [L.Masking(), L.SimpleRNN(3, return_sequences=True), L.Dense(1)]
    x, _ = series(rng)
    x[0, 3:] = 0
    weight = np.array([[0.0, 1.0, 1e3, 1.0, 0.0]] * 3)
    return Case(net(*layers, shape=(5, 3)), x, rng.normal(size=(3, 5, 1)), weight)


@tricky
def outputs_without_a_loss(rng: np.random.Generator) -> Case:
    """A second output that no loss looks at: its head gets no gradient and needs none."""
    inputs = keras.Input((3,))
    hidden = dense()(inputs)
    model = keras.Model(inputs, [L.Dense(2)(hidden), L.Dense(2, name="unused")(hidden)])
    model.compile("sgd", ["mse", None])
    x, y = vectors(rng)
    return Case(model, x, [y, y], reason="unused")


@tricky
def many_rows_few_used(rng: np.random.Generator) -> Case:
    """An embedding of 20,000 rows with a penalty, of which a batch uses three."""
    layers = [L.Embedding(20000, 4, embeddings_regularizer="l2"), L.Flatten(), L.Dense(2)]
    ids = np.array([[1, 19999], [7, 7]])
    return Case(net(*layers, shape=(2,), dtype="int32"), ids, rng.normal(size=(2, 2)))


@tricky
def buckets_and_integers(rng: np.random.Generator) -> Case:
    """Whole numbers, one-hot codes and buckets of floats in a dictionary of inputs."""
    inputs = {
        "age": keras.Input((1,), name="age"),
        "city": keras.Input((1,), dtype="int32", name="city"),
    }
    bucket = L.Discretization([20.0, 40.0], output_mode="one_hot")(inputs["age"])
    city = L.IntegerLookup(vocabulary=[10, 20, 30], output_mode="multi_hot")(inputs["city"])
    joined = L.Concatenate()([inputs["age"], bucket, city])
    outputs = {"a": L.Dense(2, name="a")(joined), "b": dense(1, name="b")(joined)}
    model = keras.Model(inputs, outputs)
    model.compile("sgd", {"a": "mse", "b": "mae"}, loss_weights={"a": 0.1, "b": 10.0})
    x = {"age": rng.uniform(10, 60, size=(4, 1)), "city": np.array([[10], [30], [99], [20]])}
    return Case(model, x, {"a": rng.normal(size=(4, 2)), "b": rng.normal(size=(4, 1))})
