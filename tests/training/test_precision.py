"""Whether the precision that trains suffices: figures beside the verdict, which never change it."""

# mypy: allow-subclassing-any

from __future__ import annotations

import math
from typing import Any, cast

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcheck import GradientReport, Verdict, check_gradients, check_layer
from tfcheck.checker import GradientChecker
from tfcheck.errors import ArgumentError
from tfcheck.judge.verdict import PRECISION, Thresholds
from tfcheck.measure.distance import distance
from tfcheck.objective.graph_objective import GraphObjective
from tfcheck.rendering.advice import advice
from tfcheck.rendering.console import report_text
from tfcheck.rendering.html import report_page
from tfcheck.settings import make_settings
from tfcheck.trace.batch import first_batch
from tfcheck.tracking import schema
from tfcheck.tracking.metrics import of_report as metrics_of

L = keras.layers
RNG = np.random.default_rng(8)
X = RNG.normal(size=(8, 5)).astype("float32")
Y = RNG.normal(size=(8, 1)).astype("float32")


@pytest.fixture(autouse=True)
def same_weights() -> None:
    """Seed what layers draw their initial weights from."""
    keras.utils.set_random_seed(2)


def tiny_loss(y: Any, y_pred: Any) -> Any:
    """A mean squared error so small that its gradients underflow in float16."""
    return 1e-8 * tf.reduce_mean(tf.square(tf.cast(y_pred, tf.float32) - y))


def network(
    dtype: str, *middle: keras.layers.Layer, loss: Any = "mse", optimizer: Any = "sgd"
) -> keras.Model:
    """A compiled model `net` with the layers `hidden` and `out`."""
    layers = [L.Dense(6, "tanh", dtype=dtype, name="hidden"), *middle]
    model = keras.Sequential(
        [keras.Input((5,)), *layers, L.Dense(1, dtype=dtype, name="out")], name="net"
    )
    model.compile(optimizer, loss)
    return model


def errors_of(report: GradientReport) -> dict[str, float]:
    """The precision error of each layer."""
    return {layer.path: layer.precision_error for layer in report.layers}


# -- the distance ----------------------------------------------------------------------------

ONE = np.array([3.0, 4.0])


@pytest.mark.parametrize(
    ("found", "reference", "expected"),
    [
        (ONE, ONE, 0.0),
        (-ONE, ONE, 1.0),
        (0 * ONE, ONE, 1.0),
        (3 * ONE, ONE, 0.5),
        (0 * ONE, 0 * ONE, 0.0),
        (np.array([np.inf, 0.0]), ONE, 1.0),
        (np.array([np.nan, 0.0]), ONE, 1.0),
        (ONE, np.array([np.nan, 0.0]), math.nan),
        (None, ONE, math.nan),
        (ONE, None, math.nan),
        (ONE, np.ones(3), math.nan),
    ],
)
def test_distance(found: Any, reference: Any, expected: float) -> None:
    """0 is equal, 1 is unrelated or not finite, nan is unknown."""
    assert distance(found, reference) == pytest.approx(expected, nan_ok=True)


# -- healthy models --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "trained", "least", "most"),
    [
        ("float32", "float32", 1e-9, 1e-5),
        ("mixed_float16", "float16", 1e-5, 3e-2),
        ("mixed_bfloat16", "bfloat16", 3e-4, PRECISION),
        ("float64", "float32", 0.0, 1e-6),  # Keras casts the batch to float32
    ],
)
def test_healthy_models_are_off_by_their_rounding(
    dtype: str, trained: str, least: float, most: float
) -> None:
    """Each layer of a healthy model is as far off as its precision rounds, and is not named."""
    report = check_gradients(network(dtype), X, Y)
    assert report.verdict is Verdict.PASS, str(report)
    assert report.objective.trained_precision == trained
    assert report.objective.trained_losses == pytest.approx(report.objective.losses, rel=0.1)
    assert all(least <= error <= most for error in errors_of(report).values()), errors_of(report)
    assert report.imprecise_layers == ()


