"""The callback: when it checks, what it does about what it finds, and that it disturbs nothing."""

# mypy: allow-subclassing-any

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from wrong_sine import WrongSine

import tfcheck.checker
import tfcheck.trace.batch
from tfcheck import GradientCheckFailed, GradientReport, TfcheckError, Verdict
from tfcheck.callbacks import GradientCheck
from tfcheck.callbacks.checkpoints import Checkpoints, Moment, TrainingState
from tfcheck.callbacks.gradient_check import GradientCheckWarning
from tfcheck.errors import ArgumentError, BatchError
from tfcheck.report.rows import ObjectiveSummary
from tfcheck.trace.tracing import trace

RNG = np.random.default_rng(3)
X = RNG.normal(size=(16, 3)).astype("float32")
Y = RNG.normal(size=(16, 1)).astype("float32")
QUIET: dict[str, Any] = {"tracking": None, "directions": 1}


def small_model(*middle: keras.layers.Layer, seed: int = 1, **compiling: Any) -> keras.Model:
    """A small compiled model, the same for the same seed."""
    keras.utils.set_random_seed(seed)
    layers = [
        keras.Input((3,)),
        keras.layers.Dense(2, name="before"),
        *middle,
        keras.layers.Dense(1, name="after"),
    ]
    model = keras.Sequential(layers, name="net")
    model.compile(optimizer=keras.optimizers.SGD(0.01), loss="mse", **compiling)
    return model


def fit(model: keras.Model, *callbacks: keras.callbacks.Callback, **options: Any) -> Any:
    """Train quietly on X and Y: four steps an epoch, two epochs."""
    options = {"x": X, "y": Y, "batch_size": 4, "epochs": 2, "verbose": 0, **options}
    return model.fit(callbacks=list(callbacks), **options)


def moments(callback: GradientCheck) -> list[tuple[str, int | None]]:
    """The checkpoint and step of each report."""
    return [(report.checkpoint, report.step) for report in callback.reports]


@pytest.fixture
def no_checks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Replaces checking by a report that passes; gives the number of checks as a list's length."""
    done: list[int] = []

    def check(
        _self: Any, _batch: Any, *, step: int, checkpoint: str, progress: Any
    ) -> GradientReport:
        done.append(step)
        return GradientReport(
            Verdict.PASS,
            0.0,
            (),
            (),
            (),
            ObjectiveSummary("train_step", "train"),
            step=step,
            checkpoint=checkpoint,
        )

    monkeypatch.setattr(tfcheck.checker.GradientChecker, "check", check)
    return done


# -- when it checks --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, [("start", 0)]),
        ({"start": False}, []),
        ({"epochs": 1}, [("start", 0), ("epoch 1", 4)]),
        ({"epochs": (1, 2), "start": False}, [("epoch 1", 4), ("epoch 2", 8)]),
        ({"epochs": range(1, 9), "start": False}, [("epoch 1", 4), ("epoch 2", 8)]),
        ({"steps": [1, 6], "start": False}, [("step 1", 1), ("step 6", 6)]),
        ({"steps": np.int64(3), "start": False}, [("step 3", 3)]),
        ({"end": True}, [("start", 0), ("end", 8)]),
        ({"end": True, "epochs": 2, "start": False}, [("epoch 2", 8)]),
        ({"epochs": 99, "steps": 99, "start": False}, []),
        (
            {"when": lambda state: state.step == 5, "start": False},
            [("step 5", 5)],
        ),
        (
            {"when": lambda state: state.at_epoch_end, "start": False},
            [("epoch 1", 4), ("epoch 2", 8)],
        ),
        (
            {"when": lambda state: state.epoch == 1 and not state.at_epoch_end, "start": False},
            [("step 5", 5), ("step 6", 6), ("step 7", 7), ("step 8", 8)],
        ),
    ],
)
def test_checkpoints(no_checks: list[int], chosen: Any, expected: list[tuple[str, int]]) -> None:
    """Checks happen at the start, epochs, steps, end and moments chosen, and never otherwise."""
    callback = GradientCheck(X[:4], Y[:4], tracking=None, **chosen)
    fit(small_model(), callback)
    assert moments(callback) == expected
    assert no_checks == [step for _, step in expected]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [((1,), [("step 2", 2)]), ((2, 3), [("step 2", 2), ("step 4", 4)]), ((7, 8), [("step 8", 8)])],
)
@pytest.mark.usefixtures("no_checks")
def test_several_steps_an_execution(
    steps: tuple[int, ...], expected: list[tuple[str, int]]
) -> None:
    """A step that passes between two calls of the callback is checked after, once."""
    callback = GradientCheck(X[:4], Y[:4], tracking=None, start=False, steps=steps)
    fit(small_model(steps_per_execution=2), callback)
    assert moments(callback) == expected


