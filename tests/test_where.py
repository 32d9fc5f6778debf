"""What a report says of the user's own lines: where a gradient is blocked, misused, or wrong."""

# mypy: allow-subclassing-any

from __future__ import annotations

import dataclasses
import gc
import json
import sys
import types
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcheck import GradientReport, Verdict, check_gradients, check_layer
from tfcheck.callbacks.telling import finding
from tfcheck.rendering.console import report_text
from tfcheck.rendering.html import report_page

L = keras.layers
X = np.random.default_rng(5).normal(size=(6, 3)).astype("float32")
Y = np.random.default_rng(6).normal(size=(6, 2)).astype("float32")


def at(mark: str, function: str = "", file: str | None = None) -> str:
    """The line of this file that ends in a comment of this mark, as a note tells it."""
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    (number,) = (n for n, line in enumerate(lines, 1) if line.endswith(f"# {mark}"))
    inside = f" in {function}" if function else ""
    return f"{file or Path(__file__).name}:{number}{inside}"


def notes_of(report: GradientReport, *parts: str) -> set[str]:
    """The notes on the variables whose paths contain one of the parts."""
    return {v.note for v in report.variables if any(part in v.path for part in parts)}


def around(middle: keras.layers.Layer, **compiled: Any) -> keras.Model:
    """A compiled network `net` with a layer between two dense ones."""
    keras.utils.set_random_seed(1)
    layers = [keras.Input((3,)), L.Dense(4, name="one"), middle, L.Dense(2, name="two")]
    model = keras.Sequential(layers, name="net")
    model.compile(**{"optimizer": "sgd", "loss": "mse", **compiled})
    return model


class Through(keras.layers.Layer):
    """A layer that computes a function."""

    def __init__(self, function: Callable[[Any], Any], **options: Any) -> None:
        super().__init__(**options)
        self.function = function

    def call(self, x: Any) -> Any:  # call of Through
        return self.function(x)  # what Through runs


# -- what blocks a gradient ------------------------------------------------------------------


def pick(x: Any) -> Any:
    """A hard choice."""
    best = tf.argmax(x, axis=1)  # a hard choice
    return tf.one_hot(best, 4)


def detour(x: Any) -> Any:
    """A function that NumPy computes."""
    found = tf.numpy_function(np.tanh, [x], x.dtype)  # NumPy
    return tf.ensure_shape(found, x.shape)


@tf.function
def pick_in_a_loop(x: Any) -> Any:
    """A loop that autograph writes, with a cast in a branch of it."""
    for _ in tf.range(2):
        if tf.reduce_sum(tf.stop_gradient(x)) > -1e9:  # a branch
            x = tf.cast(tf.cast(9 * x, tf.int32), x.dtype)  # a cast
    return x


@tf.custom_gradient
def forgetful(x: Any) -> Any:
    """A sine whose gradient somebody forgot."""
    result = tf.sin(x)  # a gradient of its own
    return result, lambda _: None


BLOCKED = {
    "argmax": (pick, "ArgMax", "a hard choice", "pick"),
    "NumPy": (detour, "PyFunc", "NumPy", "detour"),
    "in a loop": (pick_in_a_loop, "Cast", "a cast", "pick_in_a_loop"),
    "in a lambda": (
        lambda x: 2 * tf.stop_gradient(x),  # a lambda
        "StopGradient",
        "a lambda",
        "",
    ),
    "library": (tf.round, "Round", "what Through runs", "call"),
}


@pytest.mark.parametrize("name", BLOCKED)
def test_the_operation_that_blocks_a_gradient_is_told_by_its_line(name: str) -> None:
    """What blocks a gradient is named as an operation, a line and a function of the user's."""
    function, operation, mark, inside = BLOCKED[name]
    report = check_gradients(around(Through(function, name="middle")), X, Y)
    told = {v.note for v in report.variables if v.reason == "blocked"}
    assert len(told) == 1, str(report)
    place = at(mark, f"`{inside}`" if inside else "")
    assert f"`{operation}` at {place}" in told.pop()
    assert report.culprits == ("net/middle",)


def test_a_gradient_that_somebody_wrote_is_told_by_its_function() -> None:
    """Where a custom gradient gives None, its function is named, and it is the culprit's place."""
    report = check_gradients(around(Through(forgetful, name="middle")), X, Y)
    place = at("a gradient of its own", "`forgetful`")
    (note,) = notes_of(report, "one/")
    assert note.endswith(f"depends on this variable: blocked by the gradient written at {place}.")
    assert report.culprit_places == (at("a gradient of its own", "forgetful"),)


