"""Dropout frozen: on, with its masks held fixed, so that what is wrong only with it is seen."""

# mypy: allow-subclassing-any

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from fingerprint import nothing_changes

# The class that the guides to custom cells are about has no public name.
from keras.src.layers.rnn.dropout_rnn_cell import DropoutRNNCell

from tfcheck import GradientReport, Verdict, check_gradients, check_layer
from tfcheck.callbacks import GradientCheck

L = keras.layers
RNG = np.random.default_rng(8)
X = RNG.normal(size=(6, 3)).astype("float32")
Y = RNG.normal(size=(6, 2)).astype("float32")
SEQUENCES = RNG.normal(size=(4, 5, 3)).astype("float32")


class Recomputed(keras.layers.Layer):
    """A block that is computed again for its gradient, with another mask."""

    def __init__(self, remat: Any, drop: Any) -> None:
        super().__init__(name="recomputed")
        self.inner = L.Dense(4, activation="tanh", name="inner")
        self.remat = remat
        self.drop = drop

    def build(self, shape: Any) -> None:
        self.inner.build(shape)

    def call(self, x: Any, training: bool = False) -> Any:
        return self.remat(lambda x: self.drop(self.inner(x), training=training))(x)


REDRAWN: dict[str, Any] = {
    "keras.remat": lambda: Recomputed(keras.remat, L.Dropout(0.5, seed=3)),
    "tf.recompute_grad": lambda: Recomputed(
        tf.recompute_grad, lambda x, training: tf.nn.dropout(x, 0.5)
    ),
}


class RawDropout(keras.layers.Layer):
    """Dropout with a raw random operation."""

    def call(self, x: Any) -> Any:
        return tf.nn.dropout(tf.sin(x), rate=0.5)


def compiled(*layers: keras.layers.Layer, **how: Any) -> keras.Model:
    """A compiled model of these layers."""
    model = keras.Sequential([keras.Input((3,)), *layers, L.Dense(2, name="last")], name="net")
    model.compile("sgd", "mse", **how)
    return model


def verdicts(report: GradientReport) -> dict[str, Verdict]:
    """The verdicts by the variables' paths."""
    return {variable.path: variable.verdict for variable in report.variables}


@pytest.mark.parametrize("kind", REDRAWN)
def test_a_mask_that_is_drawn_anew(kind: str) -> None:
    """What is right without dropout is wrong with it, there and nowhere else."""
    model = compiled(REDRAWN[kind]())
    with nothing_changes(model):
        off = check_gradients(model, X, Y)
        frozen = check_gradients(model, X, Y, dropout="frozen")
    assert off.verdict is Verdict.PASS, str(off)
    assert {path for path, v in verdicts(frozen).items() if v is Verdict.FAIL} == {
        "net/recomputed/inner/kernel",
        "net/recomputed/inner/bias",
    }, str(frozen)
    assert all(path.startswith("net/recomputed") for path in frozen.culprits)
    assert "dropout frozen" in str(frozen)
    assert "dropout frozen" not in str(off)


class Masked(DropoutRNNCell, keras.layers.Layer):
    """A cell that multiplies with its masks, whatever they are."""

    def __init__(self) -> None:
        super().__init__(name="masked")
        self.state_size = 3
        self.dropout = self.recurrent_dropout = 0.5
        self.seed_generator = keras.random.SeedGenerator(1)

    def build(self, _shape: Any) -> None:
        self.mix = self.add_weight(shape=(3, 3), name="mix")

    def call(self, x: Any, states: Any) -> Any:
        (state,) = states
        x = x * self.get_dropout_mask(x)
        state = tf.tanh((x + state * self.get_recurrent_dropout_mask(state)) @ self.mix)
        return state, [state]


RIGHT: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "layers": (
        lambda: keras.Sequential([L.Dropout(0.3), L.GaussianDropout(0.3), L.AlphaDropout(0.3)]),
        (X,),
    ),
    "lstm": (lambda: L.LSTM(3, dropout=0.5, recurrent_dropout=0.3), (SEQUENCES,)),
    "attention": (lambda: L.MultiHeadAttention(2, 3, dropout=0.5), (SEQUENCES, SEQUENCES)),
    "raw": (RawDropout, (X,)),
    "a cell's masks": (lambda: L.RNN(Masked()), (SEQUENCES,)),
}


def test_a_mask_that_keeps_everything_is_a_mask() -> None:
    """A cell that multiplies with its masks runs with dropout off as well."""
    report = check_layer(L.RNN(Masked()), SEQUENCES)
    assert report.verdict is Verdict.PASS, str(report)
    assert report.objective.precision == "float64"


@pytest.mark.parametrize("name", RIGHT)
def test_right_layers_pass_with_their_dropout_on(name: str) -> None:
    """Masks that stand still are constants, of whatever kind of layer."""
    make, inputs = RIGHT[name]
    report = check_layer(make(), *inputs, dropout="frozen")
    assert report.verdict is Verdict.PASS, str(report)
    assert report.objective.precision == "float64"


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_draws_as_it_trains(policy: str) -> None:
    """The numbers are those of the precision that draws them, in float64 as well."""
    keras.config.set_dtype_policy(policy)
    try:
        model = compiled(L.Dense(8), L.Dropout(0.5), L.Dense(8), L.GaussianNoise(0.2))
    finally:
        keras.config.set_dtype_policy("float32")
    report = check_gradients(model, X, Y, dropout="frozen")
    assert report.verdict is Verdict.PASS, str(report)
    assert report.objective.precision == "float64"


def test_eager_runs_drop_the_same() -> None:
    """Steps that run eagerly are given the same masks in every run, of layers and raw ones."""
    model = compiled(L.Dense(4), L.Dropout(0.3), RawDropout(), run_eagerly=True)
    with nothing_changes(model):
        report = check_gradients(model, X, Y, dropout="frozen")
    assert report.verdict is Verdict.PASS, str(report)
    assert {variable.reason for variable in report.variables} == {""}


def test_the_callback_takes_it() -> None:
    """Every check of a training is made with dropout frozen."""
    model = compiled(L.Dense(4), L.Dropout(0.5, seed=2))
    callback = GradientCheck(X, Y, epochs=1, dropout="frozen", tracking=None)
    model.fit(X, Y, verbose=0, callbacks=[callback])
    first, second = callback.reports
    assert first.verdict is second.verdict is Verdict.PASS
    assert first.settings.dropout == "frozen"
