"""NaN and infinity in a batch: a label that is missing, say. What counts is the loss."""

# mypy: allow-subclassing-any

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcheck import Verdict, check_gradients, check_layer
from tfcheck.errors import BatchError

L = keras.layers
RNG = np.random.default_rng(5)
X = RNG.normal(size=(6, 3)).astype("float32")
Y = RNG.normal(size=(6, 2)).astype("float32")


def holes(array: Any, value: float = np.nan) -> Any:
    """A copy with a row and an entry of a value."""
    copy = array.copy()
    copy[0] = copy[2, 1] = value
    return copy


def net(*layers: keras.layers.Layer, loss: Any = "mse", **how: Any) -> keras.Model:
    """A compiled model of these layers."""
    model = keras.Sequential([keras.Input((3,)), *layers], name="net")
    model.compile("sgd", loss, **how)
    return model


def replaced(y: Any, y_pred: Any) -> Any:
    """Leaves missing labels out before anything is computed of them."""
    known = tf.math.is_finite(y)
    return tf.reduce_mean(tf.where(known, (tf.where(known, y, 0.0) - y_pred) ** 2, 0.0))


def picked(y: Any, y_pred: Any) -> Any:
    """Picks the labels that are known."""
    known = tf.math.is_finite(y)
    return tf.reduce_mean((tf.boolean_mask(y, known) - tf.boolean_mask(y_pred, known)) ** 2)


def too_late(y: Any, y_pred: Any) -> Any:
    """Leaves them out of the loss, and not out of its gradient: zero times NaN is NaN."""
    return tf.reduce_mean(tf.where(tf.math.is_finite(y), (y - y_pred) ** 2, 0.0))


class Imputed(keras.layers.Layer):
    """A learnt number in the place of each that is missing."""

    def build(self, shape: Any) -> None:
        self.fill = self.add_weight(shape=(shape[-1],), name="fill")

    def call(self, x: Any) -> Any:
        return tf.where(tf.math.is_finite(x), x, tf.convert_to_tensor(self.fill))


class Closed(keras.layers.Layer):
    """Infinitely small scores where attention must not go."""

    def call(self, scores: Any) -> Any:
        return tf.where([True, False, True, True], scores, -np.inf)


class Errors(keras.layers.Layer):
    def call(self, y_pred: Any, y: Any) -> Any:
        return y - y_pred


class Known(keras.layers.Layer):
    def call(self, errors: Any) -> Any:
        return tf.reduce_mean(tf.boolean_mask(errors, tf.math.is_finite(errors)) ** 2)


class OneAfterTheOther(keras.Model):
    """Makes NaN in one layer, and leaves it out in the next."""

    def __init__(self) -> None:
        super().__init__()
        self.dense, self.errors, self.known = L.Dense(2), Errors(), Known()
        self.dense.build((None, 3))

    def call(self, x: Any) -> Any:
        return self.dense(x)

    def compute_loss(self, x: Any, y: Any, y_pred: Any, *_args: Any, **_options: Any) -> Any:
        return self.known(self.errors(y_pred, y))


def one_after_the_other() -> keras.Model:
    """The model, built and compiled."""
    model = OneAfterTheOther()
    model.compile("sgd")
    return model


WEIGHTS = np.array([0, 1, 0, 1, 1, 1], "float32")
FINE: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "labels replaced": (lambda: net(L.Dense(2), loss=replaced), (X, holes(Y))),
    "labels picked": (lambda: net(L.Dense(2), loss=picked), (X, holes(Y))),
    "in an eager run": (lambda: net(L.Dense(2), loss=picked, run_eagerly=True), (X, holes(Y))),
    "features imputed": (lambda: net(Imputed(), L.Dense(2)), (holes(X), Y)),
    "weights of zero": (lambda: net(Imputed(), L.Dense(2)), (holes(X, np.inf), Y, WEIGHTS)),
    "masks of infinity": (lambda: net(L.Dense(4), Closed(), L.Softmax(), L.Dense(2)), (X, Y)),
    "made and left out": (one_after_the_other, (X, holes(Y))),
}


@pytest.mark.parametrize("name", FINE)
def test_what_the_loss_leaves_out_is_no_obstacle(name: str) -> None:
    """Where the loss is finite, the batch may hold what it likes."""
    make, data = FINE[name]
    report = check_gradients(make(), *data)
    assert report.verdict is Verdict.PASS, str(report)


@pytest.mark.parametrize("method", ["directions", "full"])
def test_a_layer_that_imputes(method: str) -> None:
    """A layer's input may have holes: the entries that are there are checked."""
    report = check_layer(Imputed(), holes(X), method=method)
    assert report.verdict is Verdict.PASS, str(report)
    assert {variable.reason for variable in report.variables} == {""}


def test_left_out_too_late() -> None:
    """A finite loss with a gradient of NaN is the well-known mistake, and fails."""
    report = check_gradients(net(L.Dense(2, name="last"), loss=too_late), X, holes(Y))
    assert report.verdict is Verdict.FAIL
    assert {variable.reason for variable in report.variables} == {"non_finite"}
    assert report.culprits == ("loss",)


REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "labels": ((X, holes(Y)), r"3 of 12 values in array 1 \(shape \(6, 2\)\)"),
    "features": ((holes(X, np.inf), Y), r"4 of 18 values in array 0"),
    "weights": ((X, Y, holes(np.ones((6, 2), "float32"))[:, 0]), r"1 of 6 values in array 2"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_spoils_the_loss_is_refused(name: str) -> None:
    """A batch that makes the loss NaN is refused, with how much of which array does."""
    data, said = REFUSED[name]
    with pytest.raises(BatchError, match=said):
        check_gradients(net(L.Dense(2), run_eagerly=name == "weights"), *data)


def test_a_layer_that_hands_it_on() -> None:
    """So is what makes a layer's outputs NaN."""
    with pytest.raises(BatchError, match=r"^The outputs of a layer must be finite\."):
        check_layer(L.Dense(2), holes(X))


def test_weights_of_nan_are_not_the_batch() -> None:
    """A model that has diverged fails, whatever the batch leaves out."""
    model = net(L.Dense(2), loss=picked)
    model.layers[-1].bias.assign([np.nan, 0.0])
    report = check_gradients(model, X, holes(Y))
    assert report.verdict is Verdict.FAIL
    assert {variable.reason for variable in report.variables} == {"non_finite"}