def test_what_only_a_library_calls_is_told_by_its_layer() -> None:
    """Where no line of the user's makes an operation, the layer that makes it is named."""
    report = check_gradients(around(L.Dense(4, activation=tf.round, name="middle")), X, Y)
    (note,) = notes_of(report, "one/")
    assert note.endswith("blocked by `Round` in net/middle.")
    assert (report.culprits, report.culprit_places) == (("net/middle",), ("",))


def test_a_rounding_has_no_slope() -> None:
    """Where the tape gives zeros, the operation that has only jumps is named."""
    report = check_gradients(around(Through(tf.sign, name="middle")), X, Y)
    (note,) = notes_of(report, "one/")
    place = at("what Through runs", "`call`")
    assert note.endswith(f"there is no slope to train by in `Sign` at {place}.")
    assert all(v.pattern == "" for v in report.variables), "nothing is said twice"


def test_an_operation_without_a_gradient_of_one_input() -> None:
    """An operation blocks the gradient of an input that it has none for, and of no other."""

    class Beta(keras.layers.Layer):
        def build(self, _shape: Any) -> None:
            self.a = self.add_weight(shape=(4,), name="a", initializer="ones")

        def call(self, x: Any) -> Any:
            a, ones = tf.convert_to_tensor(self.a) + 0 * x, tf.ones_like(x)
            return tf.math.betainc(a, ones, tf.sigmoid(x))  # beta

    report = check_gradients(around(Beta(name="middle")), X, Y)
    (note,) = notes_of(report, "middle/a")
    assert note.endswith(f"blocked by `Betainc` at {at('beta', '`call`')}.")
    assert {v.verdict for v in report.variables if "one/" in v.path} == {Verdict.PASS}


def shrunk(x: Any) -> Any:
    """What an operation makes that TensorFlow knows no gradient of."""
    picture = tf.reshape(x, (-1, 2, 2, 1))
    return tf.reshape(tf.image.resize(picture, (1, 1), "area"), (-1, 1))  # an area


def test_a_tape_that_raises_is_told_where() -> None:
    """An operation without a gradient, for which a tape raises, is told by its line."""
    report = check_gradients(around(Through(shrunk, name="middle")), X, Y)
    (note,) = notes_of(report, "one/")
    assert note.startswith("The tape raises LookupError")
    assert note.endswith(f"It is blocked by `ResizeArea` at {at('an area', '`shrunk`')}.")


def test_what_blocks_is_told_where_units_cannot_be_told_apart() -> None:
    """A step with tensors of unknown shape between its layers is told of in the same way."""

    def loss(model: Any, x: Any, y: Any, _: Any) -> Any:
        kept = tf.boolean_mask(x, x[:, 0] > -1e9)
        one, two = model.layers
        chosen = tf.cast(tf.cast(9 * one(kept), tf.int32), tf.float32)  # undivided
        return tf.reduce_mean((two(chosen) - tf.boolean_mask(y, x[:, 0] > -1e9)) ** 2)

    keras.utils.set_random_seed(1)
    layers = [keras.Input((3,)), L.Dense(4, name="one"), L.Dense(2, name="two")]
    report = check_gradients(keras.Sequential(layers, name="net"), X, Y, loss_fn=loss)
    (note,) = notes_of(report, "one/")
    assert note.endswith(f"blocked by `Cast` at {at('undivided', '`loss`')}.")


def test_a_layer_by_itself_is_told_of_too() -> None:
    """What blocks the gradient of a layer's input is told by its line."""
    report = check_layer(Through(pick, name="alone"), X)
    (note,) = notes_of(report, "input")
    assert note.endswith(f"blocked by `ArgMax` at {at('a hard choice', '`pick`')}.")


# -- what the step does ----------------------------------------------------------------------


class Stepping(keras.Sequential):
    """A model of two equal layers whose train_step is `step(model, x, y)`."""

    step: Callable[..., Any]

    def train_step(self, data: Any) -> Any:  # the train_step
        self.step(self, *data[:2])
        return {}


def stepping(step: Callable[..., Any], *compiled: Any, **how: Any) -> Stepping:
    """A compiled `Stepping` model `net`."""
    keras.utils.set_random_seed(1)
    layers = [keras.Input((3,)), L.Dense(3, name="one", activation="tanh"), L.Dense(3, name="two")]
    model = Stepping(layers, name="net")
    model.step = step
    model.compile(*(compiled or ("sgd",)), **how)
    return model


def error(y: Any, y_pred: Any) -> Any:
    """The mean squared error."""
    return tf.reduce_mean((y - y_pred) ** 2)


