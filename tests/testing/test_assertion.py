"""`assert_gradients`: right passes, wrong raises and says where, and slips cost one sentence."""

# mypy: allow-subclassing-any

from __future__ import annotations

import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from wrong_sine import WrongSine

from tfcheck import GradientCheckFailed
from tfcheck.errors import ArgumentError, BatchError, ModelError
from tfcheck.testing import assert_gradients
from tfcheck.testing.running import running

X = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")


@pytest.fixture(autouse=True)
def not_known() -> Iterator[None]:
    """Have the checks be made as without the plugin: it is there where tfcheck is installed."""
    with running(None):
        yield


def model(layer: keras.Layer | None = None, **compiled: Any) -> keras.Model:
    """A small model, compiled if told how."""
    layers = [keras.layers.Dense(2, name="first"), *([layer] if layer else [])]
    net = keras.Sequential([keras.Input((3,)), *layers], name="net")
    if compiled:
        net.compile(**compiled)
    return net


def test_a_right_layer() -> None:
    """The report of what passes is returned."""
    report = assert_gradients(keras.layers.Dense(2), X)
    assert report.verdict == "pass"
    assert report.objective.source == "layer"


def test_a_wrong_layer() -> None:
    """A wrong one raises an `AssertionError` with row, coordinate, culprit, and its line."""
    with pytest.raises(AssertionError) as caught:
        assert_gradients(WrongSine(name="sine"), X)
    assert isinstance(caught.value, GradientCheckFailed)
    message = str(caught.value)
    assert message.startswith("sine: fail, culprit sine (")
    assert "wrong_sine.py:" in message.splitlines()[0]
    assert "sine/input" in message
    assert "✗ fail" in message
    assert "worst at" in message
    assert caught.value.report.culprits == ("sine",)  # type: ignore[attr-defined]


def test_a_wrong_model() -> None:
    """A compiled model is checked with its loss; rows that pass are not in the message."""
    net = model(WrongSine(name="sine"), loss="mse")
    net.add(keras.layers.Dense(1, name="last"))
    net.compile(loss="mse")
    with pytest.raises(GradientCheckFailed) as caught:
        assert_gradients(net, X, X[:, :1])
    message = str(caught.value)
    assert "net: fail, culprit net/sine (" in message
    assert "net/first/kernel" in message
    assert "net/last/kernel" not in message


def test_which_check() -> None:
    """A compiled model has a loss; one that is not is a layer, unless it is given targets."""
    assert assert_gradients(model(loss="mse"), X, X[:, :2]).objective.source == "train_step"
    assert assert_gradients(model(), X).objective.source == "layer"
    with pytest.raises(ModelError, match="compile"):
        assert_gradients(model(), X, X[:, :2])
    with pytest.raises(ModelError, match="compile"):
        assert_gradients(model(), X, y=X[:, :2])
    given = assert_gradients(model(), X, loss_fn=lambda m, x, y, w: keras.ops.sum(m(x) ** 2))
    assert given.objective.source == "loss_fn"


@keras.saving.register_keras_serializable("test_assertion")
class Slightly(keras.layers.Layer):
    """A layer whose gradient is wrong by a suspect factor."""

    def call(self, x: Any) -> Any:
        import tensorflow as tf

        @tf.custom_gradient
        def nearly(x: Any) -> Any:
            return tf.identity(x), lambda upstream: upstream * 1.0002

        return nearly(x)


def test_verdicts_that_are_let_through() -> None:
    """A suspect gradient fails, with what to write to let it through, and passes with that."""
    with pytest.raises(GradientCheckFailed, match='To let it through: allow="suspect"'):
        assert_gradients(Slightly(), X)
    for allow in ("suspect", ["suspect", "inconclusive"]):
        assert assert_gradients(Slightly(), X, allow=allow).verdict == "suspect"
    with pytest.raises(GradientCheckFailed):
        assert_gradients(Slightly(), X, allow="inconclusive")


@pytest.mark.parametrize("allow", ["fail", "pass", "suspekt", 3, ("suspect", "fail"), [None]])
def test_verdicts_that_cannot_be_let_through(allow: Any) -> None:
    """A failure is a failure, and a misspelt verdict is a sentence."""
    with pytest.raises(ArgumentError, match=r"^allow must be .* Received: allow="):
        assert_gradients(keras.layers.Dense(2), X, allow=allow)


def test_unknown_options() -> None:
    """An option that the check does not have is refused, by its name."""
    with pytest.raises(ArgumentError, match=r"model has no such option\. Received: .*'arguments'"):
        assert_gradients(model(loss="mse"), X, X[:, :2], arguments={})
    with pytest.raises(ArgumentError, match=r"layer has no such option\. Received: .*'loss_fn'"):
        assert_gradients(keras.layers.Dense(2), X, loss_fn=None)


def test_errors_of_the_check_stay() -> None:
    """What cannot be checked is no failed assertion."""
    with pytest.raises(BatchError) as caught:
        assert_gradients(keras.layers.Dense(2), X * np.nan)
    assert not isinstance(caught.value, AssertionError)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("[tool.tfcheck]\nderections = 8", "unknown key. Received: key='derections'. Write dir"),
        ('[tool.tfcheck.pytest]\nbatch = "b.npz"', "unknown key. Received: key='batch'"),
        ('[tool.tfcheck]\ndirections = "8"', "directions must be a whole number"),
        ("[tool.tfcheck]\nokay = 1", "Thresholds must satisfy"),
        ('[tool.tfcheck.pytest]\nallow = "fail"', "allow must be"),
        ("[tool]\ntfcheck = 8", "tfcheck must be a table"),
        ("[tool.tfcheck", "must be readable TOML"),
    ],
)
def test_mistakes_in_a_project(tmp_path: Path, table: str, said: str) -> None:
    """A mistake in `pyproject.toml` is one sentence that names the file."""
    (tmp_path / "pyproject.toml").write_text(table, encoding="utf-8")
    with pytest.raises(ArgumentError) as caught:
        assert_gradients(keras.layers.Dense(2), X)
    assert said in str(caught.value)
    assert str(tmp_path / "pyproject.toml") in str(caught.value)


def test_defaults_of_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The nearest file counts, bands are thresholds, and the call wins."""
    (tmp_path / "pyproject.toml").write_text(
        "[tool.tfcheck]\ndirections = 3\nokay = 1e-6\ntime_limit = '1m'\n"
        "[tool.tfcheck.audit]\nbatch = 'of no concern here'\n"
        "[tool.tfcheck.pytest]\nseed = 9\n",
        encoding="utf-8",
    )
    below = tmp_path / "tests" / "deep"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    settings = assert_gradients(keras.layers.Dense(2), X, seed=4).settings
    assert (settings.directions, settings.seed, settings.time_limit) == (3, 4, 60.0)
    assert (settings.thresholds.okay, settings.thresholds.concerning) == (1e-6, 1e-3)
    (below / "pyproject.toml").write_text("", encoding="utf-8")
    assert assert_gradients(keras.layers.Dense(2), X).settings.directions == 4


class Case(unittest.TestCase):
    def wrong(self) -> None:
        assert_gradients(WrongSine(), X)


def test_unittest_hears_it() -> None:
    """For unittest it is a failure, not an error."""
    result = unittest.TestResult()
    Case("wrong").run(result)
    assert (len(result.failures), len(result.errors)) == (1, 0)
