"""The callback: how steps are counted, what is told when nothing comes, and how warnings look."""

# mypy: allow-subclassing-any

from __future__ import annotations

import linecache
import warnings
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from reports import report, variable

import tfcheck.checker
from tfcheck.callbacks import GradientCheck
from tfcheck.callbacks.fingerprint import fingerprint
from tfcheck.callbacks.step_count import StepCount
from tfcheck.callbacks.telling import GradientCheckWarning, finding
from tfcheck.gradient_report import GradientReport
from tfcheck.judge.verdict import Verdict
from tfcheck.trace.batch import first_batch

X = np.linspace(-1, 1, 32, dtype="float32").reshape(16, 2)
Y = X[:, :1] - 0.3


def report_with(
    verdict: Verdict, reason: str = "", note: str = "", **fields: Any
) -> GradientReport:
    """A report on one variable with this finding."""
    found = variable("net/a/kernel", 3.6e-8, verdict=verdict, reason=reason, note=note)
    return report(found, **fields)


@pytest.fixture
def verdicts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Verdict, str]]:
    """Replaces checking: the next report has the first of these verdicts, and else passes."""
    to_come: list[tuple[Verdict, str]] = []

    def check(_self: Any, _batch: Any, *, step: int, checkpoint: str, progress: Any) -> Any:
        verdict, reason = to_come.pop(0) if to_come else (Verdict.PASS, "")
        return report_with(verdict, reason, step=step, checkpoint=checkpoint)

    monkeypatch.setattr(tfcheck.checker.GradientChecker, "check", check)
    return to_come


pytestmark = pytest.mark.usefixtures("verdicts")


class Adversaries(keras.Model):
    """Compiled with optimizers of its own, as a GAN is; the one that Keras adds never steps."""

    def __init__(self, critic_steps: int = 1) -> None:
        super().__init__()
        self.one = keras.layers.Dense(1)
        self.other = keras.layers.Dense(1)
        self.critic_steps = critic_steps
        self.built = True

    def compile(self, optimizers: Any) -> None:
        super().compile(loss="mse")
        self.kept = optimizers

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y = data
        for layer, optimizer, times in (
            (self.one, self.kept[0], self.critic_steps),
            (self.other, self.kept[1], 1),
        ):
            for _ in range(times):
                with tf.GradientTape() as tape:
                    loss = tf.reduce_mean((layer(x) - y) ** 2)
                weights = layer.trainable_variables
                optimizer.apply(tape.gradient(loss, weights), weights)
        return {"loss": loss}


class ByHand(keras.Model):
    """Steps without any optimizer."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(1)

    def call(self, x: Any) -> Any:
        return self.dense(x)

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self(x) - y) ** 2)
        weights = self.trainable_variables
        for weight, gradient in zip(weights, tape.gradient(loss, weights), strict=True):
            weight.assign_sub(0.01 * gradient)
        return {"loss": loss}


def adversaries(**options: Any) -> Adversaries:
    """A built model of two parts, each with its optimizer."""
    model = Adversaries(**options)
    model.one(X), model.other(X)
    model.compile([keras.optimizers.SGD(0.01), keras.optimizers.Adam(0.01)])
    return model


def by_hand() -> ByHand:
    """A built model that updates its weights itself."""
    model = ByHand()
    model(X)
    model.compile(loss="mse")
    return model


def ordinary(**options: Any) -> keras.Model:
    """A small compiled model."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(**{"optimizer": "sgd", "loss": "mse", **options})
    return model


def checked(model: keras.Model, epochs: int = 2, **options: Any) -> GradientCheck:
    """Train for four batches an epoch with a callback."""
    callback = GradientCheck(X[:4], Y[:4], tracking=None, **options)
    model.fit(X, Y, batch_size=4, epochs=epochs, verbose=0, callbacks=[callback])
    return callback


def moments(callback: GradientCheck) -> list[tuple[str, int | None, int | None]]:
    """Checkpoint, step and epoch of each report."""
    return [(report.checkpoint, report.step, report.epoch) for report in callback.reports]


# How steps are counted


def test_optimizers_of_the_models_own_are_counted() -> None:
    """Chosen steps of a GAN come when they are made, and how they are counted is said once."""
    callback = checked(adversaries(), steps=(2, 5), end=True)
    assert moments(callback) == [
        ("start", 0, 0),
        ("step 2", 2, 0),
        ("step 5", 5, 1),
        ("end", 8, 2),
    ]
    notes = [note for report in callback.reports for note in report.notes if "Steps are" in note]
    assert len(notes) == 1
    assert "`kept[0]`" in notes[0]


def test_several_steps_a_batch_are_not_missed() -> None:
    """Where one batch makes several steps, a chosen one is checked after the batch that made it."""
    callback = checked(adversaries(critic_steps=3), start=False, steps=(2, 11))
    assert moments(callback) == [("step 3", 3, 0), ("step 12", 12, 0)]


def test_batches_are_counted_where_nothing_tells() -> None:
    """A model that steps without an optimizer is checked by batches, also in a second training."""
    model = by_hand()
    callback = GradientCheck(X[:4], Y[:4], tracking=None, steps=2, end=True)
    for expected in ([0, 2, 4], [4, 8]):
        model.fit(X, Y, batch_size=4, epochs=1, verbose=0, callbacks=[callback])
        assert [report.step for report in callback.reports] == expected


def test_gathered_gradients_are_not_taken_for_standing_still() -> None:
    """An optimizer that steps at every fourth batch is counted by its steps, without a note."""
    optimizer = keras.optimizers.SGD(0.01, gradient_accumulation_steps=4)
    callback = checked(ordinary(optimizer=optimizer), start=False, steps=(1, 2))
    assert moments(callback) == [("step 1", 1, 0), ("step 2", 2, 1)]
    assert not callback.reports[0].notes


