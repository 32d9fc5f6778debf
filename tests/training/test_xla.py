"""What XLA makes of the step, beside the step: the same, another side of a tie, or wrong."""

# mypy: allow-subclassing-any

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcheck import GradientReport, Verdict, check_gradients, check_layer
from tfcheck.rendering.advice import advice
from tfcheck.rendering.console import report_text

L = keras.layers
RNG = np.random.default_rng(4)
X = RNG.normal(size=(8, 5)).astype("float32")
Y = RNG.normal(size=(8, 1)).astype("float32")


@pytest.fixture(autouse=True)
def same_weights() -> None:
    """Seed what layers draw their initial weights from."""
    keras.utils.set_random_seed(2)


def network(*layers: keras.layers.Layer, width: int = 5, **compiling: Any) -> keras.Model:
    """A model `net` of these layers and a last one `out`, which `fit` compiles with XLA."""
    model = keras.Sequential([keras.Input((width,)), *layers, L.Dense(1, name="out")], name="net")
    model.compile(**{"optimizer": "sgd", "loss": "mse", "jit_compile": True, **compiling})
    return model


def distances(report: GradientReport) -> list[float]:
    """How far each compiled gradient is from the plain one, where they were compared."""
    found = (variable.compiled_distance for variable in report.variables)
    return [distance for distance in found if distance is not None]


def under_xla(report: GradientReport) -> set[str]:
    """The variables with the reason `compiled`."""
    return {variable.path for variable in report.variables if variable.reason == "compiled"}


# -- the same --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_a_healthy_model_is_the_same_under_xla(dtype: str) -> None:
    """Loss and gradients agree to the rounding of their precision, and nothing is said of it."""
    report = check_gradients(network(L.Dense(6, "tanh", dtype=dtype)), X, Y)
    assert report.verdict is Verdict.PASS, str(report)
    assert report.objective.compiled_losses == pytest.approx(report.objective.losses, rel=1e-2)
    most = 1e-5 if dtype == "float32" else 0.1
    assert max(distances(report)) < most
    assert len(distances(report)) == len(report.variables)
    assert report.notes == ()


def test_what_fit_does_not_compile_is_not_compared() -> None:
    """Only a step that fit or evaluate compiles has a compiled path."""
    plain = check_gradients(network(L.Dense(2), jit_compile=False), X, Y)
    own = check_gradients(
        network(L.Dense(2)), X, Y, loss_fn=lambda model, x, y, _: tf.reduce_mean(model(x) - y) ** 2
    )
    alone = check_layer(L.Dense(2), X)
    for report in (plain, own, alone):
        assert report.objective.compiled_losses == ()
        assert distances(report) == []
    inference = check_gradients(network(L.Dense(2)), X, Y, phase="inference")
    assert len(inference.objective.compiled_losses) == 1


