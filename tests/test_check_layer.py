"""A layer by itself: weights and inputs are checked, the culprit within it is named."""

# mypy: allow-subclassing-any

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf
from wrong_sine import WrongSine

from tfcheck import GradientReport, TfcheckError, Verdict, check_layer
from tfcheck.errors import ArgumentError, ArgumentTypeError, BatchError, TraceError

L = keras.layers
RNG = np.random.default_rng(3)
X = RNG.normal(size=(6, 4)).astype("float32")
SEQUENCES = RNG.normal(size=(2, 5, 4)).astype("float32")
OTHERS = RNG.normal(size=(2, 3, 4)).astype("float32")
IMAGES = RNG.normal(size=(2, 6, 6, 3)).astype("float32")
IDS = np.array([[1, 2, 2], [0, 3, 1]])
MASK = np.array([[1, 1, 0, 0, 0], [1, 1, 1, 1, 0]], bool)
PHASES = ("train", "inference")
RAGGED = tf.ragged.constant([[1.0, 2.0], [3.0], [4.0, 1.0, 2.0]])
SPARSE = tf.sparse.from_dense(X * (X > 0))


class WrongKernel(keras.layers.Layer):
    """A product whose kernel's gradient is too large, while its input's is right."""

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(shape[-1], 3), name="kernel")

    def call(self, x: Any) -> Any:
        @tf.custom_gradient
        def product(x: Any, w: Any) -> Any:
            def backward(upstream: Any) -> Any:
                return upstream @ tf.transpose(w), 2 * tf.transpose(x) @ upstream

            return x @ w, backward

        return product(x, tf.convert_to_tensor(self.kernel))


class WrongAddedLoss(keras.layers.Layer):
    """An identity that adds a loss with a wrong gradient."""

    def call(self, x: Any) -> Any:
        @tf.custom_gradient
        def square(x: Any) -> Any:
            return tf.reduce_sum(x**2), lambda upstream: upstream * x

        self.add_loss(square(x))
        return x


def by_name(report: GradientReport) -> dict[str, Verdict]:
    """The verdicts by the variables' own names."""
    return {variable.path.rsplit("/", 1)[-1]: variable.verdict for variable in report.variables}