def test_gradients_that_are_zero_in_theory_have_no_precision() -> None:
    """What is left of a bias before BatchNorm is rounding in either precision: it has no figure."""
    model = network("mixed_float16", L.BatchNormalization(dtype="mixed_float16", name="norm"))
    model.layers[0].activation = keras.activations.linear
    report = check_gradients(model, X, Y)
    bias = next(v for v in report.variables if v.path == "net/hidden/bias")
    assert bias.reason == "below_resolution", str(report)
    assert bias.trained_norm > 1e3 * bias.analytic_norm
    assert math.isnan(bias.precision_error)
    assert report.imprecise_layers == ()
    assert errors_of(report)["net/hidden"] > 0


# -- what training loses ---------------------------------------------------------------------


def test_underflow_is_named_and_passes() -> None:
    """Gradients that underflow in float16 are right, so they pass, but their layers are named."""
    report = check_gradients(network("mixed_float16", loss=tiny_loss), X, Y)
    assert report.verdict is Verdict.PASS, str(report)
    assert report.imprecise_layers == ("net/hidden", "net/out")
    assert set(errors_of(report).values()) == {1.0}
    assert {v.trained_norm for v in report.variables} == {0.0}
    assert any("`net/hidden` and `net/out` underflows: scale" in step for step in advice(report))


def test_a_scaled_loss_does_not_underflow() -> None:
    """The gradient is taken at the scaled loss, as in training, and then told without the scale."""
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())
    report = check_gradients(network("mixed_float16", loss=tiny_loss, optimizer=optimizer), X, Y)
    assert report.imprecise_layers == ()
    assert all(error < 1e-2 for error in errors_of(report).values()), errors_of(report)
    for variable in report.variables:
        assert variable.trained_norm == pytest.approx(variable.analytic_norm, rel=0.1)


def test_overflow_is_named_and_passes() -> None:
    """A loss scale that is too large gives infinite gradients in training."""
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(), initial_scale=2.0**24)
    report = check_gradients(network("mixed_float16", optimizer=optimizer), X, 100 * Y)
    assert report.verdict is Verdict.PASS, str(report)
    assert report.imprecise_layers == ("net/hidden", "net/out")
    assert any("overflows" in step for step in advice(report))


class Cancelling(keras.layers.Layer):
    """Adds w · (4 − 4 · (1 − 2⁻¹²)), whose gradient float16 takes for zero."""

    def build(self, shape: Any) -> None:
        self.w = self.add_weight(shape=(shape[-1],), initializer="ones", name="w")

    def call(self, x: Any) -> Any:
        w = tf.cast(self.w, x.dtype)
        nearly_one = tf.cast(tf.constant(1 - 2.0**-12), x.dtype)
        return x + 4 * w - 4 * w * nearly_one


@pytest.mark.parametrize(("dtype", "named"), [("mixed_float16", True), ("float32", False)])
def test_cancellation_is_named(dtype: str, named: bool) -> None:
    """The one layer whose gradient cancels in float16 is named, and none in float32."""
    report = check_gradients(network(dtype, Cancelling(dtype=dtype, name="cancelling")), X, Y)
    assert report.verdict is Verdict.PASS, str(report)
    assert report.imprecise_layers == (("net/cancelling",) if named else ())


def test_layers_are_named_alone() -> None:
    """`check_layer` has the figures, too, for weights and inputs."""
    layer = L.Dense(3, dtype="mixed_float16")
    report = check_layer(layer, X)
    assert all(1e-6 < v.precision_error < 1e-2 for v in report.variables), str(report)


class OnlyEager(keras.Sequential):
    """A model whose training step no graph stands for."""

    def train_step(self, data: Any) -> Any:
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self(x) - y))
        scale = min(1.0, float(loss.numpy()))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply([scale * gradient for gradient in gradients], self.trainable_variables)
        return {}


def only_eager() -> keras.Model:
    """A compiled model that only runs eagerly."""
    model = OnlyEager([keras.Input((5,)), L.Dense(1)], name="net")
    model.compile("sgd", "mse")
    return model


def test_eager_steps_have_no_figures() -> None:
    """A step that only runs eagerly is measured in its own precision: nothing to compare."""
    report = check_gradients(only_eager(), X, Y)
    assert report.objective.precision == "float32"
    assert all(math.isnan(error) for error in errors_of(report).values())
    assert report.objective.eager_losses == ()
    assert report.imprecise_layers == ()
    assert "precision  " not in report_text(report)


