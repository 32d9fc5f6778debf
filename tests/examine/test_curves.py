"""The curves that pictures are drawn from: of the right variables, true, and at no cost to a check.

The functions are small enough for their slopes to be known.
"""

# mypy: allow-subclassing-any

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from wrong_sine import WrongSine

from tfcheck import GradientReport, VariableReport, check_gradients, check_layer
from tfcheck.checker import check_alone
from tfcheck.examine.curves import MOST
from tfcheck.examine.worst_direction import AT_ALL, AT_ENTRIES, STEEPEST, sized
from tfcheck.report.curves import Curves
from tfcheck.settings import Settings
from tfcheck.trace.layer_call import layer_call

L = keras.layers
RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 6)).astype("float32")
Y = RNG.normal(size=(16, 1)).astype("float32")


def model(*layers: keras.layers.Layer, optimizer: Any = "sgd", **options: Any) -> keras.Model:
    """A small model of these layers, with a dense one before and after them."""
    keras.utils.set_random_seed(1)
    built = keras.Sequential(
        [keras.Input((6,)), L.Dense(5, name="first"), *layers, L.Dense(1, name="last")]
    )
    built.compile(optimizer, "mse", **options)
    return built


@tf.custom_gradient
def negated(x: Any) -> Any:
    """What it is given; the backward pass has the wrong sign."""
    return tf.identity(x), lambda upstream: -upstream


class OwnKernelWrong(keras.layers.Layer):
    """A factor a unit, of which the gradient of the first alone is wrong."""

    def build(self, shape: Any) -> None:
        self.factor = self.add_weight(name="factor", shape=shape[-1:], initializer="ones")

    def call(self, x: Any) -> Any:
        factor = tf.convert_to_tensor(self.factor)
        return x * tf.concat([negated(factor[:1]), factor[1:]], 0)


class Blocking(keras.layers.Layer):
    """Hands nothing back."""

    def call(self, x: Any) -> Any:
        return tf.sin(tf.stop_gradient(x))


@pytest.fixture(scope="module")
def failing() -> GradientReport:
    """A check in which what is before a wrong layer fails."""
    return check_gradients(model(WrongSine(name="sine")), X, Y)


def with_curves(report: GradientReport) -> dict[str, Curves]:
    """The curves of a report, by the variables' paths within the model."""
    variables = report.relative_to_model().variables
    return {v.path: v.curves for v in variables if v.curves is not None}


def slopes_agree(curves: Curves) -> None:
    """The loss goes along its true tangent at the point, and not along the tape's."""
    losses = dict(zip(curves.places, curves.losses, strict=True))
    near = min(place for place in losses if place > 0)
    slope = (losses[near] - losses[-near]) / (2 * near)
    tape = float(np.nan_to_num(curves.tape))
    assert abs(slope - curves.right) < 0.3 * abs(slope - tape)


def test_the_first_wrong_variables_have_curves(failing: GradientReport) -> None:
    """At most three, and none that is right."""
    wrong = {v.path for v in failing.relative_to_model().variables if v.verdict == "fail"}
    found = with_curves(failing)
    assert found.keys() == wrong == {"first/kernel", "first/bias"}
    assert len(found) <= MOST
    assert [bool(c.differences) for c in found.values()].count(True) == 1


def test_the_true_tangent_is_that_of_the_loss(failing: GradientReport) -> None:
    """The tape's is another one, along the direction of the gap."""
    for curves in with_curves(failing).values():
        assert curves.direction == AT_ALL
        assert curves.precision == "float64"
        assert len(curves.places) == len(curves.losses) == 11
        assert 0.0 in curves.places
        assert abs(curves.right - curves.tape) > 1000 * curves.right_bar
        slopes_agree(curves)


def test_one_wrong_entry_among_many_shows() -> None:
    """A direction of that entry alone has the opposite slope."""
    found = with_curves(check_gradients(model(OwnKernelWrong(name="own")), X, Y))
    (curves,) = found.values()
    assert list(found) == ["own/factor"]
    assert curves.direction == AT_ENTRIES
    assert curves.tape == pytest.approx(-curves.right, rel=1e-6)
    slopes_agree(curves)


def test_a_gradient_that_is_none_is_a_tangent_that_is_none() -> None:
    """The loss moves though the tape gives nothing."""
    found = with_curves(check_gradients(model(Blocking(name="block")), X, Y))
    assert found
    for curves in found.values():
        assert np.nan_to_num(curves.tape) == 0
        assert curves.right != 0
        slopes_agree(curves)


def test_the_error_of_a_difference_by_its_step(failing: GradientReport) -> None:
    """float32 fails where float64 is best known: the classical step."""
    (curves,) = (c for c in with_curves(failing).values() if c.differences)
    by_precision = {
        d.precision: dict(zip(d.steps, curves.scores(d), strict=True)) for d in curves.differences
    }
    assert list(by_precision) == ["float64", "float32"]
    assert by_precision["float64"][1e-7] < 1e-6
    assert by_precision["float32"][1e-7] > 1e-3
    assert by_precision["float32"][1e-3] < 1e-3
    assert min(by_precision["float64"].values()) < 1e-8
    assert by_precision["float64"][1e-1] > by_precision["float64"][1e-3]
    assert 1e-8 < curves.step < 1e-2


def test_a_right_variable_of_a_small_model() -> None:
    """Of a check that finds nothing, the loudest one shows what the step is for."""
    report = check_gradients(model(L.Activation("tanh")), X, Y)
    assert report.verdict == "pass"
    ((path, curves),) = with_curves(report).items()
    loudest = max(report.variables, key=lambda v: v.analytic_norm * _scale(v))
    assert loudest.path.endswith(path)
    assert curves.direction == STEEPEST
    assert curves.places == ()
    assert curves.tape == curves.right > 0
    assert [d.precision for d in curves.differences] == ["float64", "float32"]