def test_optimizers_are_found_wherever_they_are() -> None:
    """In dicts, lists, models within the model, and within one that scales the loss."""
    inner = ordinary()
    inner.helper = keras.optimizers.Adam()
    model = ByHand()
    model.compile(loss="mse")
    model.part = inner
    model.by_name = {"g": [keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam())]}
    found = {name for name, _ in StepCount(model)._optimizers}
    assert {"optimizer", "by_name['g'][0]", "by_name['g'][0].inner_optimizer"} <= found
    assert f"{inner.name}.helper" in found


def test_counters_are_read_only_where_something_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between checkpoints no optimizer's counter is read: reading waits for the device."""
    reads: list[int] = []
    original = StepCount.steps

    def counted(self: StepCount) -> int:
        reads.append(self.batches)
        return original(self)

    monkeypatch.setattr(StepCount, "steps", counted)
    checked(ordinary(), start=False, steps=(7,))
    assert set(reads) <= {0, 1, 7, 8}


# What counts as one checkpoint


def test_checkpoints_at_one_step_are_one() -> None:
    """A step, the epoch that ends with it, a `when` and the end of training are one check."""
    callback = checked(
        ordinary(), epochs=1, start=False, steps=4, end=True, when=lambda s: s.step > 3
    )
    assert moments(callback) == [("step 4", 4, 0)]


def test_epochs_and_steps_are_both_kept() -> None:
    """A report says after how many steps and after how many epochs it was made."""
    assert moments(checked(ordinary(), epochs=2)) == [("start", 0, 0)]
    callback = checked(ordinary(), epochs=2, start=False, steps=7, end=True)
    assert moments(callback) == [("step 7", 7, 1), ("end", 8, 2)]


# What never comes


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"start": False}, "no moment is chosen"),
        ({"epochs": (1, 9)}, "checked after epochs 9: training ends with epoch 2"),
        ({"steps": (1, 40, 50)}, "after steps 40, 50: training ended after 2 epochs and 8 steps"),
        ({"when": lambda state: False}, "it never was true"),
    ],
)
def test_what_never_comes_is_told(options: dict[str, Any], told: str) -> None:
    """A checkpoint that cannot come or did not come is one warning."""
    callback = GradientCheck(X[:4], Y[:4], tracking=None, **options)
    model = ordinary()
    with pytest.warns(GradientCheckWarning) as caught:
        model.fit(X, Y, batch_size=4, epochs=2, verbose=0, callbacks=[callback])
    assert [told in str(warning.message) for warning in caught] == [True]


def test_nothing_is_told_where_all_came() -> None:
    """Epochs, steps and a `when` that came, and steps of an earlier training, are no warning."""
    model = ordinary()
    callback = GradientCheck(X[:4], Y[:4], tracking=None, steps=2, when=lambda s: s.at_epoch_end)
    with warnings.catch_warnings():
        warnings.simplefilter("error", GradientCheckWarning)
        for _ in range(2):
            model.fit(X, Y, batch_size=4, epochs=1, verbose=0, callbacks=[callback])


def test_an_early_end_is_told() -> None:
    """Where training stops early, the epochs that were chosen and not reached are named."""
    callback = GradientCheck(X[:4], Y[:4], tracking=None, epochs=(1, 3))

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.model.stop_training = True

    with pytest.warns(GradientCheckWarning, match="after epochs 3: training ended after 1 epoch"):
        ordinary().fit(X, Y, epochs=5, verbose=0, callbacks=[callback, Stop()])


# How a warning looks


def test_a_suspect_gradient_warns_and_goes_on(verdicts: list[tuple[Verdict, str]]) -> None:
    """A suspect verdict is a warning, whatever `on_fail` is, and says the reason, not the score."""
    verdicts.append((Verdict.SUSPECT, "other_loss"))
    with pytest.warns(GradientCheckWarning) as caught:
        checked(ordinary(), on_fail="raise")
    message = str(caught[0].message)
    assert "is suspect for net/a/kernel (other loss)" in message
    assert "e-08" not in message


def test_a_warning_points_at_the_call_of_fit(verdicts: list[tuple[Verdict, str]]) -> None:
    """File and line of a warning are those of the user's `fit`, and it is shown every time."""
    verdicts.extend([(Verdict.FAIL, "")] * 2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        checked(ordinary(), end=True)
    ours = [warning for warning in caught if warning.category is GradientCheckWarning]
    assert len(ours) == 2
    assert {warning.filename for warning in ours} == {__file__}
    assert "model.fit(" in linecache.getline(__file__, ours[0].lineno)


@pytest.mark.parametrize("verdict", [Verdict.FAIL, Verdict.SUSPECT])
def test_the_score_is_told_where_it_is_what_is_wrong(verdict: Verdict) -> None:
    """Without another reason the score is named, and with one the reason and its note are."""
    assert "score 3.6e-8" in finding(report_with(verdict))
    told = finding(report_with(verdict, "misapplied", "It arrives twice as large."))
    assert "misapplied" in told
    assert "It arrives twice as large." in told
    assert "score" not in told


# Which batch


def test_fingerprints_tell_batches_apart() -> None:
    """Equal values have one fingerprint, other values, types and shapes another."""
    batches = [X[:4], np.arange(8).reshape(4, 2), X[1:5], X[:4].reshape(4, 1, 2)]
    prints = [fingerprint(first_batch(batch, None, None)) for batch in [*batches, X[:4].copy()]]
    assert len(set(prints)) == 4
    assert prints[0] == prints[-1]
