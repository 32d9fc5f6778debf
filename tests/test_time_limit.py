"""A check with a time limit ends with the best answer there is, and says what it did not reach."""

# mypy: allow-subclassing-any

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from doubling import Doubling

from tfcheck import GradientReport, check_gradients, check_layer
from tfcheck.callbacks import GradientCheck
from tfcheck.duration import seconds_of
from tfcheck.errors import ArgumentError
from tfcheck.examine.examination import Examination
from tfcheck.settings import Settings
from tfcheck.tracking import schema

L = keras.layers
X = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
Y = X[:, :1] * 2


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """A clock that goes on by a second whenever it is looked at; gives how often it was."""
    ticks = itertools.count()
    monkeypatch.setattr("tfcheck.deadline.clock", lambda: float(next(ticks)))
    return lambda: next(ticks)


@pytest.fixture
def slow_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    """The measurement takes a minute, and nothing else any time."""
    now = 0.0
    examine = Examination.examine

    def slowly(examination: Examination) -> Any:
        nonlocal now
        found = examine(examination)
        now += 60.0
        return found

    monkeypatch.setattr("tfcheck.deadline.clock", lambda: now)
    monkeypatch.setattr(Examination, "examine", slowly)


@tf.custom_gradient
def wrong(x: Any) -> Any:
    """A backward pass that is off."""
    return tf.tanh(x), lambda upstream: upstream * 1.1


def model(*, eager: bool = False, faulty: bool = False) -> keras.Model:
    """A small model, compiled."""
    keras.utils.set_random_seed(1)
    middle = L.Lambda(wrong) if faulty else L.Activation("tanh")
    built = keras.Sequential([keras.Input((3,)), L.Dense(2), middle, L.Dense(1)])
    built.compile("sgd", "mse", run_eagerly=eager)
    return built


def own() -> keras.Model:
    """A model that trains twice the compiled loss: the comparison with that makes it suspect."""
    keras.utils.set_random_seed(1)
    built = Doubling()
    built.compile("sgd", "mse")
    built(X)
    return built


def on_time(report: GradientReport) -> list[str]:
    """The notes on the time limit."""
    return [note for note in report.notes if "time_limit" in note]


def state_of(checked: keras.Model) -> list[Any]:
    """All that a check must not change."""
    values = [v.numpy() for v in (*checked.variables, *checked.optimizer.variables)]
    return [*values, random.getstate()[1], tf.random.get_global_generator().state.numpy()]


# -- the option --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "seconds"),
    [
        *((30, 30.0), (0.5, 0.5), (np.float32(2), 2.0)),
        *(("30s", 30.0), ("500ms", 0.5), ("2m", 120.0), ("1h", 3600.0)),
        *(("1.5 h", 5400.0), (" 10S ", 10.0)),
    ],
)
def test_durations(limit: Any, seconds: float) -> None:
    """Seconds as a number, or with a unit, in capitals or not."""
    assert seconds_of("time_limit", limit) == seconds


REFUSED = [0, -1, math.nan, math.inf, True, 1j, 10**400, "", "s", "30", "-3s", "0s", "1e3s", "2d"]


@pytest.mark.parametrize("limit", [*REFUSED, "soon", b"30s", ["30s"], "9" * 400 + "h"])
def test_what_is_no_duration(limit: Any) -> None:
    """Every public way to a check refuses it in one sentence, before it looks at the model."""
    for check in (check_gradients, check_layer, GradientCheck):
        with pytest.raises(ArgumentError) as caught:
            check(None, X, time_limit=limit)
        said = str(caught.value)
        assert said.startswith("time_limit must be None, a positive number of seconds")
        assert said.endswith('Try "30s".')


@pytest.mark.parametrize("limit", [None, "2m", 120])
def test_it_is_kept(limit: Any) -> None:
    """The report says it in seconds, before and after JSON, and so does MLflow."""
    report = check_layer(L.ReLU(), X, directions=1, time_limit=limit)
    assert report.settings.time_limit == (None if limit is None else 120.0)
    assert GradientReport.from_dict(report.to_dict()).settings == report.settings
    known = {} if limit is None else {"gradcheck.time_limit": "120.0"}
    said = schema.params(report.settings)
    assert {k: v for k, v in said.items() if "time_limit" in k} == known