HEALTHY: dict[str, tuple[Any, tuple[Any, ...], set[str]]] = {
    "dense": (lambda: L.Dense(3), (X,), {"input", "kernel", "bias"}),
    "batch norm": (L.BatchNormalization, (X,), {"input", "gamma", "beta"}),
    "embedding": (lambda: L.Embedding(5, 3), (IDS,), {"embeddings"}),
    "max pooling": (L.MaxPooling2D, (IMAGES,), {"input"}),
    "lstm": (
        lambda: L.LSTM(3),
        (SEQUENCES,),
        {"input", "kernel", "recurrent_kernel", "bias"},
    ),
    "two arguments": (
        lambda: L.Attention(use_scale=True),
        ([SEQUENCES, OTHERS],),
        {"input_0", "input_1", "scale"},
    ),
    "half precision": (
        lambda: L.Dense(3, dtype="mixed_float16"),
        (X,),
        {"input", "kernel", "bias"},
    ),
    "dropout": (lambda: L.Dropout(0.5), (X,), {"input"}),
    "ragged": (lambda: L.Lambda(lambda x: tf.reduce_sum(tf.sin(x), axis=1)), (RAGGED,), {"input"}),
    "ragged to ragged": (
        lambda: L.Lambda(lambda x: tf.ragged.map_flat_values(tf.sin, x)),
        (RAGGED,),
        {"input"},
    ),
    "ragged in a dictionary": (
        lambda: L.Lambda(lambda x: tf.reduce_sum(x["a"] ** 2, axis=1) * x["b"]),
        ({"a": RAGGED, "b": tf.constant([1.0, 2.0, 3.0])},),
        {"input_0", "input_1"},
    ),
    "ragged ids": (lambda: L.Embedding(5, 3), (tf.cast(RAGGED, tf.int32),), {"embeddings"}),
    "sparse": (lambda: L.Dense(3), (SPARSE,), {"input", "kernel", "bias"}),
    "sparse, of SciPy": (
        lambda: L.Dense(3),
        (scipy.sparse.csr_matrix(X * (X > 0)),),
        {"input", "kernel", "bias"},
    ),
    "a model": (
        lambda: keras.Sequential([L.Dense(3, activation="relu"), L.Dense(2)]),
        (X,),
        {"input", "kernel", "bias"},
    ),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_layers_pass(name: str) -> None:
    """Every float input and every weight of a right layer passes, built or not."""
    make, inputs, names = HEALTHY[name]
    layer = make()
    report = check_layer(layer, *inputs)
    assert report.verdict is Verdict.PASS, str(report)
    assert set(by_name(report)) == names
    assert report.objective.source == "layer"
    before = [weight.numpy().copy() for weight in layer.weights]
    again = check_layer(layer, *inputs)
    assert again.score == report.score
    for weight, value in zip(layer.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)


def test_wrong_input_gradient() -> None:
    """The gradient with respect to the input is checked, not only the weights'."""
    report = check_layer(WrongSine(name="sine"), X)
    assert by_name(report) == {"input": Verdict.FAIL}
    assert report.culprits == ("sine",)


def test_wrong_gradient_of_ragged_and_sparse_values() -> None:
    """What an input holds is checked, in whatever form it is given."""

    def wrong(values: Any) -> Any:
        return WrongSine()(values)

    ragged = L.Lambda(lambda x: tf.ragged.map_flat_values(wrong, x), name="ragged")
    sparse = L.Lambda(lambda x: tf.sparse.map_values(wrong, x).values, name="sparse")
    for layer, x in ((ragged, RAGGED), (sparse, SPARSE)):
        report = check_layer(layer, x)
        assert by_name(report) == {"input": Verdict.FAIL}, str(report)


class Lookup(keras.layers.Layer):
    """What a function makes of an input and of a table."""

    def __init__(self, function: Any) -> None:
        super().__init__(name="lookup")
        self.function = function

    def build(self, *_shapes: Any) -> None:
        self.table = self.add_weight(shape=(5, 3), name="table", initializer="random_normal")

    def call(self, x: Any) -> Any:
        return self.function(x, tf.convert_to_tensor(self.table))


def whole(x: Any) -> Any:
    """Integers of floats."""
    return tf.cast(x, tf.int32)


NAMES: dict[str, Any] = {
    "an embedding with a mask": lambda: keras.Sequential(
        [L.Embedding(5, 3, mask_zero=True), L.LSTM(2)]
    ),
    "one of many": lambda: Lookup(lambda x, table: tf.one_hot(whole(x), 5) @ table),
    "rounded": lambda: Lookup(lambda x, table: tf.gather(table, whole(tf.round(x)[:, :2]))),
    "hashed": lambda: Lookup(lambda x, table: tf.gather(table, (7 * whole(x)) % 5)),
    "a mask": lambda: Lookup(lambda x, table: tf.where(tf.cast(x, tf.bool), tf.sin(table[:2]), 0)),
}


@pytest.mark.parametrize("name", NAMES)
def test_floats_that_are_ids(name: str) -> None:
    """An input that is only cast to integers, to look something up, is not blocked."""
    report = check_layer(NAMES[name](), IDS.astype("float32"))
    assert report.verdict is Verdict.PASS, str(report)
    first = next(v for v in report.variables if v.path.endswith("input"))
    assert first.reason == "unused"
    assert "as integers" in first.note


BLOCKED: dict[str, tuple[Any, Any]] = {
    "numbers again": (lambda x, _: tf.cast(whole(x), tf.float32), IDS),
    "computed with": (lambda x, table: tf.gather(table, whole(2 * x)), IDS / 2),
    "no ids": (lambda x, table: tf.gather(table, whole(tf.round(x))), IDS + 0.25),
    "a threshold": (lambda x, table: tf.where(x > 0.5, tf.sin(table[:2]), 0.0), IDS),
    "the largest": (lambda x, table: tf.gather(table, tf.argmax(x, axis=1)), IDS),
}


@pytest.mark.parametrize("name", BLOCKED)
def test_floats_that_are_no_ids(name: str) -> None:
    """What depends on an input's size in jumps is blocked, whatever it is cast to."""
    function, x = BLOCKED[name]
    report = check_layer(Lookup(function), x.astype("float32"))
    first = next(v for v in report.variables if v.path.endswith("input"))
    assert (first.verdict, first.reason) == (Verdict.FAIL, "blocked"), str(report)


def test_wrong_weight_gradient() -> None:
    """What is right beside a wrong weight passes."""
    report = check_layer(WrongKernel(name="product"), X)
    assert by_name(report) == {"input": Verdict.PASS, "kernel": Verdict.FAIL}
    assert report.culprits == ("product",)


def test_wrong_added_loss() -> None:
    """Losses that a layer adds belong to it."""
    assert check_layer(WrongAddedLoss(), X).verdict is Verdict.FAIL


def test_culprit_within() -> None:
    """Of a layer made of layers, the inner one is named."""
    layer = keras.Sequential([L.Dense(3, name="one"), WrongSine(name="sine")], name="outer")
    report = check_layer(layer, X)
    assert report.verdict is Verdict.FAIL
    assert report.culprits == ("outer/sine",)
    declared = check_layer(layer, X, expected_mismatch=["sine"])
    assert all(variable.reason == "declared" for variable in declared.variables)


def test_every_entry() -> None:
    """`method="full"` perturbs every entry of inputs and weights."""
    report = check_layer(L.Dense(2), X, method="full")
    assert report.verdict is Verdict.PASS
    assert report.evaluations >= 2 * (X.size + 4 * 2 + 2)


def test_phase() -> None:
    """The phase is the call's `training`: in inference BatchNorm has no batch statistics."""
    layer = L.BatchNormalization(center=False, scale=False)
    train = check_layer(layer, X)
    inference = check_layer(layer, X, phase="inference")
    assert train.verdict is inference.verdict is Verdict.PASS
    assert train.objective.losses != inference.objective.losses


BAD: dict[str, tuple[type[TfcheckError], Any]] = {
    "no inputs": (BatchError, lambda: check_layer(L.Dense(2))),
    "a class": (ArgumentTypeError, lambda: check_layer(L.Dense, X)),
    "a function": (ArgumentTypeError, lambda: check_layer(tf.nn.relu, X)),
    "an empty array": (BatchError, lambda: check_layer(L.Dense(2), X[:0])),
    "a wrong rank": (BatchError, lambda: check_layer(L.Conv2D(2, 2), X)),
    "not finite": (BatchError, lambda: check_layer(L.Dense(2), X * np.nan)),
    "option": (ArgumentError, lambda: check_layer(L.Dense(2), X, method="fast")),
    "arguments that are no dict": (
        ArgumentTypeError,
        lambda: check_layer(L.Dense(2), X, arguments=[X]),  # type: ignore[arg-type]
    ),
    "training by hand": (
        ArgumentError,
        lambda: check_layer(L.Dropout(0.5), X, arguments={"training": True}),
    ),
    "gradients of other outputs": (
        TraceError,
        lambda: check_layer(L.Dense(2), X, output_gradients=np.ones((6, 3))),
    ),
    "nothing to differentiate": (
        TraceError,
        lambda: check_layer(L.StringLookup(vocabulary=["a"]), np.array(["a"])),
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments(name: str) -> None:
    """What cannot be checked is refused with one sentence: rule, received, what to do."""
    kind, call = BAD[name]
    with pytest.raises(kind, match=r"(?s)^.+\. Received: .+\."):
        call()


def test_named_arguments() -> None:
    """Arrays among them are inputs, too; flags and masks are passed on as they are."""
    masked = check_layer(L.GRU(3), SEQUENCES, arguments={"mask": MASK})
    assert masked.verdict is Verdict.PASS, str(masked)
    assert masked.objective.losses != check_layer(L.GRU(3), SEQUENCES).objective.losses
    begun = check_layer(L.GRU(3), SEQUENCES, arguments={"initial_state": X[:2, :3]})
    assert begun.verdict is Verdict.PASS, str(begun)
    assert {"input_0", "input_1"} <= set(by_name(begun))
    attended = check_layer(
        L.MultiHeadAttention(2, 3), SEQUENCES, SEQUENCES, arguments={"use_causal_mask": True}
    )
    assert attended.verdict is Verdict.PASS, str(attended)


def test_gradients_of_outputs() -> None:
    """With weights of one's own, a loss is the sum of what they weigh."""
    weights = np.arange(18, dtype="float32").reshape(6, 3)
    layer = L.Dense(3)
    report = check_layer(layer, X, output_gradients=weights)
    assert report.verdict is Verdict.PASS, str(report)
    assert report.objective.losses[0] == pytest.approx(float(np.sum(layer(X) * weights)), rel=1e-5)


def test_what_is_within_is_called_in_the_phase() -> None:
    """A layer that does not take `training` hands it on to those it is made of."""

    class Block(keras.layers.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.normalized = L.BatchNormalization()

        def build(self, shape: Any) -> None:
            self.normalized.build(shape)

        def call(self, x: Any) -> Any:
            return self.normalized(x)

    layer = Block()
    losses = [check_layer(layer, X, phase=phase).objective.losses for phase in PHASES]
    own = [check_layer(layer.normalized, X, phase=phase).objective.losses for phase in PHASES]
    assert losses[0] != losses[1]
    assert losses == own


def raising(error: Exception) -> Any:
    """A function that raises."""

    def call(_x: Any) -> Any:
        raise error

    return call


class Built(keras.layers.Lambda):
    """A function that is not tried out before it is checked."""

    def __init__(self, function: Any) -> None:
        super().__init__(function)
        self.built = True


UNFIT: dict[str, Any] = {
    "a wrong rank": lambda: check_layer(L.Conv2D(2, 2), X),
    "None within": lambda: check_layer(L.Lambda(lambda _: tf.convert_to_tensor(None)), X),
    "an operation refuses": lambda: check_layer(L.Lambda(lambda x: tf.reshape(x, (7, -1))), X),
    "only in its run": lambda: check_layer(
        Built(lambda x: tf.gather(x, 7 + tf.cast(0 * x[:, 0], tf.int32))), X
    ),
    "it raises": lambda: check_layer(L.Lambda(raising(RuntimeError("no"))), X),
    "not finite": lambda: check_layer(L.Dense(2), X * np.nan),
}


@pytest.mark.parametrize("name", UNFIT)
def test_messages_speak_of_the_layer(name: str) -> None:
    """Where there are no targets, no model and no training, no message sends anyone there."""
    with pytest.raises((BatchError, TraceError)) as caught:
        UNFIT[name]()
    said = str(caught.value)
    assert "layer" in said
    for absent in ("model", "target", "fit can", "as fit", "training", "batch"):
        assert absent not in said, said
