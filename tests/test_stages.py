"""What cannot be checked is said, and what goes wrong in here is not a pass."""

# mypy: allow-subclassing-any

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from doubling import Doubling
from wrong_sine import wrong_sine

from tfcheck import check_gradients
from tfcheck.errors import TraceError

L = keras.layers
X = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
Y = X[:, :1] * 2


def doubling(call_form: Any = None) -> keras.Model:
    """The model, compiled and built."""
    keras.utils.set_random_seed(1)
    model = Doubling()
    model.call_form = call_form
    model.compile("sgd", "mse")
    model(X)
    return model


def broken(*_args: Any, **_options: Any) -> Any:
    """A mistake of our own."""
    raise ZeroDivisionError("in here")


def refusing(*_args: Any, **_options: Any) -> Any:
    """Something that cannot be done with this model."""
    raise TraceError("It must be traceable. Received: a thing. Make another.")


def test_an_own_mistake_is_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where what might have been found is unknown, nothing passes, and a note says why."""
    assert check_gradients(doubling(), X, Y).verdict == "suspect"
    monkeypatch.setattr("tfcheck.training.comparisons.compare", broken)
    report = check_gradients(doubling(), X, Y)
    assert report.verdict == "inconclusive"
    (note,) = (note for note in report.notes if "mistake in tfcheck" in note)
    assert "the comparison with the compiled loss" in note
    assert "ZeroDivisionError: in here" in note


def test_what_is_not_possible_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A comparison that this model does not allow is noted, and no mistake."""
    monkeypatch.setattr("tfcheck.training.comparisons.compare", refusing)
    report = check_gradients(doubling(), X, Y)
    assert report.verdict == "pass"
    assert any("not possible here (a thing)" in note for note in report.notes), report.notes


@pytest.mark.parametrize("error", [broken, refusing])
def test_a_failed_search_for_the_culprit_is_told(
    error: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The verdict stays, without a culprit, and a note says so."""
    model = keras.Sequential([keras.Input((3,)), L.Dense(2), L.Lambda(wrong_sine), L.Dense(1)])
    model.compile("sgd", "mse")
    monkeypatch.setattr("tfcheck.after_examining.find_culprits", error)
    report = check_gradients(model, X, Y)
    assert (report.verdict, report.culprits) == ("fail", ())
    assert any("the search for the culprit" in note for note in report.notes), report.notes


@pytest.mark.parametrize("message", ["this step wants eager inputs", "only eager please", ""])
@pytest.mark.parametrize("kind", [ValueError, TypeError, RuntimeError])
def test_a_step_that_refuses_graphs_is_run_eagerly(message: str, kind: type[Exception]) -> None:
    """Whatever its exception says."""

    class Eager(Doubling):
        def train_step(self, data: Any) -> Any:
            if not tf.executing_eagerly():
                raise kind(message)
            return super().train_step(data)

    model = Eager()
    model.compile("sgd", "mse")
    model(X)
    report = check_gradients(model, X, Y, directions=1)
    assert report.verdict in ("suspect", "inconclusive"), str(report)
    assert any("run eagerly" in note for note in report.notes)


def of_the_class(tape: tf.GradientTape, loss: Any, variables: Any) -> Any:
    """The call of the class's function, with the tape as its first argument."""
    return tf.GradientTape.gradient(tape, loss, variables)


NONE, ZERO = tf.UnconnectedGradients.NONE, tf.UnconnectedGradients.ZERO
FORMS: dict[str, Any] = {
    "positions": lambda tape, loss, variables: tape.gradient(loss, variables, None, ZERO),
    "names": lambda tape, loss, variables: tape.gradient(
        target=loss, sources=variables, output_gradients=None, unconnected_gradients="zero"
    ),
    "none": lambda tape, loss, variables: tape.gradient(loss, variables, None, NONE),
    "weights": lambda tape, loss, variables: tape.gradient(
        [loss], variables, output_gradients=[tf.constant(1.0)]
    ),
    "of the class": of_the_class,
    "a dictionary": lambda tape, loss, variables: list(
        tape.gradient({"loss": loss}, dict(enumerate(variables))).values()
    ),
    "a tuple": lambda tape, loss, variables: tape.gradient(loss, (*variables,)),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_call_is_heard(form: str) -> None:
    """All variables are checked, and what is applied is followed."""
    report = check_gradients(doubling(FORMS[form]), X, Y)
    assert len(report.variables) == 4
    assert {variable.reason for variable in report.variables} == {"other_loss"}, str(report)