@pytest.mark.usefixtures("no_checks")
def test_when_sees_the_state() -> None:
    """`when` gets the step, the finished epochs, the metrics as a dictionary, and the moment."""
    seen: list[TrainingState] = []

    def when(state: TrainingState) -> bool:
        seen.append(state)
        return False

    fit(small_model(), GradientCheck(X, Y, tracking=None, start=False, when=when))
    assert [(s.step, s.epoch, s.at_epoch_end) for s in seen] == [
        *((step, 0, False) for step in (1, 2, 3, 4)),
        (4, 1, True),
        *((step, 1, False) for step in (5, 6, 7, 8)),
        (8, 2, True),
    ]
    assert all(set(state.logs) == {"loss"} and type(state.logs) is dict for state in seen)


@pytest.mark.usefixtures("no_checks")
def test_a_second_fit_starts_afresh() -> None:
    """The reports are those of the last training; steps count on with the optimizer."""
    callback = GradientCheck(X[:4], Y[:4], tracking=None, epochs=1)
    model = small_model()
    fit(model, callback)
    first = callback.reports
    fit(model, callback)
    assert [r.step for r in first] == [0, 4]
    assert [r.step for r in callback.reports] == [8, 12]


@pytest.mark.usefixtures("no_checks")
def test_continued_epochs() -> None:
    """Epochs are numbered as Keras numbers them, also when a training continues one."""
    callback = GradientCheck(X[:4], Y[:4], tracking=None, start=False, epochs=(1, 4))
    fit(small_model(), callback, initial_epoch=3, epochs=5)
    assert moments(callback) == [("epoch 4", 4)]


def test_checkpoints_between_calls() -> None:
    """A chosen step counts in the call that passes it, and in no other."""
    checkpoints = Checkpoints.chosen(False, (), (5,), False, None)

    def state(step: int) -> TrainingState:
        return TrainingState(step, 0, {}, at_epoch_end=False)

    assert checkpoints.after_step(state(4), 2) is None
    assert checkpoints.after_step(state(6), 4) == Moment("step 6", asked=False)
    assert checkpoints.after_step(state(8), 6) is None


def test_a_when_that_raises_is_an_error_and_no_end() -> None:
    """What goes wrong in `when` is reported as a check that could not be made; training goes on."""

    def when(state: TrainingState) -> bool:
        raise KeyError("val_loss")

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x, y = np.ones((8, 3), "float32"), np.ones((8, 1), "float32")
    callback = GradientCheck(x, y, start=False, when=when, tracking=None)
    with pytest.warns(GradientCheckWarning, match="val_loss"):
        history = model.fit(x, y, batch_size=4, epochs=1, verbose=0, callbacks=[callback])
    assert len(history.history["loss"]) == 1
    assert [str(report.verdict) for report in callback.reports] == ["error"] * 3


# -- what is checked -------------------------------------------------------------------------


def test_the_weights_at_the_checkpoint_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each check sees the weights as they are then; the step is traced once for all of them."""
    traced: list[Any] = []

    def counting(*arguments: Any, **options: Any) -> Any:
        traced.append(options)
        return trace(*arguments, **options)

    monkeypatch.setattr("tfcheck.prepared.trace", counting)
    model = small_model()
    losses: list[float] = []

    class Loss(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            losses.append(float(np.mean((model(X[:4]) - Y[:4]) ** 2)))

    losses.append(float(np.mean((model(X[:4]) - Y[:4]) ** 2)))
    callback = GradientCheck(X[:4], Y[:4], epochs=(1, 2), **QUIET)
    fit(model, callback, Loss())
    assert len(traced) == 1
    assert isinstance(callback.reports, tuple)
    assert [report.verdict for report in callback.reports] == [Verdict.PASS] * 3
    found = [report.objective.losses[0] for report in callback.reports]
    assert len(set(found)) == 3
    np.testing.assert_allclose(found, losses, rtol=1e-5)


def test_compiling_again_is_noticed() -> None:
    """A second training with another loss checks that loss, not the first one's trace."""
    model = small_model()
    callback = GradientCheck(X[:4], Y[:4], **QUIET)
    fit(model, callback, epochs=1)
    model.compile("sgd", "mae")
    expected = float(np.mean(np.abs(model(X[:4]) - Y[:4])))
    fit(model, callback, epochs=1)
    assert callback.reports[0].objective.losses[0] == pytest.approx(expected, rel=1e-5)