def test_reports_of_before_load() -> None:
    """One without the option is of a check without a limit."""
    content = check_layer(L.ReLU(), X, directions=1).to_dict()
    del content["settings"]["time_limit"]
    assert GradientReport.from_dict(content).settings.time_limit is None
    assert Settings().time_limit is None


# -- what comes of it --------------------------------------------------------------------------


def test_enough_time_changes_nothing(ticking: Callable[[], int]) -> None:
    """A limit that is not reached leaves no trace but itself."""
    checked = model()
    plain, limited = (check_gradients(checked, X, Y, time_limit=t) for t in (None, 10_000))
    assert ticking() > 10
    assert plain.variables == limited.variables
    assert plain.notes == limited.notes
    assert (plain.verdict, plain.evaluations) == (limited.verdict, limited.evaluations)


WAYS: dict[str, tuple[Callable[[], keras.Model], dict[str, Any]]] = {
    "units": (model, {}),
    "through the loss": (model, {"epsilon": 1e-4}),
    "full": (model, {"method": "full"}),
    "eager": (lambda: model(eager=True), {"directions": 2}),
    "wrong": (lambda: model(faulty=True), {}),
    "wrong and full": (lambda: model(faulty=True), {"method": "full"}),
    "own step": (own, {}),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_end(way: str, ticking: Callable[[], int]) -> None:
    """Wherever the time ends: what is known stays, nothing else passes, the model is as before."""
    make, options = WAYS[way]
    checked = make()
    before = state_of(checked)
    began = ticking()
    whole = check_gradients(checked, X, Y, time_limit=10**6, **options)
    needed = ticking() - began
    known = {v.path: v for v in whole.variables}
    reached = []
    for limit in sorted({1, 2, *(needed * part // 4 for part in range(1, 4)), needed - 2}):
        report = check_gradients(checked, X, Y, time_limit=limit, **options)
        reached.append(sum(v.reason != "unchecked" for v in report.variables))
        (note,) = on_time(report)
        assert f"The time_limit of {limit} s was over during " in note
        late = ("the comparison with an eager", "the comparison with the whole loss", "the curves")
        only_hints = reached[-1] == len(known) and any(f"during {stage}" in note for stage in late)
        assert report.verdict != "pass" or only_hints, str(report)
        assert [v.path for v in report.variables] == list(known)
        for variable in report.variables:
            if variable.reason == "unchecked":
                assert (variable.verdict, math.isnan(variable.score)) == ("inconclusive", True)
                assert "not reached" in variable.note
            else:
                assert variable.score == known[variable.path].score
        missed = len(known) - reached[-1]
        assert (f"Not reached: {missed} of {len(known)} variables" in note) == (missed > 0)
        assert set(report.culprits) <= set(whole.culprits)
    assert reached[0] == 0
    assert reached == sorted(reached)
    assert reached[-1] == len(known) or way == "eager", "only the last stage is cut short there"
    for one, other in zip(before, state_of(checked), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.usefixtures("ticking")
def test_it_ends_with_the_evaluation() -> None:
    """No evaluation begins after the end."""
    report = check_gradients(model(faulty=True), X, Y, time_limit=5)
    assert report.evaluations <= 5


@pytest.mark.usefixtures("slow_measurement")
def test_what_can_only_accuse_is_no_pass() -> None:
    """Where the time ends before a comparison that may accuse, what passes else does not."""
    assert check_gradients(own(), X, Y).verdict == "suspect"
    report = check_gradients(own(), X, Y, time_limit="30s")
    assert {v.verdict for v in report.variables} == {"pass"}
    assert report.verdict == "inconclusive"
    (note,) = on_time(report)
    assert note == (
        "The time_limit of 30 s was over during the comparison with the compiled loss. "
        "Not reached: the comparison with an eager run."
    )


@pytest.mark.usefixtures("slow_measurement")
def test_what_accuses_nothing_leaves_a_pass() -> None:
    """Where only a hint is not reached, a pass stays one, and a note says so."""
    report = check_gradients(model(), X, Y, time_limit="30s")
    assert report.verdict == "pass"
    assert on_time(report) == [
        "The time_limit of 30 s was over during the comparison with an eager run."
    ]


@pytest.mark.usefixtures("slow_measurement")
def test_known_culprits_are_named() -> None:
    """Units that were found wrong in time are the culprits, though no more can be looked at."""
    checked = model(faulty=True)
    report = check_gradients(checked, X, Y, time_limit="30s")
    assert report.verdict == "fail"
    assert report.culprits == (checked.layers[1].path,)