def applied(model: Any, gradients: Any) -> None:
    """Hand gradients over as they are."""
    model.optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))


def term_outside(model: Any, x: Any, y: Any) -> None:
    """A term of the loss is computed before the tape records."""
    penalty = 0.1 * tf.reduce_sum(tf.convert_to_tensor(model.layers[0].kernel) ** 2)  # a term
    with tf.GradientTape() as tape:
        loss = error(y, model(x)) + penalty
    applied(model, tape.gradient(loss, model.trainable_variables))


def test_a_term_computed_outside_of_the_tape() -> None:
    """A gradient that lacks a term is told where that is computed, and that it is too early."""
    report = check_gradients(stepping(term_outside), X, X)
    (note,) = notes_of(report, "one/kernel")
    place = at("a term", "`term_outside`")
    assert note == f"A part of the gradient is blocked by `Mul` at {place}, outside of the tape."
    assert report.culprits == ("train_step",)
    assert report.culprit_places == (at("the train_step", "Stepping.train_step"),)


def half_stopped(model: Any, x: Any, y: Any) -> None:
    """One of two factors is taken for constant; what a library stops is none of the user's."""
    with tf.GradientTape() as tape:
        outputs = model(x)
        mean, _ = tf.nn.moments(outputs, 0)
        loss = tf.reduce_mean(outputs * tf.stop_gradient(outputs) * (y + mean))  # half
    applied(model, tape.gradient(loss, model.trainable_variables))


def test_a_factor_that_is_stopped() -> None:
    """A gradient that lacks a factor's part is told what stops it; right library code is not."""
    report = check_gradients(stepping(half_stopped), X, X)
    (note,) = notes_of(report, "two/kernel")
    place = at("half", "`half_stopped`")
    assert note.endswith(f"A part of the gradient is blocked by `StopGradient` at {place}.")


def forward_outside(model: Any, x: Any, y: Any) -> None:
    """The first layer is called before the tape records."""
    hidden = model.layers[0](x)  # the first layer
    with tf.GradientTape() as tape:
        loss = error(y, model.layers[1](hidden))
    found = tape.gradient(loss, [*model.layers[1].trainable_variables, model.layers[0].kernel])
    model.optimizer.apply(found[:2], model.layers[1].trainable_variables)


def test_a_layer_called_outside_of_the_tape() -> None:
    """A variable whose layer is called before the tape records is told so, and by which line."""
    report = check_gradients(stepping(forward_outside), X, X)
    (note,) = notes_of(report, "one/kernel")
    place = at("the first layer", "`forward_outside`")
    assert note.endswith(f"blocked by `Tanh` at {place}, outside of the tape.")


def swapped(model: Any, x: Any, y: Any) -> None:
    """Gradients go to each other's variables."""
    with tf.GradientTape() as tape:
        loss = error(y, model(x))
    gradients = tape.gradient(loss, model.trainable_variables)
    one, two = model.trainable_variables[:2], model.trainable_variables[2:]
    model.optimizer.apply(gradients, two + one)  # swapped


def by_hand(model: Any, x: Any, y: Any) -> None:
    """The step updates its variables itself, against the sign."""
    with tf.GradientTape() as tape:
        loss = error(y, model(x))
    variables = model.trainable_variables
    for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
        variable.assign_add(0.1 * gradient)  # by hand


def never_applied(model: Any, x: Any, y: Any) -> None:
    """Gradients are found, and go nowhere."""
    with tf.GradientTape() as tape:
        loss = error(y, model(x))
    tape.gradient(loss, model.trainable_variables)  # never applied


def kernels_alone(model: Any, x: Any, y: Any) -> None:
    """A tape is asked for the kernels alone."""
    with tf.GradientTape() as tape:
        loss = error(y, model(x))
    kernels = [variable for variable in model.trainable_variables if "kernel" in variable.path]
    gradients = tape.gradient(loss, kernels)  # kernels alone
    model.optimizer.apply(gradients, kernels)


def doubled(model: Any, x: Any, y: Any) -> None:
    """Twice the compiled loss is trained."""
    with tf.GradientTape() as tape:
        loss = 2 * model.compute_loss(x, y, model(x))
    applied(model, tape.gradient(loss, model.trainable_variables))  # doubled


