"""Right models that naive gradient checkers take for wrong: every one of them must pass."""

# mypy: allow-subclassing-any

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from fingerprint import nothing_changes

from tfcheck import GradientReport, Verdict, check_gradients

Call = Callable[..., Any]
L = keras.layers


@dataclass(frozen=True)
class Case:
    """A right model and a batch on which it is hard to see that it is.

    Attributes:
        model: a built and compiled model.
        x: inputs of the batch.
        y: targets of the batch. Defaults to None.
        sample_weight: weights of the samples. Defaults to None.
        reason: a reason that some variable must pass with. Defaults to any.
        options: options of the check. Defaults to none.
        raw: variables that the model trains and Keras does not list. Defaults to none.
    """

    model: keras.Model
    x: Any
    y: Any = None
    sample_weight: Any = None
    reason: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    raw: tuple[tf.Variable, ...] = ()


Build = Callable[[np.random.Generator], Case]
TRICKY: dict[str, Build] = {}
OUT_OF_REACH: dict[str, Build] = {}
"""Right models of which nothing can be said: they may stay open, but must not be accused."""


def tricky(build: Build) -> Build:
    """Enter a builder of a right model in the table, under its name."""
    TRICKY[build.__name__.replace("_", " ")] = build
    return build


def out_of_reach(build: Build) -> Build:
    """Enter a builder in the table of right models that may stay open."""
    OUT_OF_REACH[build.__name__.replace("_", " ")] = build
    return build