def test_keras_resolves_auto() -> None:
    """`jit_compile="auto"` is what Keras makes of it: no XLA for layers without support."""

    class Unsupported(keras.layers.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.supports_jit = False

        def call(self, x: Any) -> Any:
            return x

    with pytest.warns(UserWarning, match="jit_compile"):
        model = network(Unsupported())
    assert check_gradients(model, X, Y).objective.compiled_losses == ()


def test_random_numbers_are_given_to_xla() -> None:
    """XLA draws other numbers from the same seeds; it is given those that were drawn without."""

    class RawNoise(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return x + tf.random.normal(tf.shape(x))

    report = check_gradients(network(L.GaussianNoise(1.0, seed=1), RawNoise(), L.Dense(3)), X, Y)
    assert report.verdict is Verdict.PASS, str(report)
    assert report.objective.compiled_losses == pytest.approx(
        report.objective.trained_losses, rel=1e-5
    )
    assert max(distances(report)) < 1e-5


# -- different -------------------------------------------------------------------------------


class AboveMean(keras.layers.Layer):
    """The function of TensorFlow issue 118713: XLA rounds the mean otherwise, and a tie flips."""

    def call(self, x: Any) -> Any:
        above = x > tf.reduce_mean(x, axis=1, keepdims=True)
        return tf.where(above, tf.sin(x), tf.cos(x))


TIED = np.asarray(tf.reshape(tf.linspace(-1.0, 1.0, 15), [3, 5]))


def test_tensorflow_issue_118713() -> None:
    """A gradient that XLA computes otherwise, whatever the weights, is wrong where fit compiles."""
    report = check_gradients(network(AboveMean(), L.Dense(4, "tanh", name="hidden")), TIED, Y[:3])
    assert report.verdict is Verdict.FAIL, str(report)
    assert under_xla(report) == {variable.path for variable in report.variables}
    assert min(distances(report)) > 1e-2
    assert all("rounding explains 1.0e-04" in variable.note for variable in report.variables)
    assert all(variable.score < 1e-6 for variable in report.variables)
    (there,), (here,) = report.objective.compiled_losses, report.objective.trained_losses
    assert abs(there - here) > 1e-2 * here
    assert any(f"{there:.6g} compiled with XLA" in note for note in report.notes), report.notes
    assert "fail, under XLA" in report_text(report)
    assert "`jit_compile=False`" in advice(report)[0]
    plain = network(AboveMean(), L.Dense(4, "tanh", name="hidden"), jit_compile=False)
    assert check_gradients(plain, TIED, Y[:3]).verdict is Verdict.PASS


def test_a_tie_that_a_step_of_the_weights_undoes_is_no_failure() -> None:
    """Where XLA takes another side of a tie at this very point only, a note says so."""
    identity = L.Dense(5, kernel_initializer="identity", name="same")
    report = check_gradients(network(identity, AboveMean(), L.Dense(4, "tanh")), TIED, Y[:3])
    assert under_xla(report) == set()
    assert report.verdict is not Verdict.FAIL, str(report)
    assert max(distances(report)) > 1e-2
    assert any("agrees a little aside" in note for note in report.notes), report.notes


class Saturating(keras.layers.Layer):
    """Cuts off what is too large for an integer: casts saturate under XLA, and wrap without."""

    def call(self, x: Any) -> Any:
        return x * tf.cast(tf.cast(tf.abs(x) * 1e12, tf.int32) > 0, tf.float32)


def test_a_gradient_that_only_xla_has_is_wrong() -> None:
    """Gradients that are zero without XLA are compared as well, unless they are so with it."""
    report = check_gradients(network(L.Dense(4, "tanh", name="hidden"), Saturating()), X, Y)
    assert {"net/hidden/kernel", "net/hidden/bias", "net/out/kernel"} <= under_xla(report)
    assert report.verdict is Verdict.FAIL


def test_what_is_zero_in_theory_is_not_compared() -> None:
    """A bias before BatchNorm has a gradient of rounding alone, under XLA as well."""
    report = check_gradients(network(L.Dense(4, name="hidden"), L.BatchNormalization()), X, Y)
    assert report.verdict is Verdict.PASS, str(report)
    bias = next(v for v in report.variables if v.path == "net/hidden/bias")
    assert (bias.reason, bias.compiled_distance) == ("below_resolution", None)


# -- refused ---------------------------------------------------------------------------------


def test_a_graph_that_xla_refuses_is_noted() -> None:
    """What XLA has no kernel for is named in a note, and the verdict is that of the gradients."""

    class Spelled(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return x * tf.cast(tf.strings.length(tf.strings.as_string(x)), tf.float32)

    report = check_gradients(network(L.Dense(2), Spelled()), X, Y)
    assert report.verdict is Verdict.PASS
    assert report.objective.compiled_losses == ()
    assert any("was not compared: XLA has no kernel for AsString." in n for n in report.notes)


def test_numbers_drawn_in_loops_are_noted() -> None:
    """Random numbers within a function cannot be given to XLA, so nothing is compared."""

    class Loop(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            def body(i: Any, total: Any) -> Any:
                noise = tf.random.stateless_normal(tf.shape(x), tf.stack([i, 1]))
                return i + 1, total + noise

            return tf.while_loop(lambda i, _: i < 3, body, (0, x))[1]

    report = check_gradients(network(L.Dense(2), Loop()), X, Y)
    assert report.verdict is Verdict.PASS, str(report)
    assert report.objective.compiled_losses == ()
    assert any("random operations within" in note for note in report.notes), report.notes
