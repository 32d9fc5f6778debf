"""A log of one's own: what is called when, and that nothing it does harms the training."""

# mypy: allow-subclassing-any

from __future__ import annotations

import gc
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from repository import ROOT
from wrong_sine import WrongSine

import tfcheck.checker
from tfcheck import GradientCheckFailed, GradientReport
from tfcheck.callbacks import GradientCheck
from tfcheck.callbacks.gradient_check import GradientCheckWarning
from tfcheck.errors import ArgumentError
from tfcheck.settings import Settings
from tfcheck.tracking import Tracking

X = np.linspace(-1, 1, 32, dtype="float32").reshape(16, 2)
Y = X[:, :1] - 0.3
PAGE = (ROOT / "docs" / "tracking.md").read_text(encoding="utf-8")


class Remembering:
    """Remembers what is called."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def begin(self, settings: Settings, model: str) -> None:
        assert settings.batch_fingerprint
        self.calls.append(f"begin {model}")

    def report(self, report: GradientReport) -> None:
        self.calls.append(f"{report.name} {report.checkpoint}: {report.verdict}")

    def end(self, status: str) -> None:
        self.calls.append(status)


class Raising(Remembering):
    """The same, and raises at every call."""

    def begin(self, settings: Settings, model: str) -> None:
        super().begin(settings, model)
        raise RuntimeError("no disk")

    def report(self, report: GradientReport) -> None:
        super().report(report)
        raise KeyError("planted\nin two lines")

    def end(self, status: str) -> None:
        super().end(status)
        raise OSError(28, "No space left on device")


def model(*layers: keras.Layer) -> keras.Model:
    """A small compiled model, the same each time."""
    keras.utils.set_random_seed(1)
    net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1), *layers], name="net")
    net.compile("sgd", "mse")
    return net


def train(net: keras.Model, *callbacks: Any, epochs: int = 2) -> list[float]:
    """Train for a few batches, and give the losses."""
    history = net.fit(X, Y, batch_size=4, epochs=epochs, verbose=0, callbacks=list(callbacks))
    return list(history.history["loss"])


def test_what_is_called_when() -> None:
    """One begin, a report for every check, one end; and again for the next training."""
    log: Tracking = Remembering()
    callback = GradientCheck(X[:4], Y[:4], epochs=1, tracking=log, name="mine")
    for _ in range(2):
        train(model(), callback)
    once = ["begin net", "mine start: pass", "mine epoch 1: pass", "finished"]
    assert log.calls == once + once  # type: ignore[attr-defined]


def test_two_callbacks_share_a_log() -> None:
    """The name of a report tells whose it is."""
    log = Remembering()
    first = GradientCheck(X[:4], Y[:4], tracking=log)
    second = GradientCheck(X[:4], Y[:4], tracking=log, name="inference", phase="inference")
    train(model(), first, second)
    assert log.calls.count("begin net") == log.calls.count("finished") == 2
    assert {"gradcheck start: pass", "inference start: pass"} <= set(log.calls)


def test_a_log_that_raises() -> None:
    """Each exception is a warning at the line of `fit`, and training is as without the log."""
    alone = train(model())
    log = Raising()
    callback = GradientCheck(X[:4], Y[:4], epochs=1, tracking=log)
    with pytest.warns(GradientCheckWarning) as caught:
        losses = train(model(), callback)
    assert losses == alone
    assert log.calls[-1] == "finished"
    assert len(callback.reports) == 2
    said = [str(warning.message).removesuffix(". Training goes on.") for warning in caught]
    raised = " of the object given as tracking raised "
    assert [text.split(raised) for text in said] == [
        ["`begin`", "RuntimeError: no disk"],
        ["`report`", "KeyError: 'planted\\nin two lines'"],
        ["`report`", "KeyError: 'planted\\nin two lines'"],
        ["`end`", "OSError: [Errno 28] No space left on device"],
    ]
    assert {warning.filename for warning in caught} == {__file__}


def test_a_check_that_fails() -> None:
    """The report that ends training is handed over before the end, which is told at once."""
    log = Remembering()
    callback = GradientCheck(X[:4], Y[:4], on_fail="raise", tracking=log)
    with pytest.raises(GradientCheckFailed):
        train(model(WrongSine()), callback)
    assert log.calls == ["begin net", "gradcheck start: fail", "failed"]


def test_a_check_that_stops_training() -> None:
    """Training that is stopped has finished."""
    log = Remembering()
    with pytest.warns(GradientCheckWarning):
        train(model(WrongSine()), GradientCheck(X[:4], Y[:4], on_fail="stop", tracking=log))
    assert log.calls[-1] == "finished"


def test_a_check_that_cannot_be_made() -> None:
    """It has a report, too."""
    log = Remembering()
    with pytest.warns(GradientCheckWarning):
        train(model(), GradientCheck(X[:4], Y[:4, [0, 0, 0]] * np.nan, tracking=log))
    assert log.calls == ["begin net", "gradcheck start: error", "finished"]


def test_ctrl_c_during_a_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told at once."""

    def interrupt(*_arguments: Any, **_options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tfcheck.checker.GradientChecker, "check", interrupt)
    log = Remembering()
    callback = GradientCheck(X[:4], Y[:4], tracking=log)
    with pytest.raises(KeyboardInterrupt):
        train(model(), callback)
    assert log.calls == ["begin net", "interrupted"]