@pytest.mark.parametrize(
    ("step", "reason", "told", "eagerly"),
    [
        (swapped, "misapplied", "Gradients are applied at", False),
        (swapped, "misapplied", "Gradients are applied at", True),
        (by_hand, "misapplied", "It is assigned at", False),
        (never_applied, "misapplied", "The tape is asked for gradients at", False),
        (kernels_alone, "untrained", "The tape is asked for gradients at", False),
        (doubled, "other_loss", "The tape is asked for gradients at", False),
        (doubled, "other_loss", "The tape is asked for gradients at", True),
    ],
)
def test_what_the_step_does_is_told_by_its_line(
    step: Callable[..., Any], reason: str, told: str, eagerly: bool
) -> None:
    """What becomes of right gradients is told by the line that does it."""
    model = stepping(step, "sgd", "mse", run_eagerly=eagerly)
    report = check_gradients(model, X, X)
    notes = {v.note for v in report.variables if v.reason == reason}
    place = at(step.__name__.replace("_", " "), f"`{step.__name__}`")
    assert notes, str(report)
    assert all(note.endswith(f" {told} {place}.") for note in notes), notes


def frozen_target(model: Any, x: Any, y: Any) -> None:
    """A target and an adversary that are made before the tape records."""
    with tf.GradientTape() as inner:
        inner.watch(x)
        loss = error(y, model(x))
    nearby = x + 0.1 * tf.sign(inner.gradient(loss, x))  # an adversary
    target = model(x)  # a target
    with tf.GradientTape() as tape:
        loss = error(target, model(nearby))
    applied(model, tape.gradient(loss, model.trainable_variables))


def test_what_is_held_constant_is_told_by_layer_and_line() -> None:
    """Values that no tape records are told by their layer and line, not by a tensor's name."""
    report = check_gradients(stepping(frozen_target), X, X)
    (note,) = (note for note in report.notes if "counts as constant" in note)
    assert f"net/two at {at('a target', '`frozen_target`')}" in note
    assert f"`AddV2` at {at('an adversary', '`frozen_target`')}" in note
    assert ":0" not in note.replace(".py:", "")


class WeightNorm(keras.layers.Layer):
    """Weight normalisation that assigns the weight in its call."""

    def build(self, shape: Any) -> None:
        self.v = self.add_weight(shape=(shape[-1], 4), name="v")
        self.w = self.add_weight(shape=(shape[-1], 4), name="w", trainable=False)

    def call(self, x: Any) -> Any:
        self.w.assign(tf.math.l2_normalize(self.v, 0))  # assigned
        return x @ self.w


def test_what_is_assigned_is_told_by_variable_and_line() -> None:
    """A value that the step assigns before it uses it is told by the variable and the line."""
    report = check_layer(WeightNorm(name="norm"), X)
    place = at("assigned", "`call`")
    (note,) = notes_of(report, "norm/v")
    assert note.endswith(f"blocked by the assignment to norm/w at {place}.")
    assert any(note.endswith(f"held fixed: norm/w at {place}.") for note in report.notes)


class Noisy(keras.layers.Layer):
    """Noise from a generator of its own, whose state it moves on and reads again."""

    def __init__(self) -> None:
        super().__init__()
        self.seeds = keras.random.SeedGenerator(3)

    def call(self, x: Any) -> Any:
        once = x + keras.random.normal(x.shape, seed=self.seeds)
        return once + keras.random.normal(x.shape, seed=self.seeds)


def test_what_no_gradient_could_follow_is_not_told() -> None:
    """The state of a random generator that a step moves on is no value that a tape loses."""
    report = check_layer(Noisy(), X)
    assert not any("assigns to a variable" in note for note in report.notes), report.notes


# -- where culprits are ----------------------------------------------------------------------


@tf.custom_gradient
def off(x: Any) -> Any:
    """A sine with a wrong derivative."""
    return tf.sin(x), lambda upstream: upstream * tf.sin(x)  # off


def wrong_by_recipe(x: Any) -> Any:
    """A square of which one factor is taken for constant."""  # the first line follows
    return x * tf.stop_gradient(x)


class Cell(keras.layers.Layer):
    """A recurrent cell with a wrong derivative."""

    state_size = 3
    output_size = 3

    def call(self, x: Any, states: Any) -> Any:
        hidden = off(x + states[0])
        return hidden, [hidden]


def wrong_loss(y: Any, y_pred: Any) -> Any:
    """A loss with a wrong derivative."""
    return tf.reduce_mean(off(y - y_pred))


def test_a_culprit_is_told_by_its_call() -> None:
    """The place of a wrong layer is its `call`; nothing is told of an absolute path."""
    report = check_gradients(around(Through(wrong_by_recipe, name="middle")), X, Y)
    assert report.culprits == ("net/middle",)
    assert report.culprit_places == (at("call of Through", "Through.call"),)
    assert str(Path(__file__).parent) not in json.dumps(report.to_dict())