# -- the option, and where it shows ----------------------------------------------------------


def test_the_limit_is_an_option() -> None:
    """`precision` is the distance from which on layers are named; the verdict does not move."""
    report = check_gradients(network("float32"), X, Y, precision=1e-12)
    assert report.verdict is Verdict.PASS
    assert report.imprecise_layers == ("net/hidden", "net/out")
    assert report.settings.precision == 1e-12


@pytest.mark.parametrize("precision", [0, -1.0, 1.5, math.nan, "0.1", True, None])
def test_limits_that_make_no_sense_are_refused(precision: Any) -> None:
    """The limit is a similarity score above zero."""
    with pytest.raises(ArgumentError, match=r"precision must be .* Received: precision="):
        check_gradients(network("float32"), X, Y, precision=precision)


def test_imprecise_layers_show() -> None:
    """Console and page say which layers are imprecise, and show a column only then."""
    lost = check_gradients(network("mixed_float16", loss=tiny_loss), X, Y)
    fine = check_gradients(network("float32"), X, Y)
    for text in (report_text(lost, width=200), report_page([lost])):
        assert "the gradients in float16 are further than 2e-1 from float64 for net/hidden" in text
    for text in (report_text(fine, width=200), report_page([fine])):
        assert "the gradients in float32 are near those in float64, within 2e-1" in text
    assert ">precision error<" in report_page([lost])
    assert ">precision error<" not in report_page([fine])


def test_mlflow_gets_a_metric_a_layer() -> None:
    """The layers' figures are metrics, and unknown ones are not."""
    report = check_gradients(network("mixed_float16", loss=tiny_loss), X, Y).relative_to_model()
    metrics = metrics_of(report)
    assert metrics["gradcheck/precision/hidden"] == 1.0
    assert schema.params(report.settings)["gradcheck.precision"] == "0.2"
    eager = check_gradients(only_eager(), X, Y)
    assert not [name for name in metrics_of(eager) if "precision" in name]


def test_reports_keep_the_figures() -> None:
    """A report that was written and read is the same; one from before has unknown figures."""
    report = check_gradients(network("mixed_float16", loss=tiny_loss), X, Y)
    content = report.to_dict()
    again = GradientReport.from_dict(content)
    assert again.imprecise_layers == report.imprecise_layers != ()
    assert again.objective == report.objective
    assert again.settings == report.settings

    for layer in content["layers"]:
        for variable in layer["variables"]:
            for name in ("precision_error", "trained_norm", "compiled_distance"):
                del variable[name]
    for name in ("trained_precision", "trained_losses", "compiled_losses", "eager_losses"):
        del content["objective"][name]
    del content["settings"]["precision"]
    old = GradientReport.from_dict(content)
    assert old.imprecise_layers == ()
    assert all(math.isnan(layer.precision_error) for layer in old.layers)
    assert old.objective.eager_losses == ()
    assert "precision" not in report_text(old).replace("precision that", "")


def test_figures_follow_the_training() -> None:
    """One checker traces once; its figures are those of where the model stands at each check."""
    model = network("mixed_float16", optimizer=keras.optimizers.SGD(1.0))
    checker = GradientChecker(model, _settings())
    batch = first_batch(X, Y)
    before = checker.check(batch)
    functions = dict(cast(GraphObjective, checker.objective(batch))._as_trained._functions)
    model.get_layer("out").kernel.assign_add(1e-4 * np.ones((6, 1)))
    model.get_layer("hidden").kernel.assign(1e-9 * np.ones((5, 6)))
    model.get_layer("out").kernel.assign(1e-9 * np.ones((6, 1)))
    after = checker.check(batch)
    assert before.imprecise_layers == ()
    assert after.imprecise_layers == ("net/hidden",)
    assert cast(GraphObjective, checker.objective(batch))._as_trained._functions == functions


def _settings() -> Any:
    return make_settings(
        phase="train",
        method="directions",
        directions=2,
        epsilon="auto",
        thresholds=Thresholds(),
        expected_mismatch=(),
        seed=0,
    )