class Batches(keras.utils.PyDataset):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        return X[4 * index : 4 * index + 4], Y[4 * index : 4 * index + 4]


BATCHES: dict[str, Callable[[], tuple[Any, ...]]] = {
    "arrays": lambda: (X[:4], Y[:4]),
    "tensors": lambda: (tf.constant(X[:4]), tf.constant(Y[:4])),
    "dataset": lambda: (tf.data.Dataset.from_tensor_slices((X, Y)).batch(4),),
    "PyDataset": lambda: (Batches(),),
    "dict": lambda: ({"features": X[:4]}, Y[:4]),
    "weighted": lambda: (X[:4], Y[:4], np.ones(4)),
}


@pytest.mark.parametrize("kind", BATCHES)
def test_batches_in_any_form(kind: str) -> None:
    """The debug batch may come in any form that fit takes, and is always the first batch."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((3,), name="features")
    if kind == "dict":
        model = keras.Model({"features": inputs}, keras.layers.Dense(1)(inputs))
        data: Any = {"features": X}
    else:
        model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
        data = X
    model.compile("sgd", "mse")
    expected = float(
        np.mean((model({"features": X[:4]} if kind == "dict" else X[:4]) - Y[:4]) ** 2)
    )
    callback = GradientCheck(*BATCHES[kind](), **QUIET)
    fit(model, callback, x=data, epochs=1)
    (report,) = callback.reports
    assert report.verdict is Verdict.PASS, report.error
    assert report.objective.losses[0] == pytest.approx(expected, rel=1e-5)
    assert report.settings.batch_size == 4


# -- it disturbs nothing ---------------------------------------------------------------------


class Unbuilt(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.first = keras.layers.Dense(4, activation="relu", name="first")
        self.drop = keras.layers.Dropout(0.4, seed=5)
        self.last = keras.layers.Dense(1, name="last")

    def call(self, x: Any, training: bool = False) -> Any:
        return self.last(self.drop(self.first(x), training=training))


def noisy() -> keras.Model:
    """A model full of randomness and state."""
    keras.utils.set_random_seed(1)  # the layers draw their seeds when they are made
    return small_model(
        keras.layers.BatchNormalization(),
        keras.layers.GaussianNoise(0.1),
        keras.layers.Dropout(0.3),
        metrics=["mae"],
    )


def unbuilt() -> keras.Model:
    """A subclassed model that fit builds."""
    keras.utils.set_random_seed(2)
    model = Unbuilt()
    model.compile("adam", "mse", metrics=["mae"])
    return model


def shuffled() -> tf.data.Dataset:
    """A dataset that draws a new order each epoch."""
    return tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(16).batch(4)


def trained(build: Callable[[], keras.Model], checked: bool, dataset: bool) -> tuple[Any, ...]:
    """The history and all values after a training with or without the callback."""
    model = build()
    source = shuffled() if dataset else None
    callbacks: list[Any] = []
    if checked:
        debug: Any = (source,) if dataset else (X[:4], Y[:4])
        callback = GradientCheck(*debug, epochs=1, steps=6, end=True, **QUIET)
        callbacks.append(callback)
    fed: dict[str, Any] = (
        {"x": source, "y": None, "batch_size": None, "shuffle": False}
        if dataset
        else {"validation_data": (X[:8], Y[:8])}
    )
    history = fit(model, *callbacks, **fed)
    if checked:
        assert len(callback.reports) == 4
        assert all(report.verdict is Verdict.PASS for report in callback.reports), callback.reports
    variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    return (
        history.history,
        [np.asarray(variable) for variable in variables],
        np.random.standard_normal(3),  # noqa: NPY002 - the global state is what is compared
        tf.random.normal((3,)).numpy(),
        keras.random.normal((3,)).numpy(),
    )


@pytest.mark.parametrize(
    ("build", "dataset"), [(noisy, False), (unbuilt, True)], ids=["arrays", "dataset"]
)
def test_training_is_bit_for_bit_the_same(build: Callable[[], keras.Model], dataset: bool) -> None:
    """Losses, metrics, weights, optimizer and random states are as if nobody had looked."""
    alone = trained(build, checked=False, dataset=dataset)
    watched = trained(build, checked=True, dataset=dataset)
    assert alone[0] == watched[0]
    assert len(alone[1]) == len(watched[1])
    for one, other in zip(alone[1], watched[1], strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(alone[2:], watched[2:], strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_comparison_sees_a_disturbance(monkeypatch: pytest.MonkeyPatch) -> None:
    """If looking at the debug batch moved the dataset's shuffling on, the losses would differ."""
    monkeypatch.setattr(tfcheck.trace.batch, "_undisturbed", lambda dataset: dataset)
    alone = trained(unbuilt, checked=False, dataset=True)
    watched = trained(unbuilt, checked=True, dataset=True)
    assert alone[0] != watched[0]


