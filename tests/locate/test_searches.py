"""Searches come to an end by themselves: few evaluations, the right layer, no healthy one."""

# mypy: allow-subclassing-any

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcheck import check_gradients
from tfcheck.gradient_report import GradientReport
from tfcheck.judge.verdict import Verdict

L = keras.layers
RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 6)).astype("float32")
Y = RNG.normal(size=(8, 1)).astype("float32")


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How often steps and layers were run eagerly, in the search for the culprit, too."""
    from tfcheck.objective import eager_step as eager

    count = 0
    listen = eager.listen_eagerly

    def counted(*args: Any) -> Any:
        nonlocal count
        count += 1
        return listen(*args)

    monkeypatch.setattr("tfcheck.objective.eager_step.listen_eagerly", counted)
    return lambda: count


def compiled(*layers: keras.Layer, eager: bool = False) -> keras.Model:
    """A sequential model of these layers, compiled."""
    model = keras.Sequential([keras.Input((6,)), *layers])
    model.compile("sgd", "mse", run_eagerly=eager)
    return model


def overflowing() -> keras.Layer:
    """A layer whose output is finite in float64 alone."""
    bias = keras.initializers.Constant(95.0)
    return L.Dense(1, activation="exponential", bias_initializer=bias, name="overflowing")


AFTER: dict[str, Callable[[], list[keras.Layer]]] = {
    "nothing": list,
    "a saturating layer": lambda: [L.Dense(4, activation="sigmoid"), L.Dense(1)],
    "a layer that stays finite": lambda: [L.Dense(4, activation="tanh"), L.Dense(1)],
    "a normalisation": lambda: [L.LayerNormalization(), L.Dense(4, activation="relu"), L.Dense(1)],
}


@pytest.mark.parametrize(
    ("after", "eager"),
    [*((after, False) for after in AFTER), ("nothing", True), ("a normalisation", True)],
)
def test_an_overflow_is_named_where_it_begins(
    after: str, eager: bool, runs: Callable[[], int]
) -> None:
    """The layer that overflows is the culprit, and none before it or after it."""
    keras.utils.set_random_seed(0)
    model = compiled(L.Dense(4, activation="relu"), overflowing(), *AFTER[after](), eager=eager)
    report = check_gradients(model, X, Y)
    assert report.verdict == "fail"
    assert report.culprits == (model.get_layer("overflowing").path,)
    assert report.evaluations <= 300
    assert runs() <= 400


def test_an_overflow_in_training_is_told() -> None:
    """Where the float64 graph has a loss, it stands for the step, and the report says what is."""
    keras.utils.set_random_seed(0)
    model = compiled(L.Dense(4, activation="relu"), overflowing())
    report = check_gradients(model, X, Y)
    assert report.objective.precision == "float64"
    assert any("in float32, in which it trains" in note for note in report.notes), report.notes
    assert not any("eagerly" in note for note in report.notes), report.notes


class Quantizer(keras.layers.Layer):
    """Looks up the nearest of a few vectors; with a straight-through estimator, or without."""

    def __init__(self, *, straight: bool) -> None:
        super().__init__(name="quantizer")
        self._straight = straight

    def build(self, shape: Any) -> None:
        self.codes = self.add_weight(shape=(8, shape[-1]), initializer="random_normal")

    def call(self, x: Any) -> Any:
        distances = tf.reduce_sum((x[:, None] - self.codes) ** 2, axis=-1)
        found = tf.gather(self.codes, tf.argmin(distances, axis=-1))
        if not self._straight:
            return found
        self.add_loss(tf.reduce_mean((tf.stop_gradient(x) - found) ** 2))
        return x + tf.stop_gradient(found - x)


@pytest.mark.parametrize(
    ("straight", "eager"),
    [(True, False), (False, False), (True, True)],
    ids=["straight-through", "blocked", "straight-through and eager"],
)
def test_a_nearest_neighbour_is_looked_up(
    straight: bool, eager: bool, runs: Callable[[], int]
) -> None:
    """The layer that looks it up is the culprit, and what comes after it is right."""
    keras.utils.set_random_seed(0)
    model = compiled(L.Dense(3), Quantizer(straight=straight), L.Dense(1), eager=eager)
    report = check_gradients(model, X, Y)
    assert report.verdict == "fail"
    assert report.culprits == (model.get_layer("quantizer").path,)
    assert {v.verdict for v in report.variables[:2]} == {"fail"}
    assert not {v.verdict for v in report.variables[-2:]} & {"fail", "suspect"}
    assert report.evaluations <= 300
    assert runs() <= 600


class Mapped(keras.Model):
    """Takes the gradient of each sample by itself, with a tape inside of `tf.map_fn`."""

    def __init__(self) -> None:
        super().__init__()
        self.first = L.Dense(4, activation="tanh")
        self.last = L.Dense(1)

    def call(self, x: Any) -> Any:
        return self.last(self.first(x))

    def train_step(self, data: Any) -> Any:
        variables = self.trainable_variables

        def of_one(sample: Any) -> Any:
            x, y = sample
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((self(x[None]) - y) ** 2)
            return tape.gradient(loss, [variable.value for variable in variables])

        kinds = [tf.TensorSpec(variable.shape, tf.float32) for variable in variables]
        found = tf.map_fn(of_one, data, fn_output_signature=kinds)
        means = [tf.reduce_mean(gradient, axis=0) for gradient in found]
        self.optimizer.apply_gradients(zip(means, variables, strict=True))
        return {}


def mapped(samples: int) -> GradientReport:
    """The report of such a step on so many samples."""
    keras.utils.set_random_seed(0)
    model = Mapped()
    model.compile("sgd", "mse")
    model(X)
    return check_gradients(model, X[:samples], Y[:samples])


def test_a_tape_for_each_sample() -> None:
    """A run gives the losses of all tapes at once: more of them hardly take more runs."""
    few, many = mapped(1), mapped(6)
    for report in (few, many):
        assert report.count(Verdict.FAIL) == report.count(Verdict.SUSPECT) == 0, str(report)
        assert report.culprits == ()
    assert many.evaluations <= 2 * few.evaluations <= 600