def test_ctrl_c_in_the_log() -> None:
    """It ends the training, which the log hears at once."""

    class Slow(Remembering):
        def report(self, report: GradientReport) -> None:
            raise KeyboardInterrupt

    log = Slow()
    callback = GradientCheck(X[:4], Y[:4], tracking=log)
    with pytest.raises(KeyboardInterrupt):
        train(model(), callback)
    assert log.calls == ["begin net", "interrupted"]


class Stumbling(keras.callbacks.Callback):
    """Raises after the first epoch."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        raise ArithmeticError


def test_an_error_between_checks() -> None:
    """The next training of the callback ends the broken one; else its being forgotten does."""
    log = Remembering()
    callback = GradientCheck(X[:4], Y[:4], tracking=log)
    with pytest.raises(ArithmeticError):
        train(model(), callback, Stumbling())
    assert log.calls == ["begin net", "gradcheck start: pass"]
    with pytest.raises(ArithmeticError):
        train(model(), callback, Stumbling())
    assert log.calls[2:] == ["failed", "begin net", "gradcheck start: pass"]
    del callback
    keras.utils.clear_session()
    gc.collect()
    assert log.calls[5:] == ["failed"]


BROKEN_OFF = """
import numpy as np, keras, sys
from tfcheck.callbacks import GradientCheck

class Printing:
    def begin(self, settings, model): print("begin")
    def report(self, report): print("report")
    def end(self, status): print(status, flush=True)

class Interrupting(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        raise {error}

x = np.ones((4, 2), "float32")
net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
net.compile("sgd", "mse")
callback = GradientCheck(x, x[:, :1], tracking=Printing())
net.fit(x, x[:, :1], verbose=0, callbacks=[callback, Interrupting()])
"""


@pytest.mark.parametrize(
    ("error", "status"), [("KeyboardInterrupt", "interrupted"), ("ArithmeticError", "failed")]
)
def test_a_script_that_breaks_off(error: str, status: str) -> None:
    """When Python ends, the training does, too."""
    finished = subprocess.run(
        [sys.executable, "-c", BROKEN_OFF.format(error=error)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert finished.returncode != 0
    assert finished.stdout.splitlines() == ["begin", "report", status], finished.stderr


class Incomplete:
    def begin(self, settings: Any, model: str) -> None: ...
    def report(self, report: Any) -> None: ...


@pytest.mark.parametrize(
    "tracking", ["wandb", "", 3, True, Incomplete(), Remembering, {}, np.ones(2)]
)
def test_what_is_no_log(tracking: Any) -> None:
    """It is refused when the callback is made: a class, too, which is no object yet."""
    with pytest.raises(ArgumentError, match=r'^tracking must be "mlflow", None, or an object with'):
        GradientCheck(X[:4], Y[:4], tracking=tracking)


def test_the_example_of_the_docs(tmp_path: Path) -> None:
    """It runs as it stands, in about forty lines, and its file is strict JSON."""
    example, use = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert example.count("\n") <= 45
    net = model(keras.layers.Dense(1))
    scope: dict[str, Any] = {"GradientCheck": GradientCheck, "x": X, "y": Y, "model": net}
    exec(example + use, scope)  # noqa: S102 - our own page
    lines = [
        json.loads(line, parse_constant=pytest.fail)
        for line in (tmp_path / "checks.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [line["event"] for line in lines] == ["begin", "check", "check", "check", "end"]
    assert [line.get("verdict") for line in lines[1:4]] == ["pass"] * 3
    assert len(lines[1]["scores"]) == 4
    assert lines[-1]["status"] == "finished"


def test_the_docs_name_the_methods() -> None:
    """The table has just the methods of `Tracking`, in the order in which they are called."""
    named = re.findall(r"^\| `(\w+)\(", PAGE, re.MULTILINE)
    methods = [name for name in vars(Tracking) if not name.startswith("_")]
    assert named == methods == ["begin", "report", "end"]