class Formula(keras.layers.Layer):
    """A layer that computes `formula(x, *weights)`.

    Args:
        formula: the function.
        weights: shape of each weight by its name; `{"w": (4, 3)}` makes a weight `w`.
        start: initializer of the weights. Defaults to random normal numbers.
    """

    def __init__(
        self,
        formula: Call,
        weights: dict[str, tuple[int, ...]] | None = None,
        start: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.formula = formula
        self.shapes = dict(weights or {})
        self.start = start
        self.parts: list[Any] = []

    def build(self, _shape: Any) -> None:
        for name, shape in self.shapes.items():
            start = self.start or keras.initializers.RandomNormal(stddev=0.6)
            self.parts.append(self.add_weight(shape=shape, name=name, initializer=start))

    def call(self, x: Any) -> Any:
        return self.formula(x, *(tf.convert_to_tensor(part) for part in self.parts))


def net(
    *layers: keras.layers.Layer,
    shape: tuple[int | None, ...] = (3,),
    dtype: str | None = None,
    **how: Any,
) -> keras.Model:
    """A compiled network of these layers."""
    model = keras.Sequential([keras.Input(shape, dtype=dtype), *layers], name="net")
    model.compile(**{"optimizer": "sgd", "loss": "mse", **how})
    return model


def around(*middle: keras.layers.Layer, width: int = 4, **how: Any) -> keras.Model:
    """A network with some layers between two dense ones."""
    return net(L.Dense(width, name="before"), *middle, L.Dense(2, name="after"), **how)


def vectors(rng: np.random.Generator, count: int = 6) -> tuple[Any, Any]:
    """Inputs and targets for `net` and `around`."""
    return rng.normal(size=(count, 3)), rng.normal(size=(count, 2))


def series(rng: np.random.Generator, count: int = 3) -> tuple[Any, Any]:
    """Sequences of five steps with three features, and two targets for each sequence."""
    return rng.normal(size=(count, 5, 3)), rng.normal(size=(count, 2))


def images(rng: np.random.Generator, count: int = 2) -> tuple[Any, Any]:
    """Images of 6×6 pixels with two channels, and two targets for each."""
    return rng.normal(size=(count, 6, 6, 2)), rng.normal(size=(count, 2))


class Wired(keras.Model):
    """A subclassed model: `wire(model, x, training)` is its call, `parts` are its layers."""

    def __init__(self, wire: Call, parts: dict[str, Any]) -> None:
        super().__init__(name="wired")
        self.wire = wire
        for name, part in parts.items():
            setattr(self, name, part)

    def call(self, x: Any, training: bool = False) -> Any:
        return self.wire(self, x, training)


def wired(wire: Call, x: Any, how: dict[str, Any] | None = None, **parts: Any) -> keras.Model:
    """A built and compiled `Wired` model."""
    model = Wired(wire, parts)
    model(keras.tree.map_structure(_as_trained, x))
    model.compile(**{"optimizer": "sgd", "loss": "mse", **(how or {})})
    return model


def _as_trained(leaf: Any) -> Any:
    if isinstance(leaf, tf.RaggedTensor | tf.SparseTensor):
        return leaf
    tensor = tf.convert_to_tensor(leaf)
    return tf.cast(tensor, tf.float32) if tensor.dtype.is_floating else tensor


class OwnStep(keras.Sequential):
    """A model whose train_step is the function `step(model, x, y)`, which returns the loss."""

    step: Call

    def train_step(self, batch: Any) -> Any:
        x, y, _ = keras.utils.unpack_x_y_sample_weight(batch)
        return {"loss": self.step(self, x, y)}


def stepping(step: Call, *layers: Any, shape: tuple[int, ...] = (3,), **how: Any) -> keras.Model:
    """A compiled `OwnStep` model."""
    model = OwnStep([keras.Input(shape), *layers], name="own")
    model.step = step
    model.compile(**{"optimizer": "sgd", "loss": "mse", **how})
    return model


def dense(width: int = 4, **options: Any) -> keras.layers.Layer:
    """A dense layer with a smooth activation."""
    return L.Dense(width, **{"activation": "tanh", **options})


# -- kinks -----------------------------------------------------------------------------------


@tricky
def dead_units(rng: np.random.Generator) -> Case:
    """Rectifiers that no sample reaches get no gradient at all, and rightly so."""
    bias = keras.initializers.Constant([-50.0, 0.3, -50.0, 0.1])
    return Case(net(L.Dense(4, "relu", bias_initializer=bias), L.Dense(2)), *vectors(rng))


@tricky
def zero_padding_and_zero_bias(rng: np.random.Generator) -> Case:
    """Padded pixels put most rectifiers exactly on their corner."""
    x, y = images(rng)
    x[:, 2:] = 0
    conv = L.Conv2D(3, 3, padding="same", activation="relu")
    return Case(net(conv, L.Flatten(), L.Dense(2), shape=(6, 6, 2)), x, y, reason="kink")


@tricky
def pool_over_constant_images(rng: np.random.Generator) -> Case:
    """In a constant image all entries of a pool tie, wherever the weights go."""
    _, y = images(rng)
    layers = [L.Conv2D(3, 2), L.MaxPooling2D(2), L.Flatten(), L.Dense(2)]
    return Case(net(*layers, shape=(6, 6, 2)), np.ones((2, 6, 6, 2)), y)


@tricky
def huber_at_its_seam(rng: np.random.Generator) -> Case:
    """Errors of exactly 0 and ±delta, where the Huber loss changes its formula."""
    x, _ = vectors(rng)
    y = np.tile([[0.0, 1.0], [-1.0, 0.0]], (3, 1))
    return Case(net(L.Dense(2, kernel_initializer="zeros"), loss="huber"), x, y)


@tricky
def absolute_errors_of_exactly_zero(rng: np.random.Generator) -> Case:
    """A perfect fit under the mean absolute error is a corner in all directions."""
    x, _ = vectors(rng)
    return Case(net(L.Dense(2, kernel_initializer="zeros"), loss="mae"), x, np.zeros((6, 2)))


@tricky
def clipped_at_the_border(rng: np.random.Generator) -> Case:
    """Activations exactly at both borders of a clip."""
    bias = keras.initializers.Constant([1.0, -1.0, 0.5, 2.0])
    layer = L.Dense(4, kernel_initializer="zeros", bias_initializer=bias)
    clip = L.Lambda(lambda x: tf.clip_by_value(x, -1.0, 1.0))
    return Case(net(layer, clip, L.Dense(2)), *vectors(rng), reason="kink")


@tricky
def largest_two_of_equals(rng: np.random.Generator) -> Case:
    """top_k among equal activations: their sum bends, but does not jump."""
    layer = L.Dense(4, kernel_initializer="zeros")
    largest = L.Lambda(lambda x: tf.reduce_sum(tf.math.top_k(x, 2).values, -1, keepdims=True))
    return Case(net(layer, largest, L.Dense(2)), *vectors(rng))


@tricky
def sorted_activations(rng: np.random.Generator) -> Case:
    """Sorting only reorders gradients; here half of the samples are ties."""
    x, y = vectors(rng)
    x[:3] = 0
    return Case(around(L.Lambda(lambda h: tf.sort(h, axis=-1))), x, y)


@tricky
def hard_activations(rng: np.random.Generator) -> Case:
    """Inputs so large that hard sigmoid, hard swish and ReLU6 are mostly saturated."""
    x, y = vectors(rng)
    layers = [L.Activation(a) for a in ("hard_sigmoid", "hard_swish", "relu6", "hard_tanh")]
    middle = [layer for a in layers for layer in (a, L.Dense(5))]
    return Case(around(*middle), 20 * x, y)


@tricky
def maximum_of_equal_branches(rng: np.random.Generator) -> Case:
    """Maxout of two branches with the same weights: a tie at every sample."""
    maxout = Formula(
        lambda x, a, b: tf.maximum(x @ a, x @ b), {"a": (4, 3), "b": (4, 3)}, "ones", name="maxout"
    )
    return Case(around(maxout), *vectors(rng), reason="kink")


@tricky
def argmax_used_as_a_mask(rng: np.random.Generator) -> Case:
    """A mask made by argmax has no gradient and needs none: x · mask is the maximum."""
    masked = L.Lambda(lambda x: x * tf.one_hot(tf.argmax(x, -1), 4, dtype=x.dtype))
    return Case(around(masked), *vectors(rng))


@tricky
def zero_initialised_head(rng: np.random.Generator) -> Case:
    """A head of zeros passes no gradient on: the layers before it have exactly zero."""
    return Case(net(dense(), L.Dense(2, kernel_initializer="zeros")), *vectors(rng))


@tricky
def triplets_with_hard_negatives(rng: np.random.Generator) -> Case:
    """A triplet loss whose hardest positives and negatives are chosen by max and min."""

    def hardest(labels: Any, embedded: Any) -> Any:
        square = tf.reduce_sum((embedded[:, None] - embedded[None]) ** 2, -1)
        labels = tf.reshape(labels, (-1,))
        same = labels[:, None] == labels[None]
        positive = tf.reduce_max(tf.where(same, square, 0.0), 1)
        negative = tf.reduce_min(tf.where(same, 1e9, square), 1)
        return tf.reduce_mean(tf.nn.relu(positive - negative + 0.5))

    x, _ = vectors(rng)
    return Case(net(dense(), L.Dense(2), loss=hardest), x, np.array([0, 0, 1, 1, 2, 2]))


@tricky
def safe_norm_of_zero_vectors(rng: np.random.Generator) -> Case:
    """The norm of zero, guarded by two tf.where: exactly zero on the tape, a cone in truth."""

    def norm(x: Any) -> Any:
        square = tf.reduce_sum(x**2, -1, keepdims=True)
        safe = tf.where(square > 0, square, 1.0)
        return tf.where(square > 0, tf.sqrt(safe), 0.0)

    x, y = vectors(rng)
    x[:2] = 0
    return Case(net(L.Dense(4), L.Lambda(norm), L.Dense(2)), x, y)


@tricky
def segments_and_their_maxima(rng: np.random.Generator) -> Case:
    """Segment sums, means and maxima over a batch, with ties and an empty segment."""
    ids = tf.constant([0, 0, 1, 1, 3, 3])

    def pooled(x: Any) -> Any:
        parts = [
            tf.math.unsorted_segment_sum(x, ids, 4),
            tf.math.unsorted_segment_mean(x, ids, 4),
            tf.math.segment_max(x, ids),
        ]
        return tf.gather(tf.concat(parts, -1), ids)

    x, y = vectors(rng)
    x[1] = x[0]
    return Case(around(L.Lambda(pooled)), x, y)


# -- gradients that are zero, vanishing, tiny or huge ----------------------------------------


@tricky
def bias_of_attention_keys(rng: np.random.Generator) -> Case:
    """A key bias shifts all scores of a query alike: its gradient is zero but for round-off."""
    inputs = keras.Input((5, 3))
    attended = L.MultiHeadAttention(2, 3)(inputs, inputs, use_causal_mask=True)
    model = keras.Model(inputs, L.Dense(2)(L.GlobalMaxPooling1D()(attended)))
    model.compile("adam", "mse")
    return Case(model, *series(rng), reason="below_resolution")


@tricky
def bias_before_normalisation(rng: np.random.Generator) -> Case:
    """BatchNorm takes out the bias before it, on a batch of two."""
    layers = [L.BatchNormalization(), L.Activation("tanh")]
    return Case(around(*layers), *vectors(rng, 2), reason="below_resolution")


@tricky
def shift_shared_by_all_logits(rng: np.random.Generator) -> Case:
    """Adding one number to all logits changes no probability."""
    x, _ = vectors(rng)
    shift = Formula(lambda z, s: z + s, {"s": (1,)}, name="shift")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = net(dense(), L.Dense(3), shift, loss=loss)
    return Case(model, x, np.array([0, 1, 2, 0, 1, 2]), reason="below_resolution")


@tricky
def deep_and_vanishing(rng: np.random.Generator) -> Case:
    """Twelve sigmoid layers: the first get a gradient smaller by many powers of ten."""
    return Case(net(*(L.Dense(3, "sigmoid") for _ in range(12)), L.Dense(2)), *vectors(rng))


@tricky
def squared_again_and_again(rng: np.random.Generator) -> Case:
    """Twelve layers that square small numbers: what the last are given is 1e-200 and less."""
    x, y = vectors(rng)
    squares = [part for _ in range(12) for part in (L.Dense(3), L.Lambda(lambda z: z * z))]
    return Case(net(*squares, L.Dense(2)), 0.1 * x, y)


@tricky
def almost_trained_to_the_end(rng: np.random.Generator) -> Case:
    """Errors of 1e-5: the loss is 1e-10, and its gradient is still right."""
    x, y = vectors(rng)
    model = around(L.Activation("tanh"))
    return Case(model, x, model.predict_on_batch(x) + 1e-5 * y)


@tricky
def weights_of_a_million(rng: np.random.Generator) -> Case:
    """A kernel of size 1e6 behind inputs of size 1e-6."""
    start = keras.initializers.RandomNormal(stddev=1e6)
    x, y = vectors(rng)
    return Case(net(dense(4, kernel_initializer=start), L.Dense(2)), 1e-6 * x, y)


@tricky
def inputs_that_nobody_scaled(rng: np.random.Generator) -> Case:
    """Inputs of 1e4 and targets of 1e6 under a squared loss."""
    x, y = vectors(rng)
    return Case(net(L.Dense(4, "relu"), L.Dense(2)), 1e4 * x, 1e6 * y)


@tricky
def loss_with_a_large_constant(rng: np.random.Generator) -> Case:
    """A constant of 1e5 hides the loss from single precision."""
    return Case(
        around(dense(), loss=lambda y, p: 1e5 + tf.reduce_mean((y - p) ** 2)), *vectors(rng)
    )


# -- normalisation and reparametrisation -----------------------------------------------------


@tricky
def normalisations_of_all_kinds(rng: np.random.Generator) -> Case:
    """Batch, synchronised, group, layer, RMS and unit normalisation after another."""
    layers = [
        L.Conv2D(4, 3),
        L.BatchNormalization(synchronized=True),
        L.GroupNormalization(2),
        L.Activation("gelu"),
        L.Conv2D(4, 2),
        L.LayerNormalization(),
        L.RMSNormalization(),
        L.UnitNormalization(),
        L.Flatten(),
        L.Dense(2),
    ]
    return Case(net(*layers, shape=(6, 6, 2)), *images(rng, 3))


@tricky
def batch_normalisation_of_a_constant(rng: np.random.Generator) -> Case:
    """A feature without any variance: 1/sqrt(0 + epsilon), and a large curvature."""
    x, y = vectors(rng)
    x[:, 1] = 2.0
    return Case(net(L.BatchNormalization(), dense(), L.Dense(2)), x, y)


@tricky
def spectral_normalisation(rng: np.random.Generator) -> Case:
    """A power iteration that assigns to its vector and kernel in every training step."""
    return Case(around(L.SpectralNormalization(dense())), *vectors(rng))


@tricky
def orthogonality_penalty(rng: np.random.Generator) -> Case:
    """‖WᵀW − 1‖² of a matrix that is orthogonal: a quartic valley with a vanishing gradient."""
    layer = dense(
        3,
        kernel_initializer="orthogonal",
        kernel_regularizer=keras.regularizers.OrthogonalRegularizer(0.1),
    )
    return Case(net(layer, L.Dense(2)), *vectors(rng))


@tricky
def low_rank_adapters(rng: np.random.Generator) -> Case:
    """LoRA: one factor is zero, so that the other one's gradient is zero, and the kernel frozen."""
    model = around(dense())
    model.layers[0].enable_lora(2)
    model.layers[1].enable_lora(2)
    return Case(model, *vectors(rng))


@tricky
def frozen_integers(rng: np.random.Generator) -> Case:
    """A frozen kernel in 8-bit integers, dequantised in the forward pass."""

    class Quantised(keras.layers.Layer):
        def build(self, shape: Any) -> None:
            self.kernel = self.add_weight(
                shape=(shape[-1], 4), dtype="int8", initializer="ones", trainable=False
            )
            self.kernel.assign(np.arange(16).reshape(4, 4) - 8)
            self.scale = self.add_weight(shape=(4,), name="scale")

        def call(self, x: Any) -> Any:
            return x @ (tf.cast(self.kernel, x.dtype) * self.scale)

    return Case(around(Quantised(), L.Activation("tanh")), *vectors(rng))


@tricky
def hypernetwork(rng: np.random.Generator) -> Case:
    """The weights of one layer are the output of another."""

    def wire(model: Any, x: Any, _training: bool) -> Any:
        weights = tf.reshape(model.maker(x), (-1, 3, 2))
        return tf.einsum("bi,bio->bo", x, weights)

    x, y = vectors(rng)
    return Case(wired(wire, x, maker=dense(6)), x, y)


# -- recurrence, sequences and masks ---------------------------------------------------------


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


# -- inputs and outputs of many kinds --------------------------------------------------------


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


# -- losses ----------------------------------------------------------------------------------


@tricky
def cross_entropy_of_saturated_probabilities(rng: np.random.Generator) -> Case:
    """Probabilities of 1 − 1e-9, which Keras clips, beside ordinary ones."""
    start = keras.initializers.RandomNormal(stddev=20.0)
    layer = L.Dense(3, "softmax", kernel_initializer=start)
    x, _ = vectors(rng)
    y = np.eye(3)[[0, 1, 2, 0, 1, 2]]
    return Case(net(layer, loss="categorical_crossentropy"), x, y)


@tricky
def binary_probabilities_behind_a_clip(rng: np.random.Generator) -> Case:
    """Raw sigmoids of ±30 in a binary cross-entropy from probabilities, clipped at 1e-7."""
    bias = keras.initializers.Constant([30.0, -30.0])
    layers = [L.Dense(2, bias_initializer=bias), L.Lambda(tf.sigmoid)]
    x, _ = vectors(rng)
    y = rng.integers(0, 2, size=(6, 2))
    return Case(net(*layers, loss="binary_crossentropy"), x, y)


@tricky
def divergences(rng: np.random.Generator) -> Case:
    """Kullback-Leibler, Poisson, log-cosh and cosine losses, with targets that are zero."""
    inputs = keras.Input((3,))
    heads = [L.Dense(2, a)(inputs) for a in ("softmax", "softplus", None, None)]
    model = keras.Model(inputs, heads)
    model.compile("sgd", ["kl_divergence", "poisson", "log_cosh", "cosine_similarity"])
    x, y = vectors(rng)
    share = np.eye(2)[[0, 1, 1, 0, 1, 0]]
    count = rng.integers(0, 3, size=(6, 2)).astype(float)
    y[:2] = 0
    return Case(model, x, [share, count, 30 * y, y])


@tricky
def contrastive_loss_over_the_batch(rng: np.random.Generator) -> Case:
    """InfoNCE: each sample against all others, a diagonal masked by −1e9, a low temperature."""

    def loss(_y: Any, p: Any) -> Any:
        z = tf.math.l2_normalize(p, -1)
        logits = z @ tf.transpose(z) / 0.05 - 1e9 * tf.eye(6)
        return tf.nn.sparse_softmax_cross_entropy_with_logits([1, 0, 3, 2, 5, 4], logits)

    return Case(around(dense(), loss=loss), *vectors(rng))


# -- training steps of one's own -------------------------------------------------------------


@tricky
def gradient_penalty(rng: np.random.Generator) -> Case:
    """A tape in a tape: the norm of the gradient at mixed inputs is driven to one."""

    def step(model: Any, x: Any, y: Any) -> Any:
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                inner.watch(x)
                score = model(x, training=True)
            slope = inner.gradient(score, x)
            norm = tf.sqrt(tf.reduce_sum(slope**2, 1) + 1e-12)
            loss = tf.reduce_mean(score) + 10 * tf.reduce_mean((norm - 1) ** 2)
        gradients = outer.gradient(loss, model.trainable_variables)
        model.optimizer.apply(gradients, model.trainable_variables)
        return loss

    return Case(stepping(step, dense(), L.Dense(1)), *vectors(rng))


@tricky
def second_derivatives(rng: np.random.Generator) -> Case:
    """A physics-informed loss: u'' + u = 0 with second derivatives by two inner tapes."""

    def step(model: Any, x: Any, y: Any) -> Any:
        with tf.GradientTape() as outer:
            with tf.GradientTape() as second:
                second.watch(x)
                with tf.GradientTape() as first:
                    first.watch(x)
                    u = model(x, training=True)
                slope = first.gradient(u, x)
            curvature = second.gradient(slope, x)
            loss = tf.reduce_mean((curvature + u) ** 2) + tf.reduce_mean((u - y) ** 2)
        gradients = outer.gradient(loss, model.trainable_variables)
        model.optimizer.apply(gradients, model.trainable_variables)
        return loss

    model = stepping(step, dense(8), dense(8), L.Dense(1), shape=(1,), optimizer="adam")
    return Case(model, rng.normal(size=(6, 1)), rng.normal(size=(6, 1)))


@tricky
def sharpness_aware(rng: np.random.Generator) -> Case:
    """SAM: the second gradient is taken at weights moved uphill, and used at the old ones."""

    def step(model: Any, x: Any, y: Any) -> Any:
        weights = model.trainable_variables
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
        uphill = tape.gradient(loss, weights)
        norm = tf.linalg.global_norm(uphill)
        for weight, up in zip(weights, uphill, strict=True):
            weight.assign_add(0.05 * up / norm)
        with tf.GradientTape() as tape:
            above = tf.reduce_mean((model(x, training=True) - y) ** 2)
        gradients = tape.gradient(above, weights)
        for weight, up in zip(weights, uphill, strict=True):
            weight.assign_sub(0.05 * up / norm)
        model.optimizer.apply(gradients, weights)
        return loss

    return Case(stepping(step, dense(), L.Dense(2)), *vectors(rng))


@tricky
def accumulated_gradients(rng: np.random.Generator) -> Case:
    """Gradients gathered in variables over two batches, and applied every other time."""
    model = stepping(lambda *_: None, dense(), L.Dense(2))
    sums = [tf.Variable(tf.zeros(v.shape), trainable=False) for v in model.trainable_variables]
    count = tf.Variable(0, trainable=False)

    def step(model: Any, x: Any, y: Any) -> Any:
        weights = model.trainable_variables
        with tf.GradientTape() as tape:
            loss = model.compute_loss(y=y, y_pred=model(x, training=True)) / 2
        for total, gradient in zip(sums, tape.gradient(loss, weights), strict=True):
            total.assign_add(gradient)
        count.assign_add(1)

        def apply() -> Any:
            model.optimizer.apply([tf.identity(total) for total in sums], weights)
            for total in sums:
                total.assign(tf.zeros_like(total))
            return 0

        tf.cond(count % 2 == 0, apply, lambda: 0)
        return loss

    model.step = step
    model.optimizer.build(model.trainable_variables)
    return Case(model, *vectors(rng), raw=(*sums, count))


@tricky
def micro_batches(rng: np.random.Generator) -> Case:
    """A batch taken in three slices, whose gradients are added up before one step."""

    def step(model: Any, x: Any, y: Any) -> Any:
        weights = model.trainable_variables
        total = [tf.zeros(v.shape) for v in weights]
        for i in range(3):
            with tf.GradientTape() as tape:
                error = model(x[2 * i : 2 * i + 2], training=True) - y[2 * i : 2 * i + 2]
                loss = tf.reduce_mean(error**2) / 3
            total = [t + g for t, g in zip(total, tape.gradient(loss, weights), strict=True)]
        model.optimizer.apply(total, weights)
        return loss

    return Case(stepping(step, dense(), L.Dense(2)), *vectors(rng))


class Sampling(keras.layers.Layer):
    """z = mean + exp(log variance / 2) · noise, and its divergence from the prior as a loss."""

    def __init__(self) -> None:
        super().__init__()
        self.seeds = keras.random.SeedGenerator(3)

    def call(self, moments: Any) -> Any:
        mean, log_variance = tf.split(moments, 2, -1)
        divergence = 1 + log_variance - mean**2 - tf.exp(log_variance)
        self.add_loss(-0.5 * tf.reduce_mean(tf.reduce_sum(divergence, -1)))
        noise = keras.random.normal(tf.shape(mean), seed=self.seeds)
        return mean + tf.exp(0.5 * log_variance) * noise


@tricky
def variational_autoencoder(rng: np.random.Generator) -> Case:
    """Reparametrised sampling from a seed generator, and a divergence as a loss of the layer."""
    x, _ = vectors(rng)
    return Case(net(dense(), L.Dense(4), Sampling(), dense(), L.Dense(3)), x, x)


@tricky
def adversaries(rng: np.random.Generator) -> Case:
    """A GAN: two networks, tapes and optimizers, one network frozen in the other's gradient."""

    class Adversaries(keras.Model):
        def __init__(self) -> None:
            super().__init__(name="gan")
            self.maker = keras.Sequential([keras.Input((2,)), dense(), L.Dense(3)], name="maker")
            self.critic = keras.Sequential([keras.Input((3,)), dense(), L.Dense(1)], name="critic")
            self.seeds = keras.random.SeedGenerator(1)
            self.other = keras.optimizers.Adam(1e-3)

        def call(self, z: Any) -> Any:
            return self.critic(self.maker(z))

        def train_step(self, real: Any) -> Any:
            entropy = tf.nn.sigmoid_cross_entropy_with_logits
            noise = keras.random.normal((6, 2), seed=self.seeds)
            with tf.GradientTape() as one, tf.GradientTape() as two:
                fake = self.maker(noise, training=True)
                good, bad = self.critic(real, training=True), self.critic(fake, training=True)
                critics = tf.reduce_mean(
                    entropy(tf.ones_like(good), good) + entropy(tf.zeros_like(bad), bad)
                )
                makers = tf.reduce_mean(entropy(tf.ones_like(bad), bad))
            for tape, loss, part, optimizer in (
                (one, critics, self.critic, self.optimizer),
                (two, makers, self.maker, self.other),
            ):
                gradients = tape.gradient(loss, part.trainable_variables)
                optimizer.apply_gradients(zip(gradients, part.trainable_variables, strict=True))
            return {"loss": makers}

    model = Adversaries()
    model(tf.zeros((1, 2)))
    model.compile("adam")
    return Case(model, rng.normal(size=(6, 3)))


@tricky
def teacher_and_student(rng: np.random.Generator) -> Case:
    """A teacher that follows the student by moving averages, assigned before the tape."""
    teacher = keras.Sequential([keras.Input((3,)), dense(), L.Dense(2)], name="teacher")
    teacher.trainable = False

    def step(model: Any, x: Any, y: Any) -> Any:
        for slow, fast in zip(teacher.weights, model.weights, strict=True):
            slow.assign(0.9 * slow + 0.1 * fast)
        with tf.GradientTape() as tape:
            p = model(x, training=True)
            loss = tf.reduce_mean((p - y) ** 2) + tf.reduce_mean((p - teacher(x)) ** 2)
        gradients = tape.gradient(loss, model.trainable_variables)
        model.optimizer.apply(gradients, model.trainable_variables)
        return loss

    model = stepping(step, dense(), L.Dense(2))
    return Case(model, *vectors(rng), raw=tuple(v.value for v in teacher.weights))


def beside(step: Call, *networks: keras.layers.Layer) -> keras.Model:
    """A model of several networks, whose own step trains the first."""

    class Beside(keras.Model):
        def __init__(self) -> None:
            super().__init__(name="beside")
            self.networks = list(networks)

        def call(self, x: Any, training: bool = False) -> Any:
            return self.networks[0](x, training=training)

        def train_step(self, batch: Any) -> Any:
            x, y = batch
            with tf.GradientTape() as tape:
                loss = step(self, x, y)
            variables = self.networks[0].trainable_variables
            self.optimizer.apply(tape.gradient(loss, variables), variables)
            self.after()
            return {"loss": loss}

        def after(self) -> None:
            """Nothing more."""

    model = Beside()
    model.built = True
    model.compile("sgd")
    return model


def encoder(width: int = 4) -> keras.Model:
    """A network of which all print alike."""
    return keras.Sequential(
        [keras.Input((3,)), L.Dense(width, activation="tanh", name="hidden"), L.Dense(2)],
        name="encoder",
    )


def close_to_the_second(**how: Any) -> Call:
    """The loss of a first network that learns what a second one says."""

    def loss(model: Any, x: Any, y: Any) -> Any:
        first, second = model.networks[:2]
        p = first(x, training=True)
        return tf.reduce_mean((p - y) ** 2) + tf.reduce_mean((p - second(x, **how)) ** 2)

    return loss


@tricky
def momentum_encoder(rng: np.random.Generator) -> Case:
    """A trainable copy that the step itself keeps close; its variables print as the original's."""
    model = beside(close_to_the_second(), encoder(), encoder())

    def follow() -> None:
        for fast, slow in zip(*(network.weights for network in model.networks), strict=True):
            slow.assign(0.99 * slow + 0.01 * fast)

    model.after = follow
    return Case(model, *vectors(rng))


@tricky
def target_network(rng: np.random.Generator) -> Case:
    """A trainable copy that something else than the step brings up to date."""
    return Case(beside(close_to_the_second(), encoder(), encoder()), *vectors(rng))


@tricky
def teacher_on_the_tape(rng: np.random.Generator) -> Case:
    """A larger teacher within the tape's sight, not frozen, but called as at inference."""
    return Case(beside(close_to_the_second(training=False), encoder(), encoder(9)), *vectors(rng))


@tricky
def judge_on_the_tape(rng: np.random.Generator) -> Case:
    """A network that judges what the first one makes, not frozen, but called as at inference."""

    def loss(model: Any, x: Any, y: Any) -> Any:
        first, judge = model.networks
        made = first(x, training=True)
        return tf.reduce_mean((judge(made, training=False) - judge(y, training=False)) ** 2)

    judge = keras.Sequential([keras.Input((2,)), dense(5)], name="judge")
    return Case(beside(loss, encoder(), judge), *vectors(rng))


@tricky
def frozen_and_captured(rng: np.random.Generator) -> Case:
    """A frozen layer that a lambda captures, frozen after it was built."""
    features = dense(name="features")
    features.build((None, 4))
    features.trainable = False
    return Case(around(L.Lambda(lambda x: 2 * features(x))), *vectors(rng))


@tricky
def judged_by_a_network(rng: np.random.Generator) -> Case:
    """A loss that another network computes, which is none of the model's and not frozen."""
    judge = keras.Sequential([keras.Input((2,)), dense(), L.Dense(3)])
    loss = lambda y, p: tf.reduce_mean((judge(y) - judge(p)) ** 2)  # noqa: E731
    return Case(around(dense(), loss=loss), *vectors(rng))


@tricky
def state_that_nobody_tracks(rng: np.random.Generator) -> Case:
    """A running mean and a counter in plain variables, trainable by TensorFlow's default."""
    mean, count = tf.Variable(tf.zeros((4,))), tf.Variable(1.0)

    def centred(x: Any) -> Any:
        mean.assign(0.9 * mean + 0.1 * tf.reduce_mean(x, 0))
        count.assign_add(1.0)
        return (x - mean) / tf.sqrt(count)

    layer = L.Lambda(centred)
    return Case(around(layer), *vectors(rng), raw=(mean, count))


@tricky
def policy_gradient(rng: np.random.Generator) -> Case:
    """REINFORCE with a baseline that is stopped on purpose: the surrogate's gradient is right."""

    def step(model: Any, x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            logits = model(x, training=True)
            chosen = tf.random.stateless_categorical(logits, 1, seed=(1, 2))[:, 0]
            log_p = -tf.nn.sparse_softmax_cross_entropy_with_logits(chosen, logits)
            reward = tf.reduce_sum(y * tf.one_hot(chosen, 2), -1)
            advantage = reward - tf.reduce_mean(reward)
            loss = -tf.reduce_mean(advantage * log_p)
        gradients = tape.gradient(loss, model.trainable_variables)
        model.optimizer.apply(gradients, model.trainable_variables)
        return loss

    return Case(stepping(step, dense(), L.Dense(2)), *vectors(rng))


@tricky
def unrolled_inner_step(rng: np.random.Generator) -> Case:
    """MAML: a step downhill inside of the loss, with the gradient of the gradient."""

    def predict(weights: Any, x: Any) -> Any:
        return tf.tanh(x @ weights[0] + weights[1]) @ weights[2] + weights[3]

    def step(model: Any, x: Any, y: Any) -> Any:
        with tf.GradientTape() as outer:
            weights = [tf.convert_to_tensor(v) for v in model.trainable_variables]
            with tf.GradientTape() as inner:
                inner.watch(weights)
                loss = tf.reduce_mean((predict(weights, x[:3]) - y[:3]) ** 2)
            down = inner.gradient(loss, weights)
            weights = [w - 0.3 * g for w, g in zip(weights, down, strict=True)]
            loss = tf.reduce_mean((predict(weights, x[3:]) - y[3:]) ** 2)
        gradients = outer.gradient(loss, model.trainable_variables)
        model.optimizer.apply(gradients, model.trainable_variables)
        return loss

    return Case(stepping(step, dense(), L.Dense(2)), *vectors(rng))


# -- TensorFlow's own ways -------------------------------------------------------------------


@tricky
def recomputed_blocks(rng: np.random.Generator) -> Case:
    """Activations thrown away and computed again for the gradient, weights included."""

    def wire(model: Any, x: Any, _training: bool) -> Any:
        return model.head(tf.recompute_grad(model.block)(x))

    x, y = vectors(rng)
    block = keras.Sequential([keras.Input((3,)), dense(), dense(3)], name="block")
    return Case(wired(wire, x, block=block, head=L.Dense(2)), x, y)


@tricky
def equilibrium_by_the_implicit_theorem(rng: np.random.Generator) -> Case:
    """A fixed point found by a loop, with the gradient of the implicit function theorem."""

    @tf.custom_gradient
    def settle(x: Any, w: Any) -> Any:
        z = tf.zeros_like(x)
        for _ in range(60):
            z = tf.tanh(z @ w + x)

        def backward(g: Any) -> Any:
            bend = 1 - z**2
            solved = g
            for _ in range(60):
                solved = g + (solved * bend) @ tf.transpose(w)
            return solved * bend, tf.transpose(z) @ (solved * bend)

        return z, backward

    start = keras.initializers.RandomNormal(stddev=0.15)
    layer = Formula(settle, {"w": (4, 4)}, start, name="settle")
    return Case(around(layer), *vectors(rng))


@tricky
def functions_within_functions(rng: np.random.Generator) -> Case:
    """A tf.function inside the call, and one more in that, traced long before."""

    @tf.function
    def inner(x: Any) -> Any:
        return tf.sin(x) * x

    @tf.function(reduce_retracing=True)
    def outer(x: Any, w: Any) -> Any:
        return inner(x @ w) + inner(x)

    model = around(Formula(outer, {"w": (4, 4)}, name="traced"))
    x, y = vectors(rng)
    model.train_on_batch(x, y)
    return Case(model, x, y)


@tricky
def loops_with_a_length_from_the_data(rng: np.random.Generator) -> Case:
    """Autograph turns a while and an if on values into graph loops of unknown length."""

    @tf.function
    def grow(x: Any) -> Any:
        count = 0
        while tf.reduce_sum(x**2) < 500.0:
            x = x * 1.5 + tf.sin(x)
            if count > 2:
                x = x + 0.1
            count += 1
        return x / 10.0

    return Case(around(L.Lambda(grow)), *vectors(rng))


@tricky
def euler_steps_of_an_ode(rng: np.random.Generator) -> Case:
    """A neural ODE: the same layer forty times in a tf.while_loop."""

    def flow(x: Any, w: Any) -> Any:
        return tf.while_loop(
            lambda i, _h: i < 40,
            lambda i, h: (i + 1, h + 0.05 * tf.tanh(h @ w)),
            (tf.constant(0), x),
            maximum_iterations=50,
        )[1]

    return Case(around(Formula(flow, {"w": (4, 4)}, name="flow")), *vectors(rng))


@tricky
def mapped_and_scanned(rng: np.random.Generator) -> Case:
    """scan, map_fn, vectorized_map and foldl over samples and steps."""

    def through(x: Any, w: Any) -> Any:
        summed = tf.scan(lambda a, row: 0.5 * a + tf.tanh(row), x)
        mapped = tf.map_fn(lambda row: tf.linalg.matvec(w, row), summed)
        squared = tf.vectorized_map(lambda row: row * tf.reduce_sum(w * row), mapped)
        return squared + tf.foldl(lambda a, row: tf.sin(a) + row, x)

    return Case(around(Formula(through, {"w": (4, 4)}, name="mapped")), *vectors(rng))


@tricky
def python_in_the_middle(rng: np.random.Generator) -> Case:
    """tf.py_function, which the tape follows into eager code."""
    sine = L.Lambda(lambda x: tf.ensure_shape(tf.py_function(tf.sin, [x], x.dtype), x.shape))
    return Case(around(sine), *vectors(rng))


@tricky
def raw_variables_in_modules(rng: np.random.Generator) -> Case:
    """Weights in a tf.Module and a list of tf.Variables, found and stepped by hand."""

    class Affine(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = tf.Variable(tf.constant(rng.normal(size=(2, 2)), tf.float32), name="w")
            self.extra = [tf.Variable([0.1, -0.2], name="b")]

        def __call__(self, x: Any) -> Any:
            return x @ self.w + self.extra[0]

    affine = Affine()

    def step(model: Any, x: Any, y: Any) -> Any:
        variables = [*affine.trainable_variables, *(v.value for v in model.trainable_variables)]
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((affine(model(x, training=True)) - y) ** 2)
        for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
            variable.assign_sub(0.01 * gradient)
        return loss

    model = stepping(step, dense(), L.Dense(2))
    return Case(model, *vectors(rng), raw=tuple(affine.variables))


@tricky
def eager_only(rng: np.random.Generator) -> Case:
    """Python decides on values, and NumPy looks at them: no graph can be traced."""

    def wire(model: Any, x: Any, _training: bool) -> Any:
        hidden = model.one(x)
        if float(tf.reduce_max(hidden)) > 1e6:
            hidden = hidden / 2
        for _ in range(int(hidden.numpy().shape[0]) // 3):
            hidden = tf.sin(hidden)
        return model.two(hidden)

    x, y = vectors(rng)
    how = {"run_eagerly": True}
    return Case(wired(wire, x, how, one=dense(), two=L.Dense(2)), x, y)


@tricky
def persistent_tape(rng: np.random.Generator) -> Case:
    """One tape asked twice, for two losses of two parts, with stop_recording in between."""

    def step(model: Any, x: Any, y: Any) -> Any:
        one, two = model.layers[0], model.layers[1]
        with tf.GradientTape(persistent=True) as tape:
            hidden = one(x)
            first = tf.reduce_mean(hidden**2)
            with tape.stop_recording():
                size = tf.norm(hidden)
            second = tf.reduce_mean((two(hidden) - y) ** 2) + 0 * size
        for part, loss in ((one, first), (two, second)):
            variables = part.trainable_variables
            model.optimizer.apply_gradients(
                zip(tape.gradient(loss, variables), variables, strict=True)
            )
        return second

    model = stepping(step, dense(), L.Dense(2))
    model.optimizer.build(model.trainable_variables)
    return Case(model, *vectors(rng))


# -- linear algebra, signals and convolutions ------------------------------------------------


@tricky
def decompositions(rng: np.random.Generator) -> Case:
    """Cholesky, solve, inverse, log determinant and eigenvalues of one positive matrix."""

    def decomposed(x: Any, a: Any) -> Any:
        positive = a @ tf.transpose(a) + 3 * tf.eye(4) + tf.linalg.diag(tf.range(4.0))
        root = tf.linalg.cholesky(positive)
        x = tf.transpose(tf.linalg.triangular_solve(root, tf.transpose(x)))
        x = x @ tf.linalg.inv(positive) + tf.transpose(tf.linalg.solve(positive, tf.transpose(x)))
        return x * tf.linalg.logdet(positive) + tf.linalg.eigvalsh(positive)

    return Case(around(Formula(decomposed, {"a": (4, 4)}, name="matrix")), *vectors(rng))


@tricky
def functions_of_matrices(rng: np.random.Generator) -> Case:
    """The exponential, determinant, QR and singular values of a square matrix."""

    def functions(x: Any, a: Any) -> Any:
        a = a + 2 * tf.linalg.diag(tf.range(1.0, 5.0))
        q, r = tf.linalg.qr(a)
        x = x @ tf.linalg.expm(0.1 * a) + x @ q + tf.linalg.diag_part(r)
        return x + tf.linalg.svd(a, compute_uv=False) + 0.01 * tf.linalg.det(a)

    return Case(around(Formula(functions, {"a": (4, 4)}, name="matrix")), *vectors(rng))


@tricky
def fourier_layer(rng: np.random.Generator) -> Case:
    """A Fourier neural operator: complex weights from two real ones, a real signal back."""

    def mix(x: Any, re: Any, im: Any) -> Any:
        spectrum = tf.signal.rfft(x)
        weights = tf.complex(re, im)
        return tf.signal.irfft(spectrum * weights, [8]) + tf.abs(tf.signal.fft(tf.complex(x, x)))

    layer = Formula(mix, {"re": (5,), "im": (5,)}, name="fourier")
    return Case(around(layer, width=8), *vectors(rng))


@tricky
def convolutions_of_all_kinds(rng: np.random.Generator) -> Case:
    """Dilated, grouped, separable, depthwise and transposed convolutions with odd paddings."""
    layers = [
        L.Conv2D(4, 2, dilation_rate=2, padding="same", activation="tanh"),
        L.Conv2D(4, 3, groups=2, strides=2, padding="same", activation="gelu"),
        L.SeparableConv2D(3, 2, depth_multiplier=2),
        L.Conv2DTranspose(2, 3, strides=2, output_padding=1),
        L.UpSampling2D(interpolation="bilinear"),
        L.DepthwiseConv2D(3, padding="same"),
        L.AveragePooling2D(3, padding="same"),
        L.Flatten(),
        L.Dense(2),
    ]
    return Case(net(*layers, shape=(6, 6, 2)), *images(rng))


@tricky
def convolutions_in_space(rng: np.random.Generator) -> Case:
    """Conv3D and MaxPool3D, the latter of which has no form in float64."""
    layers = [
        L.Conv3D(2, 2, activation="tanh"),
        L.MaxPooling3D(2),
        L.Conv3DTranspose(2, 2),
        L.GlobalAveragePooling3D(),
        L.Dense(2),
    ]
    model = net(*layers, shape=(4, 4, 4, 1))
    return Case(model, rng.normal(size=(2, 4, 4, 4, 1)), rng.normal(size=(2, 2)))


@tricky
def resized_images(rng: np.random.Generator) -> Case:
    """Crops, resizing by several rules and patches."""

    def resized(x: Any) -> Any:
        parts = [tf.image.resize(x, (5, 5), method=m) for m in ("bicubic", "bilinear", "nearest")]
        patches = tf.image.extract_patches(x, [1, 2, 2, 1], [1, 1, 1, 1], [1] * 4, "VALID")
        boxes = tf.constant([[0.1, 0.2, 0.9, 0.7], [0.0, 0.0, 1.0, 1.0]])
        cropped = tf.image.crop_and_resize(x, boxes, [0, 1], (5, 5))
        return tf.concat([*parts, tf.image.resize(patches, (5, 5)), cropped], -1)

    layers = [L.Conv2D(2, 2), L.Lambda(resized), L.Flatten(), L.Dense(2)]
    return Case(net(*layers, shape=(6, 6, 2)), *images(rng))


@tricky
def spatial_transformer(rng: np.random.Generator) -> Case:
    """Bilinear sampling by gather_nd at places that the network predicts."""

    def sample(x: Any, shift: Any) -> Any:
        place = tf.range(4.0) + 0.3 + shift
        low = tf.floor(place)
        part = place - low
        left = tf.gather_nd(x, tf.cast(low, tf.int32)[:, None], batch_dims=0)
        right = tf.gather(x, tf.cast(low, tf.int32) + 1)
        return tf.tile((1 - part)[:, None] * left + part[:, None] * right, (2, 1))[:6]

    layer = Formula(sample, {"shift": (4,)}, keras.initializers.RandomNormal(stddev=0.05))
    return Case(around(layer), *vectors(rng))


@tricky
def scattered_updates(rng: np.random.Generator) -> Case:
    """tensor_scatter_nd_update, add and max, boolean_mask and dynamic_stitch."""

    def scattered(x: Any, w: Any) -> Any:
        x = tf.tensor_scatter_nd_update(x, [[0], [2]], w)
        x = tf.tensor_scatter_nd_add(x, [[1], [1]], w)
        kept = tf.boolean_mask(x, [True, False, True, True, True, False])
        x = tf.dynamic_stitch([[0, 2, 4, 5], [1, 3]], [kept, 2 * w])
        return tf.tensor_scatter_nd_max(x, [[3], [5]], w)

    return Case(around(Formula(scattered, {"w": (2, 4)}, name="scattered")), *vectors(rng))


# -- precision, compilation, optimizers and randomness ---------------------------------------


def in_precision(policy: str, **how: Any) -> keras.Model:
    """A normalised network under a dtype policy."""
    layers = [dense(6, dtype=policy), L.LayerNormalization(dtype=policy)]
    model = keras.Sequential([keras.Input((3,)), *layers, L.Dense(2, dtype=policy)], name="precise")
    model.compile(**{"optimizer": "adam", "loss": "mse", **how})
    return model


@tricky
def pure_bfloat16(rng: np.random.Generator) -> Case:
    """Weights, too, in eight bits of mantissa."""
    return Case(in_precision("bfloat16"), *vectors(rng))


@tricky
def eight_bits(rng: np.random.Generator) -> Case:
    """Products in float8, whose scales Keras overwrites with what the tape gives for them."""
    return Case(around(L.Dense(4, dtype="float8_from_mixed_bfloat16")), *vectors(rng))


@tricky
def eight_bits_that_saturate(rng: np.random.Generator) -> Case:
    """The same once the scales are those of earlier batches, which this one exceeds."""
    model, (x, y) = around(L.Dense(4, dtype="float8_from_float32")), vectors(rng)
    model.fit(x, y, epochs=3, verbose=0)
    return Case(model, 3 * x[:3], y[:3])


@tricky
def eight_bits_and_a_scaled_loss(rng: np.random.Generator) -> Case:
    """The same where the optimizer scales the loss, and the scales in eight bits are not."""
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam())
    middle = L.EinsumDense("ab,bc->ac", 4, dtype="float8_from_float32")
    return Case(around(middle, optimizer=optimizer), *vectors(rng))


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
def scaled_loss(rng: np.random.Generator) -> Case:
    """A LossScaleOptimizer around an optimizer with clipping, in single precision."""
    inner = keras.optimizers.SGD(clipvalue=1e-3, momentum=0.9, nesterov=True)
    optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0**20)
    return Case(around(dense(), optimizer=optimizer), *vectors(rng))


@tricky
def muon_and_its_friends(rng: np.random.Generator) -> Case:
    """An optimizer that orthogonalises the gradients of kernels."""
    return Case(around(dense(), optimizer=keras.optimizers.Muon(1e-2)), *vectors(rng))


@tricky
def dropout_of_all_kinds(rng: np.random.Generator) -> Case:
    """Dropout and noise layers of every kind, between dense layers."""
    layers = [
        L.Dropout(0.5),
        dense(),
        L.GaussianNoise(0.5),
        dense(),
        L.GaussianDropout(0.3),
        dense(),
        L.AlphaDropout(0.3),
        dense(),
        L.Reshape((2, 2)),
        L.SpatialDropout1D(0.5),
        L.Flatten(),
    ]
    return Case(around(*layers), *vectors(rng))


@tricky
def augmentation_in_the_model(rng: np.random.Generator) -> Case:
    """Random flips, turns, shifts, zooms, contrast and brightness before a convolution."""
    layers = [
        L.RandomFlip(),
        L.RandomRotation(0.2),
        L.RandomTranslation(0.2, 0.2),
        L.RandomZoom(0.2),
        L.RandomContrast(0.2),
        L.RandomBrightness(0.2),
        L.Conv2D(2, 3, activation="tanh"),
        L.GlobalAveragePooling2D(),
        L.Dense(2),
    ]
    x, y = images(rng)
    return Case(net(*layers, shape=(6, 6, 3)), np.concatenate([x, x[..., :1]], -1), y)


@tricky
def raw_noise(rng: np.random.Generator) -> Case:
    """tf.random.normal in a call: other numbers at every evaluation."""
    noisy = Formula(lambda x, s: x + s * tf.random.normal(tf.shape(x)), {"s": (4,)}, name="noisy")
    return Case(around(noisy), *vectors(rng), reason="stochastic")


@tricky
def gumbel_softmax(rng: np.random.Generator) -> Case:
    """A relaxed choice: −log(−log u) of raw uniform numbers, at a low temperature."""

    def relaxed(x: Any) -> Any:
        u = tf.random.uniform(tf.shape(x), 1e-6, 1.0)
        return tf.nn.softmax((x - tf.math.log(-tf.math.log(u))) / 0.2)

    return Case(around(L.Lambda(relaxed)), *vectors(rng), reason="stochastic")


# -- whole architectures ---------------------------------------------------------------------


@tricky
def residual_network(rng: np.random.Generator) -> Case:
    """Five residual blocks with BatchNorm and rectifiers, on a batch of four."""
    x = inputs = keras.Input((3,))
    for _ in range(5):
        hidden = L.Activation("relu")(L.BatchNormalization()(L.Dense(3)(x)))
        x = L.Add()([x, L.Dense(3)(hidden)])
    model = keras.Model(inputs, L.Dense(2)(x))
    model.compile("sgd", "mse")
    return Case(model, *vectors(rng, 4))


@tricky
def twins(rng: np.random.Generator) -> Case:
    """A Siamese network: a shared encoder, a distance with a guard, a contrastive margin."""
    encoder = keras.Sequential([keras.Input((3,)), dense(), L.Dense(2)], name="encoder")
    left, right = keras.Input((3,)), keras.Input((3,))
    gap = L.Subtract()([encoder(left), encoder(right)])
    distance = L.Lambda(lambda d: tf.sqrt(tf.maximum(tf.reduce_sum(d**2, -1, True), 1e-7)))(gap)
    model = keras.Model([left, right], distance)
    model.compile(
        "sgd",
        lambda y, d: (
            tf.cast(y, d.dtype) * d**2 + (1 - tf.cast(y, d.dtype)) * tf.maximum(1 - d, 0.0) ** 2
        ),
    )
    x, _ = vectors(rng)
    other = x[::-1].copy()
    other[0] = x[0]
    return Case(model, [x, other], np.array([[1], [0], [1], [0], [1], [0]]))


@tricky
def capsules(rng: np.random.Generator) -> Case:
    """Capsules with three rounds of routing by agreement and squashed norms."""

    def route(x: Any, w: Any) -> Any:
        votes = tf.einsum("bi,iod->biod", x, w)
        logits = tf.zeros(tf.shape(votes)[:3])
        for _ in range(3):
            total = tf.einsum("bio,biod->bod", tf.nn.softmax(logits, -1), votes)
            square = tf.reduce_sum(total**2, -1, keepdims=True)
            out = square / (1 + square) * total / tf.sqrt(square + 1e-9)
            logits += tf.einsum("bod,biod->bio", out, votes)
        return tf.reshape(out, (-1, 6))

    return Case(around(Formula(route, {"w": (4, 2, 3)}, name="route")), *vectors(rng))


@tricky
def mixture_of_experts(rng: np.random.Generator) -> Case:
    """Two of four experts for each sample by top_k; two experts are hardly ever chosen."""

    def mix(x: Any, gate: Any, experts: Any) -> Any:
        value, index = tf.math.top_k(x @ gate + [3.0, 2.0, 0.0, -9.0], 2)
        chosen = tf.gather(experts, index)
        out = tf.einsum("bi,bkio->bko", x, chosen)
        return tf.reduce_sum(tf.nn.softmax(value)[..., None] * out, 1)

    layer = Formula(mix, {"gate": (4, 4), "experts": (4, 4, 3)}, name="experts")
    return Case(around(layer), *vectors(rng))


@tricky
def gaussian_process(rng: np.random.Generator) -> Case:
    """A marginal likelihood: a kernel matrix, its Cholesky root and log determinant."""

    def likelihood(x: Any, scale: Any) -> Any:
        square = tf.reduce_sum(((x[:, None] - x[None]) / (1 + scale**2)) ** 2, -1)
        root = tf.linalg.cholesky(tf.exp(-square / 2) + 0.1 * tf.eye(6))
        solved = tf.linalg.cholesky_solve(root, tf.reduce_sum(x, -1, keepdims=True))
        return solved + tf.reduce_sum(tf.math.log(tf.linalg.diag_part(root)))

    return Case(around(Formula(likelihood, {"scale": (4,)}, name="process")), *vectors(rng))


@tricky
def more_than_32_variables(rng: np.random.Generator) -> Case:
    """A dense block of twenty layers, each with all before it, dead units among them."""
    x = inputs = keras.Input((3,))
    for _ in range(20):
        x = L.Concatenate()([x, L.Dense(1, "relu")(x)])
    model = keras.Model(inputs, L.Dense(2)(x))
    model.compile("sgd", "mae")
    return Case(model, *vectors(rng))


@tricky
def every_entry_with_a_small_step(rng: np.random.Generator) -> Case:
    """The classical recipe at each entry, with kinks closer than it can see."""
    x, y = vectors(rng)
    x[2:4] = 0
    options = {"method": "full", "epsilon": 1e-7}
    return Case(net(L.Dense(4, "relu"), L.BatchNormalization(), L.Dense(2)), x, y, options=options)


# -- more steps, more noise, more functions --------------------------------------------------


def descend(model: Any, tape: Any, loss: Any) -> Any:
    """One step of the model's optimizer."""
    gradients = tape.gradient(loss, model.trainable_variables)
    model.optimizer.apply(gradients, model.trainable_variables)
    return loss


@tricky
def several_updates_in_a_step(rng: np.random.Generator) -> Case:
    """Three descents on one batch: later tapes see weights that the earlier ones moved."""

    def step(model: Any, x: Any, y: Any) -> Any:
        for _ in range(3):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
            descend(model, tape, loss)
        return loss

    return Case(stepping(step, dense(), L.Dense(2), optimizer="adam"), *vectors(rng))


@tricky
def gradients_of_each_sample(rng: np.random.Generator) -> Case:
    """DP-SGD: a Jacobian gives each sample's gradient, each of which is clipped."""

    def step(model: Any, x: Any, y: Any) -> Any:
        weights = model.trainable_variables
        with tf.GradientTape() as tape:
            losses = tf.reduce_mean((model(x, training=True) - y) ** 2, -1)
        rows = tape.jacobian(losses, weights)
        gradients = [tf.reduce_mean(tf.clip_by_norm(row, 1.0, axes=None), 0) for row in rows]
        model.optimizer.apply(gradients, weights)
        return tf.reduce_mean(losses)

    return Case(stepping(step, dense(), L.Dense(2)), *vectors(rng))


@tricky
def forward_mode_in_the_loss(rng: np.random.Generator) -> Case:
    """A directional derivative by a ForwardAccumulator, driven to a value by the outer tape."""

    def step(model: Any, x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            with tf.autodiff.ForwardAccumulator(x, tf.ones_like(x)) as forward:
                p = model(x, training=True)
            loss = tf.reduce_mean((p - y) ** 2) + tf.reduce_mean(forward.jvp(p) ** 2)
        return descend(model, tape, loss)

    return Case(stepping(step, dense(), L.Dense(2)), *vectors(rng))


@tricky
def running_centre(rng: np.random.Generator) -> Case:
    """A running mean, assigned in the call and read at once: no gradient flows through it."""

    class Centre(keras.layers.Layer):
        def build(self, shape: Any) -> None:
            self.centre = self.add_weight(shape=(shape[-1],), trainable=False, name="centre")

        def call(self, x: Any) -> Any:
            self.centre.assign(0.9 * self.centre + 0.1 * keras.ops.mean(x, 0))
            return keras.ops.tanh(x - self.centre)

    return Case(around(Centre()), *vectors(rng))


@tricky
def fused_normalisation(rng: np.random.Generator) -> Case:
    """TensorFlow's fused batch normalisation, which insists on single precision."""

    def normalised(x: Any, scale: Any, offset: Any) -> Any:
        x = tf.reshape(x, (-1, 1, 1, 4))
        out = tf.compat.v1.nn.fused_batch_norm(x, 1 + scale, offset, is_training=True)[0]
        return tf.reshape(out, (-1, 4))

    layer = Formula(normalised, {"scale": (4,), "offset": (4,)}, name="fused")
    return Case(around(layer, L.Activation("tanh")), *vectors(rng))


@tricky
def stochastic_depth(rng: np.random.Generator) -> Case:
    """Whole samples dropped from a residual branch by a Bernoulli mask of a seed generator."""
    seeds = keras.random.SeedGenerator(3)

    def wire(model: Any, x: Any, training: bool) -> Any:
        hidden = model.one(x)
        if training:
            keep = keras.random.binomial((6, 1), 1, 0.5, seed=seeds)
            hidden = hidden * keep / 0.5
        return model.two(hidden)

    x, y = vectors(rng)
    return Case(wired(wire, x, one=dense(), two=L.Dense(2)), x, y, raw=(seeds.state.value,))


@tricky
def matched_by_the_hungarian_method(rng: np.random.Generator) -> Case:
    """DETR: predictions matched to targets in NumPy, by costs that depend on the weights."""
    assign = pytest.importorskip("scipy.optimize").linear_sum_assignment

    def loss(y: Any, p: Any) -> Any:
        cost = tf.reduce_sum((p[:, None] - y[None]) ** 2, -1)
        match = tf.numpy_function(lambda c: assign(c)[1].astype(np.int64), [cost], tf.int64)
        return tf.reduce_mean((p - tf.gather(y, tf.ensure_shape(match, (6,)))) ** 2)

    return Case(around(dense(), loss=loss), *vectors(rng))


@tricky
def optimal_transport(rng: np.random.Generator) -> Case:
    """Five rounds of Sinkhorn's iteration in logarithms."""

    def loss(y: Any, p: Any) -> Any:
        scores = -tf.reduce_sum((p[:, None] - y[None]) ** 2, -1) / 0.2
        for _ in range(5):
            scores -= tf.reduce_logsumexp(scores, 0, keepdims=True)
            scores -= tf.reduce_logsumexp(scores, 1, keepdims=True)
        return tf.reduce_sum(tf.exp(scores) * tf.reduce_sum((p[:, None] - y[None]) ** 2, -1))

    return Case(around(dense(), loss=loss), *vectors(rng))


@tricky
def sparsemax(rng: np.random.Generator) -> Case:
    """A softmax with exact zeros, by a sort and a cumulative sum, its gradient by the tape."""

    def project(z: Any) -> Any:
        ordered = tf.sort(z, direction="DESCENDING")
        total = tf.cumsum(ordered, -1)
        rank = tf.range(1.0, 6.0)
        size = tf.reduce_sum(tf.cast(1 + rank * ordered > total, tf.int32), -1)
        top = tf.gather(total, size - 1, batch_dims=1, axis=1)
        return tf.nn.relu(z - ((top - 1) / tf.cast(size, z.dtype))[:, None])

    return Case(around(L.Lambda(project), width=5), *vectors(rng))


@tricky
def splines_on_a_grid(rng: np.random.Generator) -> Case:
    """A KAN layer: piecewise linear splines looked up by searchsorted, inputs on knots."""
    knots = tf.constant(np.linspace(-2, 2, 9), tf.float32)

    def spline(x: Any, heights: Any) -> Any:
        flat = tf.reshape(x, (-1,))
        low = tf.clip_by_value(tf.searchsorted(knots, flat, side="right") - 1, 0, 7)
        left = tf.gather(knots, low)
        part = (flat - left) / (tf.gather(knots, low + 1) - left)
        bent = (1 - part) * tf.gather(heights, low) + part * tf.gather(heights, low + 1)
        return tf.reshape(bent, tf.shape(x))

    x, y = vectors(rng)
    x[:2] = 0
    return Case(around(Formula(spline, {"heights": (9,)}, name="spline")), x, y)


@tricky
def residual_branches_before_a_head_of_zeros(rng: np.random.Generator) -> Case:
    """A head that is zero at first hands nothing back to branches that share an input."""
    given = keras.Input((6, 6, 2))
    x = L.Conv2D(4, 3, padding="same")(given)
    kept = x
    for _ in range(2):
        y = L.BatchNormalization(center=False, scale=False)(x)
        y = L.Conv2D(4, 3, padding="same", activation="swish")(y)
        x = L.Add()([L.Conv2D(4, 1)(x), L.Conv2D(4, 3, padding="same")(y)])
    x = L.Concatenate()([L.AveragePooling2D(2)(x), L.AveragePooling2D(2)(kept)])
    model = keras.Model(given, L.Dense(2, kernel_initializer="zeros")(L.Flatten()(x)), name="net")
    model.compile("sgd", "mse")
    return Case(model, *images(rng))


@tricky
def activations_of_next_to_nothing(rng: np.random.Generator) -> Case:
    """Activations of 1e-10 with kinks: a step is small beside them, not beside one."""
    tiny = L.Dense(16, kernel_initializer=keras.initializers.RandomNormal(stddev=1e-10))
    return Case(net(tiny, L.ReLU(), L.LayerNormalization(epsilon=1e-24), L.Dense(2)), *vectors(rng))


@tricky
def pinballs(rng: np.random.Generator) -> Case:
    """Quantile losses with some errors of exactly zero: slopes of unequal size meet there."""

    def loss(y: Any, p: Any) -> Any:
        error = y - p
        return tf.reduce_mean(tf.maximum(0.9 * error, -0.1 * error))

    x, y = vectors(rng)
    y[:3] = 0
    return Case(net(L.Dense(2, kernel_initializer="zeros"), loss=loss), x, y, reason="kink")


@tricky
def pooled_and_unpooled(rng: np.random.Generator) -> Case:
    """max_pool_with_argmax and a scatter back to where the maxima were."""

    def there_and_back(x: Any) -> Any:
        top, where = tf.nn.max_pool_with_argmax(x, 2, 2, "VALID", include_batch_in_index=True)
        flat = tf.scatter_nd(tf.reshape(where, (-1, 1)), tf.reshape(top, (-1,)), [2 * 4 * 4 * 2])
        return tf.reshape(flat, (2, 4, 4, 2))

    layers = [L.Conv2D(2, 3), L.Lambda(there_and_back), L.Conv2D(2, 2), L.Flatten(), L.Dense(2)]
    return Case(net(*layers, shape=(6, 6, 2)), *images(rng))


@tricky
def sparse_weights(rng: np.random.Generator) -> Case:
    """A kernel of which only some entries exist, and a softmax over sparse scores."""
    places = [[0, 0], [0, 3], [1, 1], [2, 2], [3, 0]]

    def product(x: Any, values: Any) -> Any:
        kernel = tf.sparse.SparseTensor(places, values, (4, 4))
        weights = tf.sparse.to_dense(tf.sparse.softmax(kernel))
        return tf.transpose(tf.sparse.sparse_dense_matmul(kernel, tf.transpose(x))) + x @ weights

    return Case(around(Formula(product, {"values": (5,)}, name="sparse")), *vectors(rng))


@tricky
def one_sample_and_scalars(rng: np.random.Generator) -> Case:
    """A batch of one, scalar weights and a weight without any entry."""

    def scaled(x: Any, a: Any, empty: Any) -> Any:
        return a * tf.sin(x) + tf.reduce_sum(empty)

    return Case(around(Formula(scaled, {"a": (), "none": (0, 3)}, name="s")), *vectors(rng, 1))


@tricky
def double_inside_single(rng: np.random.Generator) -> Case:
    """One layer in float64 in a model in float32, and one in float16."""
    layers = [dense(4, dtype="float64"), dense(4, dtype="float16"), dense(4)]
    return Case(around(*layers), *vectors(rng))


@tricky
def distributed(rng: np.random.Generator) -> Case:
    """Variables made under a distribution strategy."""
    with tf.distribute.OneDeviceStrategy("/cpu:0").scope():
        model = around(dense(), optimizer="adam")
    return Case(model, *vectors(rng))


@tricky
def variance_by_two_means(rng: np.random.Generator) -> Case:
    """E[x²] − E[x]² of numbers near 30: right, though single precision loses four digits."""

    def loss(_y: Any, p: Any) -> Any:
        p = p + 30.0
        return tf.reduce_mean(p**2) - tf.reduce_mean(p) ** 2

    return Case(around(dense(), loss=loss), *vectors(rng))


@tricky
def cosine_of_zero_predictions(rng: np.random.Generator) -> Case:
    """A cosine loss at predictions of exactly zero, guarded by an epsilon: a curvature of 1e6."""
    layer = L.Dense(2, kernel_initializer="zeros")
    return Case(net(layer, loss="cosine_similarity"), *vectors(rng))


@tricky
def eigenvectors(rng: np.random.Generator) -> Case:
    """Projections onto eigenvectors, whose signs are free; a pseudo-inverse and a square root."""

    def project(x: Any, a: Any) -> Any:
        symmetric = a @ tf.transpose(a) + tf.linalg.diag(tf.range(0.0, 8.0, 2.0))
        _, vectors_of = tf.linalg.eigh(symmetric)
        x = (x @ vectors_of) ** 2
        wide = tf.concat([a, a[:1]], 0)
        return x + x @ tf.linalg.pinv(wide) @ wide + x @ tf.linalg.sqrtm(symmetric)

    return Case(around(Formula(project, {"a": (4, 4)}, name="matrix")), *vectors(rng))


@tricky
def gradient_of_the_input_as_a_feature(rng: np.random.Generator) -> Case:
    """An energy network: forces are the tape's gradient of the energy inside the call."""

    def wire(model: Any, x: Any, training: bool) -> Any:
        x = tf.cast(x, tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(x)
            energy = model.out(model.one(x))
        return -tape.gradient(energy, x)

    x, _ = vectors(rng)
    model = wired(wire, x, one=dense(8), out=L.Dense(1, use_bias=False))
    return Case(model, x, np.sin(x))


@tricky
def many_rows_few_used(rng: np.random.Generator) -> Case:
    """An embedding of 20,000 rows with a penalty, of which a batch uses three."""
    layers = [L.Embedding(20000, 4, embeddings_regularizer="l2"), L.Flatten(), L.Dense(2)]
    ids = np.array([[1, 19999], [7, 7]])
    return Case(net(*layers, shape=(2,), dtype="int32"), ids, rng.normal(size=(2, 2)))


@tricky
def adversarial_signs(rng: np.random.Generator) -> Case:
    """FGSM: the sign of the input's gradient, piecewise constant in the weights."""

    def step(model: Any, x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
        moved = x + 0.1 * tf.sign(tape.gradient(loss, x))
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(moved, training=True) - y) ** 2)
        return descend(model, tape, loss)

    return Case(stepping(step, dense(), L.Dense(2)), *vectors(rng))


@tricky
def raw_gamma_weights(rng: np.random.Generator) -> Case:
    """Raw gamma and Poisson noise that depends on no variable."""
    noise = L.Lambda(lambda x: x * tf.random.gamma((6, 4), 2.0) + tf.random.poisson((4,), 3.0))
    return Case(around(noise), *vectors(rng), reason="stochastic")


@tricky
def raw_noise_in_a_condition(rng: np.random.Generator) -> Case:
    """Raw flips and brightness of tf.image, which decide by tf.cond."""

    def augment(x: Any) -> Any:
        x = tf.image.random_flip_left_right(x)
        chance = tf.random.uniform(()) < 0.5
        x = tf.cond(chance, lambda: tf.image.random_brightness(x, 0.2), lambda: x)
        return tf.image.random_crop(x, (2, 5, 5, 2))

    layers = [L.Conv2D(2, 1), L.Lambda(augment, output_shape=(5, 5, 2)), L.Flatten(), L.Dense(2)]
    return Case(net(*layers, shape=(6, 6, 2)), *images(rng))


@tricky
def fractional_pools(rng: np.random.Generator) -> Case:
    """Pools whose regions are drawn at random."""
    pool = L.Lambda(lambda x: tf.nn.fractional_max_pool(x, [1, 1.5, 1.5, 1], seed=3)[0], (4, 4, 2))
    layers = [L.Conv2D(2, 1), pool, L.Flatten(), L.Dense(2)]
    return Case(net(*layers, shape=(6, 6, 2)), *images(rng))


@tricky
def mirrored(rng: np.random.Generator) -> Case:
    """Variables of a mirrored strategy."""
    with tf.distribute.MirroredStrategy(["/cpu:0"]).scope():
        model = around(dense(), L.BatchNormalization(), optimizer="adam")
    return Case(model, *vectors(rng))


@tricky
def scores_kept_for_later(rng: np.random.Generator) -> Case:
    """A layer that keeps its last activations as an attribute, as for a plot."""

    class Keeping(keras.layers.Layer):
        last: Any = None

        def call(self, x: Any) -> Any:
            self.last = tf.tanh(x)
            return self.last

    return Case(around(Keeping()), *vectors(rng))


@tricky
def half_precision_overflow_of_squares(rng: np.random.Generator) -> Case:
    """Errors of 400 in float16: their squares overflow it, so Keras casts them before."""
    model = around(dense(dtype="mixed_float16"), L.Activation("linear", dtype="float32"))
    x, y = vectors(rng)
    return Case(model, x, 400 * y)


@tricky
def weighted_by_gradient_norms(rng: np.random.Generator) -> Case:
    """Two tasks weighted by the inverse norms of their gradients, by an inner persistent tape."""

    def step(model: Any, x: Any, y: Any) -> Any:
        kernel = model.trainable_variables[0]
        with tf.GradientTape() as outer:
            with tf.GradientTape(persistent=True) as inner:
                p = model(x, training=True)
                one, two = tf.reduce_mean((p - y) ** 2), tf.reduce_mean(tf.abs(p + y))
            first = tf.norm(inner.gradient(one, kernel.value))
            second = tf.norm(inner.gradient(two, kernel.value))
            loss = one / first + two / second
        return descend(model, outer, loss)

    return Case(stepping(step, dense(), L.Dense(2)), *vectors(rng))


@tricky
def regrouped_kernels(rng: np.random.Generator) -> Case:
    """A kernel assigned to in the call before it is used: weights projected onto the unit ball."""

    class Projected(keras.layers.Layer):
        def build(self, shape: Any) -> None:
            self.kernel = self.add_weight(shape=(shape[-1], 3), name="kernel")

        def call(self, x: Any) -> Any:
            self.kernel.assign(self.kernel / tf.maximum(tf.norm(self.kernel), 1.0))
            return x @ self.kernel

    return Case(around(Projected(), L.Activation("tanh")), *vectors(rng))


@tricky
def ensembles_by_vectorised_weights(rng: np.random.Generator) -> Case:
    """Five members with their weights in one stack, mapped over by vectorized_map."""

    def members(x: Any, w: Any) -> Any:
        each = tf.vectorized_map(lambda one: tf.tanh(x @ one), w)
        return tf.reduce_mean(each, 0) + tf.math.reduce_variance(each, 0)

    return Case(around(Formula(members, {"w": (5, 4, 3)}, name="members")), *vectors(rng))


# -- right, and still misjudged --------------------------------------------------------------


@tricky
def hinge_at_its_margin(rng: np.random.Generator) -> Case:
    """Every prediction sits exactly where the hinge bends."""
    x, _ = vectors(rng)
    layer = L.Dense(2, kernel_initializer="zeros", bias_initializer="ones")
    return Case(net(layer, loss="squared_hinge"), x, np.ones((6, 2)))


@tricky
def scale_before_layer_normalisation(rng: np.random.Generator) -> Case:
    """LayerNorm takes out the scale before it, but for its epsilon."""
    scale = Formula(lambda z, s: z * (2 + s), {"s": (1,)}, name="scale")
    norm = L.LayerNormalization(epsilon=1e-12)
    return Case(around(scale, norm), *vectors(rng))


@tricky
def deep_and_exploding(rng: np.random.Generator) -> Case:
    """Ten linear layers with large weights: the first get huge gradients."""
    start = keras.initializers.RandomNormal(stddev=3.0)
    layers = [L.Dense(4, kernel_initializer=start) for _ in range(10)]
    return Case(net(*layers, L.Dense(2)), *vectors(rng))


@tricky
def trained_to_the_end(rng: np.random.Generator) -> Case:
    """The targets are what the model says: the loss and all gradients are nothing but round-off."""
    x, _ = vectors(rng)
    model = around(L.Activation("tanh"))
    return Case(model, x, model.predict_on_batch(x))


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


@tricky
def sampled_softmax(rng: np.random.Generator) -> Case:
    """A loss over a few classes drawn anew at each step."""

    def sampled(x: Any, w: Any, b: Any) -> Any:
        labels = tf.constant([[0], [5], [9], [2], [2], [1]], tf.int64)
        loss = tf.nn.sampled_softmax_loss(w, b, labels, x, num_sampled=4, num_classes=10, seed=3)
        return loss[:, None]

    layer = Formula(sampled, {"w": (10, 4), "b": (10,)}, name="classes")
    x, _ = vectors(rng)
    return Case(net(dense(), layer, loss=lambda y, p: p), x, np.zeros((6, 1)))


@out_of_reach
def reparametrised_gamma(rng: np.random.Generator) -> Case:
    """Gamma noise whose shape is learnt: an implicit gradient through the sampler."""

    def draw(x: Any, a: Any) -> Any:
        return x * tf.random.stateless_gamma((6, 4), seed=(1, 2), alpha=1.5 + a**2)

    return Case(around(Formula(draw, {"a": (4,)}, name="gamma")), *vectors(rng))


@tricky
def bootstrapped_targets(rng: np.random.Generator) -> Case:
    """Q-learning: the target is made by the same network, but before the tape begins."""

    def step(model: Any, x: Any, y: Any) -> Any:
        best = tf.reduce_max(model(x + y[:, :1], training=True), -1)
        target = y[:, 0] + 0.9 * best
        with tf.GradientTape() as tape:
            value = tf.reduce_max(model(x, training=True) * [1.0, 0.5], -1)
            loss = tf.reduce_mean((value - target) ** 2)
        return descend(model, tape, loss)

    return Case(stepping(step, dense(), L.Dense(2)), *vectors(rng))


@tricky
def targets_under_stop_recording(rng: np.random.Generator) -> Case:
    """The model's own output as a target, made while the tape does not record."""

    def step(model: Any, x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            p = model(x, training=True)
            with tape.stop_recording():
                target = 0.5 * (model(x[::-1], training=True) + y)
            loss = tf.reduce_mean((p - target) ** 2)
        return descend(model, tape, loss)

    return Case(stepping(step, dense(), L.Dense(2)), *vectors(rng))


@out_of_reach
def stateful_gamma(rng: np.random.Generator) -> Case:
    """Raw gamma noise whose shape is learnt."""

    def draw(x: Any, a: Any) -> Any:
        return x * tf.random.gamma((6,), alpha=1.5 + a**2)

    return Case(around(Formula(draw, {"a": (4,)}, name="gamma")), *vectors(rng))


@tricky
def raw_noise_in_a_loop(rng: np.random.Generator) -> Case:
    """Raw random numbers in a graph loop."""

    @tf.function
    def walk(x: Any) -> Any:
        for _ in tf.range(3):
            x = tf.sin(x) + 0.1 * tf.random.normal((6, 4))
        return x

    return Case(around(L.Lambda(walk)), *vectors(rng))


@tricky
def raw_noise_in_a_function(rng: np.random.Generator) -> Case:
    """Raw random numbers in a tf.function without a loop."""

    @tf.function
    def noisy(x: Any) -> Any:
        return tf.sin(x) + 0.1 * tf.random.normal((6, 4))

    return Case(around(L.Lambda(noisy)), *vectors(rng))


@tricky
def own_generator(rng: np.random.Generator) -> Case:
    """Noise of a tf.random.Generator, whose state is a variable."""
    source = tf.random.Generator.from_seed(4)
    noisy = L.Lambda(lambda x: x + 0.3 * source.normal((6, 4)))
    return Case(around(noisy), *vectors(rng), raw=(source.state,))


@tricky
def mixed_up_samples(rng: np.random.Generator) -> Case:
    """Mixup: a raw permutation of the batch and raw beta weights."""

    def step(model: Any, x: Any, y: Any) -> Any:
        order = tf.random.shuffle(tf.range(6))
        a, b = tf.random.gamma((6, 1), 0.4), tf.random.gamma((6, 1), 0.4)
        part = a / (a + b + 1e-6)
        x = part * x + (1 - part) * tf.gather(x, order)
        y = part * y + (1 - part) * tf.gather(y, order)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
        return descend(model, tape, loss)

    return Case(stepping(step, dense(), L.Dense(2)), *vectors(rng))


@out_of_reach
def complex_variables(rng: np.random.Generator) -> Case:
    """A raw complex variable: TensorFlow's gradient is the conjugate of the textbook's."""
    start = rng.normal(size=(2,)) + 1j * rng.normal(size=(2,))
    phase = tf.Variable(tf.constant(start, tf.complex64), name="phase")

    def step(model: Any, x: Any, y: Any) -> Any:
        variables = [phase, *model.trainable_variables]
        with tf.GradientTape() as tape:
            p = tf.abs(tf.cast(model(x, training=True), tf.complex64) * phase + phase**2)
            loss = tf.reduce_mean((p - y) ** 2)
        gradients = tape.gradient(loss, variables)
        phase.assign_sub(0.01 * gradients[0])
        model.optimizer.apply(gradients[1:], model.trainable_variables)
        return loss

    return Case(stepping(step, dense(), L.Dense(2)), *vectors(rng), raw=(phase,))


@out_of_reach
def masked_by_accidental_zeros(rng: np.random.Generator) -> Case:
    """Masking after a layer whose bias is still zero: the loss jumps as soon as it moves."""
    x, y = series(rng)
    x[0, 3:] = 0
    layers = [L.Dense(3), L.Masking(), L.LSTM(2), L.Dense(2)]
    return Case(net(*layers, shape=(5, 3)), x, y)


@out_of_reach
def eager_with_kinks_and_dropout(rng: np.random.Generator) -> Case:
    """Eager only, with rectifiers at zero, BatchNorm and dropout."""

    def wire(model: Any, x: Any, training: bool) -> Any:
        hidden = model.norm(model.one(x), training=training)
        if bool(tf.reduce_any(tf.math.is_nan(hidden))):
            raise ValueError("not a number")
        return model.two(model.drop(tf.nn.relu(hidden), training=training))

    x, y = vectors(rng)
    x[:2] = 0
    parts = {"one": L.Dense(4), "norm": L.BatchNormalization(), "drop": L.Dropout(0.3)}
    return Case(wired(wire, x, {"run_eagerly": True}, two=L.Dense(2), **parts), x, y)


@out_of_reach
def eager_in_bfloat16(rng: np.random.Generator) -> Case:
    """Eager only, and in mixed bfloat16."""

    def wire(model: Any, x: Any, _training: bool) -> Any:
        hidden = model.one(x)
        if float(tf.reduce_max(tf.cast(hidden, tf.float32))) > 1e6:
            hidden = hidden / 2
        return model.two(hidden)

    x, y = vectors(rng)
    parts = {"one": dense(dtype="mixed_bfloat16"), "two": L.Dense(2, dtype="mixed_bfloat16")}
    return Case(wired(wire, x, {"run_eagerly": True}, **parts), x, y)


@out_of_reach
def raw_noise_run_eagerly(rng: np.random.Generator) -> Case:
    """Eager only, with raw noise."""

    def wire(model: Any, x: Any, _training: bool) -> Any:
        hidden = model.one(x)
        if float(tf.reduce_max(hidden)) > 1e6:
            hidden = hidden / 2
        return model.two(hidden + 0.1 * tf.random.normal((6, 4)))

    x, y = vectors(rng)
    return Case(wired(wire, x, {"run_eagerly": True}, one=dense(), two=L.Dense(2)), x, y)


@tricky
def adversarial_examples(rng: np.random.Generator) -> Case:
    """Inputs moved uphill by a first tape, in a direction that depends on the weights."""

    def step(model: Any, x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
        moved = x + 0.3 * tf.math.l2_normalize(tape.gradient(loss, x), -1)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(moved, training=True) - y) ** 2)
        return descend(model, tape, loss)

    return Case(stepping(step, dense(), L.Dense(2)), *vectors(rng))


@tricky
def proximal_policy(rng: np.random.Generator) -> Case:
    """PPO: old probabilities made before the tape, so that the ratio is one, its slope is not."""

    def step(model: Any, x: Any, y: Any) -> Any:
        old = tf.nn.log_softmax(model(x, training=True))[:, 0]
        with tf.GradientTape() as tape:
            new = tf.nn.log_softmax(model(x, training=True))[:, 0]
            ratio = tf.exp(new - old)
            clipped = tf.clip_by_value(ratio, 0.8, 1.2)
            loss = -tf.reduce_mean(tf.minimum(ratio * y[:, 0], clipped * y[:, 0]))
        return descend(model, tape, loss)

    return Case(stepping(step, dense(), L.Dense(2)), *vectors(rng))


@tricky
def responsibilities_before_the_tape(rng: np.random.Generator) -> Case:
    """EM: soft assignments by the model itself, fixed while its likelihood is raised."""

    def step(model: Any, x: Any, y: Any) -> Any:
        soft = tf.nn.softmax(model(x, training=True) * 2)
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(tf.reduce_sum(soft * tf.nn.log_softmax(model(x)), -1))
        return descend(model, tape, loss)

    return Case(stepping(step, dense(), L.Dense(2)), *vectors(rng))


# -- the checks ------------------------------------------------------------------------------

FIGURES = dict.fromkeys(("models", "pass", "alarms", "inconclusive"), 0)


@pytest.fixture(scope="module", autouse=True)
def figures(request: pytest.FixtureRequest) -> Iterator[None]:
    """At the end, say in one line how many right models pass."""
    yield
    capture = request.config.pluginmanager.get_plugin("capturemanager")
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    if capture is None or reporter is None:
        return
    with capture.global_and_fixture_disabled():
        reporter.write_line(
            f"\nright but tricky models: {FIGURES['pass']} of {FIGURES['models']} pass, "
            f"{FIGURES['alarms']} false alarms, {FIGURES['inconclusive']} inconclusive"
        )


def examine(build: Build) -> tuple[Case, GradientReport]:
    """Build a right model and check it; the check must leave no trace."""
    keras.utils.set_random_seed(11)
    case = build(np.random.default_rng(5))
    with nothing_changes(case.model, case.raw, case.options):
        report = check_gradients(case.model, case.x, case.y, case.sample_weight, **case.options)
    return case, report


@pytest.mark.parametrize("name", TRICKY)
def test_right_but_tricky(name: str) -> None:
    """A right model passes, no culprit is named, and no variable is changed by the check."""
    FIGURES["models"] += 1
    case, report = examine(TRICKY[name])
    FIGURES["pass"] += report.verdict is Verdict.PASS
    FIGURES["inconclusive"] += report.verdict is Verdict.INCONCLUSIVE
    FIGURES["alarms"] += report.verdict in (Verdict.FAIL, Verdict.SUSPECT)
    assert report.verdict is Verdict.PASS, str(report)
    assert report.culprits == (), str(report)
    assert not case.reason or case.reason in {v.reason for v in report.variables}, str(report)


@pytest.mark.parametrize("name", OUT_OF_REACH)
def test_out_of_reach(name: str) -> None:
    """A right model that differences cannot follow may stay open, with a reason; it never fails."""
    _, report = examine(OUT_OF_REACH[name])
    assert report.verdict in (Verdict.PASS, Verdict.INCONCLUSIVE), str(report)
    assert report.culprits == (), str(report)


@tf.custom_gradient
def doubled(logits: Any) -> Any:
    """The logits, with twice their gradient."""
    return tf.identity(logits), lambda upstream: 2 * upstream


def certain(name: str, certainty: float, *, eagerly: bool, wrong: bool = False) -> GradientReport:
    """The check of a model whose predictions of the right answer a constant makes certain."""
    classes, loss = {
        "sparse": (3, keras.losses.SparseCategoricalCrossentropy(from_logits=True)),
        "binary": (1, keras.losses.BinaryCrossentropy(from_logits=True)),
        "focal": (1, keras.losses.BinaryFocalCrossentropy(from_logits=True)),
    }[name]

    def surely(z: Any) -> Any:
        if eagerly:
            z = tf.py_function(lambda t: t * 1.0, [z], z.dtype)
        if wrong:
            z = doubled(z)
        return tf.reshape(z, (3, classes)) + certainty * tf.eye(3, classes, dtype=z.dtype)

    keras.utils.set_random_seed(2)
    model = keras.Sequential([keras.Input((4,)), L.Dense(classes), L.Lambda(surely)])
    model.compile("sgd", loss, run_eagerly=eagerly)
    y = np.arange(3) if classes > 1 else np.eye(3, 1)
    x = np.random.default_rng(7).standard_normal((3, 4)).astype("float32")
    # Only the first sample of two classes is certain, where the loss is that of it alone.
    return check_gradients(model, x, y, None if classes > 1 else np.eye(3, 1)[:, 0])


@pytest.mark.parametrize(
    ("certainty", "eagerly"),
    [*((certainty, False) for certainty in (12.0, 20.0, 31.0, 36.0, 45.0)), (31.0, True)],
)
@pytest.mark.parametrize("name", ["sparse", "binary", "focal"])
def test_certain_predictions_are_not_accused(name: str, certainty: float, eagerly: bool) -> None:
    """A loss that is a tiny difference of large numbers moves in steps, or not at all.

    In the float32 of a step that runs eagerly, that may leave nothing to measure.
    """
    report = certain(name, certainty, eagerly=eagerly)
    may_be = {Verdict.PASS, Verdict.INCONCLUSIVE} if eagerly else {Verdict.PASS}
    assert report.verdict in may_be, str(report)


@pytest.mark.parametrize(
    ("name", "eagerly"), [("sparse", False), ("binary", False), ("binary", True)]
)
def test_wrong_gradients_of_certain_predictions_fail(name: str, eagerly: bool) -> None:
    """A loss of a hundred-thousandth is small, not gone."""
    report = certain(name, 12.0, eagerly=eagerly, wrong=True)
    assert report.verdict is Verdict.FAIL, str(report)