def test_a_culprit_in_a_loop_or_a_loss_is_told_by_the_gradient_that_somebody_wrote() -> None:
    """A custom gradient in a recurrent cell or in a loss is where the culprit is."""
    place = (at("off", "off"),)
    keras.utils.set_random_seed(1)
    layers = [keras.Input((4, 3)), L.Dense(3), L.RNN(Cell(), name="rnn"), L.Dense(2)]
    recurrent = keras.Sequential(layers)
    recurrent.compile("sgd", "mse")
    report = check_gradients(recurrent, np.stack([X] * 4, 1), Y)
    assert (report.culprits, report.culprit_places) == ((f"{recurrent.name}/rnn",), place)
    report = check_gradients(around(L.Dense(4, name="middle"), loss=wrong_loss), X, Y)
    assert (report.culprits, report.culprit_places) == (("loss",), place)


def test_a_lambda_is_told_by_its_function() -> None:
    """The place of a wrong `Lambda` is the function that it calls."""
    report = check_gradients(around(L.Lambda(wrong_by_recipe, name="middle")), X, Y)
    (place,) = report.culprit_places
    assert place.endswith(" in wrong_by_recipe")


def test_a_step_that_trains_nothing_is_told_by_its_train_step() -> None:
    """Where no tape is used at all, the place is the `train_step`."""
    report = check_gradients(stepping(lambda _model, _x, _y: None), X, X)
    assert report.culprits == ("train_step",)
    assert report.culprit_places == (at("the train_step", "Stepping.train_step"),)


def test_a_file_below_the_working_directory_is_told_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file is shown from the working directory where it is below it, else by its name."""
    folder = tmp_path / "layers"
    folder.mkdir()
    file = folder / "own.py"
    file.write_text("import tensorflow as tf\n\ndef stop(x):\n    return tf.stop_gradient(x)\n")
    module = types.ModuleType("own")
    exec(compile(file.read_text(), str(file), "exec"), module.__dict__)  # noqa: S102 - a module
    model = around(Through(module.stop, name="middle"))
    (note,) = notes_of(check_gradients(model, X, Y), "one/")
    assert note.endswith("`StopGradient` at layers/own.py:4 in `stop`.")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (note,) = notes_of(check_gradients(model, X, Y), "one/")
    assert note.endswith("`StopGradient` at own.py:4 in `stop`.")


# -- in the report ---------------------------------------------------------------------------


def test_the_place_stands_beside_the_culprit(tmp_path: Path) -> None:
    """The place is in the saved report, the text, the page and the warning."""
    report = check_gradients(around(Through(off, name="middle")), X, Y)
    (place,) = report.culprit_places
    assert place == at("off", "off")
    assert GradientReport.load(report.save(tmp_path / "report.json")) == report
    assert f"culprit     net/middle ({place})" in report_text(report)
    assert f"Culprit: <code>net/middle</code> ({place})." in report_page([report])
    assert f"Culprit: net/middle ({place})." in finding(report)


def test_reports_without_places_still_load() -> None:
    """A report that an earlier version saved has no places, and is shown without."""
    report = check_gradients(around(Through(off, name="middle")), X, Y)
    content = report.to_dict()
    del content["culprit_places"]
    old = GradientReport.from_dict(content)
    assert old == dataclasses.replace(report, culprit_places=())
    assert "culprit     net/middle\n" in report_text(old)


# -- no harm ---------------------------------------------------------------------------------


def test_nothing_of_the_users_is_kept() -> None:
    """What the user's functions hold while they are traced is gone when they are."""

    class Large:
        pass

    kept: list[weakref.ref[Large]] = []

    def rounding(x: Any) -> Any:
        large = Large()
        kept.append(weakref.ref(large))
        return tf.round(x)

    report = check_gradients(around(Through(rounding, name="middle")), X, Y)
    assert report.verdict is Verdict.FAIL
    gc.collect()
    assert kept
    assert all(reference() is None for reference in kept)


def test_a_check_that_passes_looks_up_no_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is to be told, no stack of any operation is looked at."""
    looked: list[Any] = []
    for name in ("trace.source_lines", "locate.placing", "examine.held"):
        module = sys.modules[f"tfcheck.{name}"]
        monkeypatch.setattr(module, "place_of", looked.append)
    report = check_gradients(around(L.Dense(4, name="middle")), X, Y)
    assert report.verdict is Verdict.PASS
    assert looked == []