def test_a_model_that_fit_builds() -> None:
    """A model without weights is checked after its first step instead of before it."""
    callback = GradientCheck(X[:4], Y[:4], **QUIET)
    fit(unbuilt(), callback, epochs=1)
    assert moments(callback) == [("start", 1)]
    assert callback.reports[0].verdict is Verdict.PASS


# -- what it does about it -------------------------------------------------------------------


def test_on_fail_warn() -> None:
    """By default a failure is a warning that names the variable and the culprit; fit goes on."""
    callback = GradientCheck(X[:4], Y[:4], **QUIET)
    named = r"net/before/.* Culprit: net/sine \(wrong_sine\.py:\d+ in \w+(\.call)?\)\."
    with pytest.warns(GradientCheckWarning, match=named):
        history = fit(small_model(WrongSine(name="sine")), callback)
    assert len(history.epoch) == 2
    assert callback.reports[0].verdict is Verdict.FAIL
    assert callback.reports[0].culprits == ("net/sine",)


def test_on_fail_stop() -> None:
    """`on_fail="stop"` warns and ends the training at the next chance Keras gives."""
    callback = GradientCheck(X[:4], Y[:4], start=False, epochs=1, on_fail="stop", **QUIET)
    with pytest.warns(GradientCheckWarning):
        history = fit(small_model(WrongSine(name="sine")), callback, epochs=5)
    assert len(history.epoch) == 1
    assert moments(callback) == [("epoch 1", 4)]


def test_on_fail_stop_before_the_first_step() -> None:
    """A failure found before the first step stops a training, too."""
    callback = GradientCheck(X[:4], Y[:4], on_fail="stop", **QUIET)
    model = small_model(WrongSine(name="sine"))
    with pytest.warns(GradientCheckWarning):
        fit(model, callback, epochs=5)
    assert model.optimizer.iterations <= 4


def test_on_fail_raise() -> None:
    """`on_fail="raise"` raises with the report in hand, and the callback keeps it, too."""
    callback = GradientCheck(X[:4], Y[:4], on_fail="raise", **QUIET)
    with pytest.raises(GradientCheckFailed) as caught:
        fit(small_model(WrongSine(name="sine")), callback)
    assert caught.value.report is callback.reports[0]
    assert "net/sine" in str(caught.value)
    assert moments(callback) == [("start", 0)]


@pytest.mark.usefixtures("no_checks")
def test_a_pass_is_silent() -> None:
    """Healthy gradients raise no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", GradientCheckWarning)
        fit(small_model(), GradientCheck(X[:4], Y[:4], on_fail="raise", tracking=None))


def ill_fitting() -> tuple[Any, Any]:
    """A batch with one feature too many."""
    return np.ones((4, 4)), Y[:4]


def test_on_error_warn() -> None:
    """A check that cannot be done is a report with the verdict "error"; training goes on."""
    callback = GradientCheck(*ill_fitting(), epochs=2, **QUIET)
    with pytest.warns(GradientCheckWarning, match="could not be done: The batch must fit"):
        history = fit(small_model(), callback)
    assert len(history.epoch) == 2
    assert [report.verdict for report in callback.reports] == [Verdict.ERROR, Verdict.ERROR]
    assert moments(callback) == [("start", 0), ("epoch 2", 8)]
    report = callback.reports[0]
    assert "Traceback" not in report.error
    assert (report.layers, report.culprits, report.variables) == ((), (), ())


def test_on_error_stop() -> None:
    """`on_error="stop"` ends the training."""
    callback = GradientCheck(*ill_fitting(), start=False, epochs=1, on_error="stop", **QUIET)
    with pytest.warns(GradientCheckWarning):
        history = fit(small_model(), callback, epochs=5)
    assert len(history.epoch) == 1


def test_on_error_raise() -> None:
    """`on_error="raise"` raises the error of the check itself."""
    callback = GradientCheck(*ill_fitting(), on_error="raise", **QUIET)
    with pytest.raises(BatchError):
        fit(small_model(), callback)
    assert callback.reports[0].verdict is Verdict.ERROR


def test_foreign_errors_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error nobody foresaw ends in a report, too, with its kind and place in one line."""

    def broken(*_arguments: Any, **_options: Any) -> Any:
        raise ZeroDivisionError("no luck")

    monkeypatch.setattr(tfcheck.checker.GradientChecker, "check", broken)
    callback = GradientCheck(X[:4], Y[:4], **QUIET)
    with pytest.warns(GradientCheckWarning, match="no luck"):
        fit(small_model(), callback)
    assert callback.reports[0].error == "ZeroDivisionError: no luck (in broken)"