def _scale(variable: VariableReport) -> float:
    # Kernels start at about one over the root of their rows; biases, at zero, count as 0.1.
    return 0.1 if len(variable.shape) < 2 else math.sqrt(2 / sum(variable.shape))


def test_a_large_model_has_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where evaluations are not cheap, the worst one alone is drawn, and none that is right."""
    monkeypatch.setattr("tfcheck.examine.curves._SMALL", 10)
    assert with_curves(check_gradients(model(L.Activation("tanh")), X, Y)) == {}
    (curves,) = with_curves(check_gradients(model(WrongSine(name="sine")), X, Y)).values()
    assert len(curves.places) == 11
    assert curves.differences == ()


def test_of_many_wrong_variables_the_first_have_curves() -> None:
    """Also where there are so many that few are looked into closely."""
    layers = [L.Dense(5, name=f"hidden_{number}") for number in range(20)]
    report = check_gradients(model(*layers, WrongSine(name="sine")), X, Y)
    found = with_curves(report)
    assert len(found) == MOST
    assert set(found) <= {v.path for v in report.relative_to_model().worst_first[: 2 * MOST]}
    for curves in found.values():
        assert curves.direction == AT_ALL
        slopes_agree(curves)


def test_evaluations_are_not_counted(
    failing: GradientReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report is the same with and without curves, but for these."""
    monkeypatch.setattr("tfcheck.examine.curves.MOST", 0)
    plain = check_gradients(model(WrongSine(name="sine")), X, Y).relative_to_model()
    assert with_curves(plain) == {}
    assert plain.evaluations == failing.evaluations
    assert plain.notes == failing.notes
    drawn = failing.relative_to_model().variables
    assert [(v.path, v.verdict, v.score, v.worst) for v in plain.variables] == [
        (v.path, v.verdict, v.score, v.worst) for v in drawn
    ]


def test_a_mistake_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes wrong in here is a note, no error; and nothing passes, as after any mistake."""

    def broken(*_args: Any, **_options: Any) -> Any:
        raise ZeroDivisionError("in here")

    monkeypatch.setattr("tfcheck.examine.curves.CurvesAt.of", broken)
    report = check_gradients(model(L.Activation("tanh")), X, Y)
    assert report.verdict == "inconclusive"
    assert {v.verdict for v in report.variables} == {"pass"}
    assert any("the curves for pictures" in note for note in report.notes), report.notes


def test_what_there_was_time_for_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the time is over in the middle, the variables before keep their curves."""
    from tfcheck.deadline import TimeIsUpError
    from tfcheck.examine.curves import CurvesAt

    whole = CurvesAt._of_wrong
    calls: list[Any] = []

    def first_alone(self: CurvesAt, finding: Any, *, first: bool) -> Any:
        calls.append(finding)
        if len(calls) > 1:
            raise TimeIsUpError
        return whole(self, finding, first=first)

    monkeypatch.setattr(CurvesAt, "_of_wrong", first_alone)
    report = check_gradients(model(WrongSine(name="sine")), X, Y)
    assert report.verdict == "fail"
    assert len(with_curves(report)) == 1


def test_a_step_that_runs_eagerly_shows_what_there_is() -> None:
    """The loss in the precision that trains, of one variable, and no other beside it."""
    found = with_curves(check_gradients(model(WrongSine(), run_eagerly=True), X, Y, directions=1))
    (curves,) = found.values()
    assert curves.precision == "float32"
    assert [d.precision for d in curves.differences] == ["float32"]


def test_a_layer_by_itself_has_curves() -> None:
    """Of its inputs, too, of which there is no loss in the precision that trains."""
    report = check_layer(WrongSine(), X)
    (curves,) = with_curves(report).values()
    assert [d.precision for d in curves.differences] == ["float64"]
    slopes_agree(curves)


def test_checks_within_a_check_draw_nothing() -> None:
    """Where only verdicts count, nothing is measured for pictures."""
    step, batch = layer_call(WrongSine(), (X,), None, None, "train")
    report = check_alone(step, batch, Settings())
    assert report.verdict == "fail"
    assert (with_curves(report), report.chain) == ({}, ())


def test_the_scale_of_a_loss_is_undone(failing: GradientReport) -> None:
    """Where an optimizer scales the loss, slopes and losses are those of the loss itself."""
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(), initial_scale=1024.0)
    scaled = check_gradients(model(WrongSine(name="sine"), optimizer=optimizer), X, Y)
    found, plain = with_curves(scaled)["first/kernel"], with_curves(failing)["first/kernel"]
    for name in ("losses", "tape", "right"):
        assert getattr(found, name) == pytest.approx(getattr(plain, name), rel=1e-6)
    for one, other in zip(found.differences, plain.differences, strict=True):
        assert one.slopes[-1] == pytest.approx(other.slopes[-1], rel=1e-3)


@pytest.mark.parametrize("size", [1e-200, 1.0, 1e200])
def test_directions_have_the_size_of_the_variable(size: float) -> None:
    """However large or small the gap is, and in however few entries."""
    direction = np.zeros((3, 4))
    direction[0, :2] = size, -size
    found = sized(direction, 0.5)
    assert np.sqrt(np.mean(np.square(found[found != 0]))) == pytest.approx(0.5)
    np.testing.assert_array_equal(np.sign(found), np.sign(direction))
