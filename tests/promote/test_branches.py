"""Branches of a graph: chosen by a rank or a shape, and differentiated as they are."""

# mypy: allow-subclassing-any

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from wrong_sine import wrong_sine

from tfcheck import Verdict, check_gradients, check_layer

L = keras.layers
RNG = np.random.default_rng(9)
X = RNG.normal(size=(6, 3)).astype("float32")
Y = RNG.normal(size=(6, 2)).astype("float32")


class Function(keras.layers.Layer):
    """A layer that computes a function."""

    def __init__(self, function: Callable[[Any], Any], **options: Any) -> None:
        super().__init__(**options)
        self.function = function

    def call(self, x: Any) -> Any:
        return self.function(x)


class Between(keras.Model):
    """Functions between two dense layers, which need no shapes before they are called."""

    def __init__(self, *functions: Callable[[Any], Any]) -> None:
        super().__init__(name="net")
        self.first, self.last = L.Dense(4, name="first"), L.Dense(2, name="last")
        self.first.build((None, 3))
        self.last.build((None, 4))
        self.middle = [Function(function, name="middle") for function in functions]
        for layer in self.middle:
            layer.build((None, 4))

    def call(self, x: Any) -> Any:
        x = self.first(x)
        for layer in self.middle:
            x = layer(x)
        return self.last(x)


def of_unknown_rank(x: Any) -> Any:
    """The tensor, of which a graph does not know the rank any more."""
    return x if tf.executing_eagerly() else tf.compat.v1.placeholder_with_default(x, shape=None)


def known_again(x: Any) -> Any:
    """The tensor, of which a graph knows what it must."""
    x.set_shape((None, 4))
    return x


def by_rank(x: Any) -> Any:
    """Of images the mean over what comes out of a transposition, else a sine."""
    images = tf.equal(tf.rank(x), 3)
    mean = tf.cond(
        images, lambda: tf.reduce_mean(tf.transpose(x, [0, 2, 1]), axis=2), lambda: tf.sin(x)
    )
    return known_again(mean)


def by_shape(x: Any) -> Any:
    """A product, if the width fits."""
    x = tf.compat.v1.placeholder_with_default(x, (None, None)) if not tf.executing_eagerly() else x
    fits = tf.equal(tf.shape(x)[1], 5)
    return known_again(
        tf.cond(fits, lambda: tf.tanh(x @ tf.ones((5, 4))), lambda: tf.nn.softplus(tf.sin(x)))
    )


def by_number(x: Any) -> Any:
    """One of several functions, by the rank."""
    x = of_unknown_rank(x)
    functions = [lambda: x, lambda: 2 * x, lambda: tf.sin(tf.cos(x)), lambda: tf.reduce_sum(x, 2)]
    return known_again(tf.switch_case(tf.rank(x), functions))


def once_a_rank(x: Any) -> Any:
    """A sine for each axis."""
    return tf.while_loop(lambda i, _: i < tf.rank(x), lambda i, a: (i + 1, tf.sin(a)), (0, x))[1]


BRANCHING: dict[str, tuple[Callable[[Any], Any], ...]] = {
    "by the rank": (lambda x: by_rank(of_unknown_rank(x)),),
    "by an input's unknown rank": (of_unknown_rank, by_rank),
    "by a shape": (by_shape,),
    "by a number": (by_number,),
    "a loop": (once_a_rank,),
}


@pytest.mark.parametrize("name", BRANCHING)
def test_branches_are_promoted(name: str) -> None:
    """What `fit` trains in a graph is checked in float64, whatever is in the other branch."""
    model = Between(*BRANCHING[name])
    model.compile("sgd", "mse")
    model.fit(X, Y, verbose=0)
    report = check_gradients(model, X, Y)
    assert report.verdict is Verdict.PASS, str(report)
    assert report.objective.precision == "float64", str(report)


def test_what_is_wrong_in_a_branch_is_found() -> None:
    """Behind what branches hand to their gradients, a wrong one shows."""

    def branch(x: Any) -> Any:
        x = of_unknown_rank(x)
        images = tf.equal(tf.rank(x), 3)
        return known_again(
            tf.cond(images, lambda: tf.transpose(x, [0, 2, 1])[:, 0], lambda: wrong_sine(x))
        )

    report = check_layer(Function(branch, name="wrong"), np.pad(X, ((0, 0), (0, 1))))
    assert report.verdict is Verdict.FAIL
    assert report.culprits == ("wrong",)
    assert report.objective.precision == "float64"