def test_without_mlflow(no_checks: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """`tracking=None` touches no MLflow: no file, no module, no logger."""
    monkeypatch.setitem(sys.modules, "tfcheck.tracking", None)
    before = sorted(Path.cwd().iterdir())
    fit(small_model(), GradientCheck(X[:4], Y[:4], tracking=None, epochs=1))
    assert len(no_checks) == 2
    assert sorted(Path.cwd().iterdir()) == before


# -- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"on_fail": "explode"}, "on_fail"),
        ({"on_error": None}, "on_error"),
        ({"tracking": "wandb"}, "tracking"),
        ({"start": 1}, "start"),
        ({"end": "yes"}, "end"),
        ({"epochs": 0}, "epochs"),
        ({"epochs": "1"}, "epochs"),
        ({"epochs": 1.5}, "epochs"),
        ({"epochs": (1, True)}, "epochs"),
        ({"epochs": None}, "epochs"),
        ({"steps": -1}, "steps"),
        ({"steps": [[1]]}, "steps"),
        ({"when": 3}, "when"),
        ({"phase": "test"}, "phase"),
        ({"method": "all"}, "method"),
        ({"directions": 0}, "directions"),
        ({"epsilon": 0.0}, "epsilon"),
        ({"thresholds": 1e-3}, "thresholds"),
        ({"expected_mismatch": [3]}, "expected_mismatch"),
        ({"seed": -1}, "seed"),
    ],
)
def test_unknown_options_are_refused_at_construction(options: Any, word: str) -> None:
    """A wrong option is refused before any training, in tfcheck's one form, naming it."""
    with pytest.raises(TfcheckError, match=r"^[^\n]+\. Received: [^\n]+\. [^\n]+\.$") as caught:
        GradientCheck(X[:4], Y[:4], **options)
    assert word in str(caught.value)
    assert isinstance(caught.value, ValueError | TypeError)


def test_misspelt_options_are_refused() -> None:
    """No catch-all swallows a misspelt option."""
    with pytest.raises(TypeError, match="epoch"):
        GradientCheck(X[:4], Y[:4], epoch=1)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "batch",
    [(X[:4], Y[:3]), (X[:0], Y[:0]), (None,), (Batches(), Y)],
    ids=["uneven", "empty", "none", "dataset and targets"],
)
def test_bad_batches_are_refused_at_construction(batch: Any) -> None:
    """A batch no gradient can be checked on is refused before any training."""
    with pytest.raises(BatchError):
        GradientCheck(*batch)


def test_a_batch_that_spoils_the_loss_is_told_at_the_first_check() -> None:
    """Only there is the loss known, which may leave NaN out: training goes on, with a warning."""
    callback = GradientCheck(X[:4] * np.nan, Y[:4], **QUIET)
    with pytest.warns(GradientCheckWarning, match="must be finite.*12 of 12 values"):
        fit(small_model(), callback)
    assert [report.verdict for report in callback.reports] == [Verdict.ERROR]


def test_argument_errors_say_what_is_allowed() -> None:
    """The message of a wrong choice lists the right ones."""
    with pytest.raises(ArgumentError) as caught:
        GradientCheck(X, Y, on_fail="ignore")
    assert str(caught.value) == (
        "on_fail must be 'warn' or 'stop' or 'raise'. Received: on_fail='ignore'. "
        "Choose 'warn' or 'stop' or 'raise'."
    )


@pytest.fixture(autouse=True, scope="module")
def quiet_data() -> Iterator[None]:
    """Silence Keras's notice that a PyDataset subclass did not call its base."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Your `PyDataset`")
        yield
