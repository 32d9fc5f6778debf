"""What the optimizer is given: choices of a training step pass, mistakes are told in words."""

# mypy: allow-subclassing-any

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcheck import GradientReport, Verdict, check_gradients

Step = Callable[..., Any]

PATHS = ("net/one/kernel", "net/one/bias", "net/two/kernel", "net/two/bias")
"""The variables of `stepping`, in the order of its gradients."""


class Stepping(keras.Sequential):
    """A model whose train_step is `step(model, x, y)`, which returns its loss."""

    step: Step

    def train_step(self, batch: Any) -> Any:
        return {"loss": self.step(self, *batch)}


def stepping(step: Step, optimizer: Any = "sgd", *, loss: str | None = "mse") -> Any:
    """A `Stepping` model `net` of two layers of three, `one` and `two`."""
    model = Stepping(
        [
            keras.Input((3,)),
            keras.layers.Dense(3, activation="tanh", name="one"),
            keras.layers.Dense(3, name="two"),
        ],
        name="net",
    )
    model.step = step
    model.other = keras.optimizers.Adam()
    model.compile(optimizer, loss)
    return model


def checked(model: keras.Model) -> GradientReport:
    """Check on a batch of six."""
    rng = np.random.default_rng(5)
    return check_gradients(model, rng.normal(size=(6, 3)), rng.normal(size=(6, 3)))


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same model every time."""
    keras.utils.set_random_seed(11)


def error(y: Any, y_pred: Any) -> Any:
    """The mean squared error, by hand."""
    return tf.reduce_mean((y_pred - y) ** 2)


def loss_of(model: Any, x: Any, y: Any) -> Any:
    """The loss that the model is compiled with, if it is with any."""
    return error(y, model(x, training=True))


def found(model: Any, x: Any, y: Any, loss: Step = loss_of) -> tuple[Any, list[Any]]:
    """A loss and its gradients, from a tape of their own."""
    with tf.GradientTape() as tape:
        value = loss(model, x, y)
    return value, tape.gradient(value, model.trainable_variables)


def give(model: Any, gradients: Any) -> None:
    """Hand gradients to the optimizer."""
    model.optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))


def changed(change: Step) -> Step:
    """A step that hands over `change(gradients, variables)`."""

    def step(model: Any, x: Any, y: Any) -> Any:
        loss, gradients = found(model, x, y)
        give(model, change(gradients, model.trainable_variables))
        return loss

    return step


# -- choices ---------------------------------------------------------------------------------

CHOICES: dict[str, Callable[[], Any]] = {
    "as they are": lambda: stepping(changed(lambda g, _: g)),
    "clipped by value": lambda: stepping(
        changed(lambda g, _: [tf.clip_by_value(each, -0.02, 0.02) for each in g])
    ),
    "clipped by norm": lambda: stepping(
        changed(lambda g, _: [tf.clip_by_norm(each, 0.05) for each in g])
    ),
    "clipped by their global norm": lambda: stepping(
        changed(lambda g, _: tf.clip_by_global_norm(g, 0.05)[0])
    ),
    "clipped by a norm out of reach": lambda: stepping(
        changed(lambda g, _: tf.clip_by_global_norm(g, 1e3)[0])
    ),
    "normalised": lambda: stepping(
        changed(lambda g, _: [each / (tf.linalg.global_norm(g) + 1e-8) for each in g])
    ),
    "signs alone": lambda: stepping(changed(lambda g, _: [tf.sign(each) for each in g])),
    "centralised": lambda: stepping(
        changed(
            lambda g, _: [
                each - tf.reduce_mean(each, 0, keepdims=True) if each.shape.rank == 2 else each
                for each in g
            ]
        )
    ),
    "weight decay by hand": lambda: stepping(
        changed(lambda g, v: [each + 0.01 * w for each, w in zip(g, v, strict=True)])
    ),
    "not a number replaced": lambda: stepping(
        changed(
            lambda g, _: [
                tf.where(tf.math.is_finite(each), each, tf.zeros_like(each)) for each in g
            ]
        )
    ),
    "rows frozen": lambda: stepping(
        changed(lambda g, _: [tf.concat([tf.zeros_like(g[0][:1]), g[0][1:]], 0), *g[1:]])
    ),
    "adaptive clipping": lambda: stepping(
        changed(
            lambda g, v: [
                each * tf.minimum(1.0, 0.01 * tf.maximum(tf.norm(w), 1e-3) / tf.norm(each))
                for each, w in zip(g, v, strict=True)
            ]
        )
    ),
}


def choice(step: Step) -> Step:
    """Enter a step in the table of choices, under its name."""
    CHOICES[step.__name__.replace("_", " ")] = lambda: stepping(step)
    return step


def sparse(gradients: Any, _: Any) -> Any:
    """Each gradient's largest entry alone."""
    return [tf.where(tf.abs(g) >= tf.reduce_max(tf.abs(g)), g, 0.0) for g in gradients]


CHOICES |= {
    "largest entries alone": lambda: stepping(changed(sparse)),
    "noisy": lambda: stepping(
        changed(lambda g, _: [each + 0.01 * tf.random.normal(each.shape) for each in g])
    ),
    "clipped by the optimizer": lambda: stepping(
        changed(lambda g, _: g), keras.optimizers.Adam(clipnorm=0.1)
    ),
    "accumulated by the optimizer": lambda: stepping(
        changed(lambda g, _: g), keras.optimizers.Adam(gradient_accumulation_steps=3)
    ),
    "averaged by the optimizer": lambda: stepping(
        changed(lambda g, _: g), keras.optimizers.Adam(use_ema=True)
    ),
}


@choice
def loss_scale_undone(model: Any, x: Any, y: Any) -> Any:
    """A loss scaled by hand, its gradients divided by the same."""
    loss, gradients = found(model, x, y, lambda *batch: 1024.0 * loss_of(*batch))
    give(model, [each / 1024.0 for each in gradients])
    return loss / 1024.0


@choice
def microbatches_averaged(model: Any, x: Any, y: Any) -> Any:
    """Gradients of two halves of the batch, averaged."""
    halves = [found(model, x[half], y[half]) for half in (slice(0, 3), slice(3, 6))]
    give(model, [(a + b) / 2 for a, b in zip(halves[0][1], halves[1][1], strict=True)])
    return halves[0][0]


@choice
def microbatches_of_halved_losses(model: Any, x: Any, y: Any) -> Any:
    """Gradients of two halves of the batch, each of half the loss, added up."""
    halves = [
        found(model, x[half], y[half], lambda *batch: loss_of(*batch) / 2)
        for half in (slice(0, 3), slice(3, 6))
    ]
    give(model, [a + b for a, b in zip(halves[0][1], halves[1][1], strict=True)])
    return halves[0][0]


@choice
def sharpness_aware(model: Any, x: Any, y: Any) -> Any:
    """SAM: the gradient is taken a little uphill and applied where the model was."""
    variables = model.trainable_variables
    loss, uphill = found(model, x, y)
    norm = tf.linalg.global_norm(uphill)
    steps = [0.05 * each / (norm + 1e-12) for each in uphill]
    for variable, step in zip(variables, steps, strict=True):
        variable.assign_add(step)
    _, gradients = found(model, x, y)
    for variable, step in zip(variables, steps, strict=True):
        variable.assign_sub(step)
    give(model, gradients)
    return loss


@choice
def persistent_tape_for_two_optimizers(model: Any, x: Any, y: Any) -> Any:
    """Each layer with its own gradient call on one tape, and with its own optimizer."""
    with tf.GradientTape(persistent=True) as tape:
        loss = loss_of(model, x, y)
    one, two = (layer.trainable_variables for layer in model.layers)
    model.optimizer.apply(tape.gradient(loss, one), one)
    model.other.apply(tape.gradient(loss, two), two)
    return loss


@choice
def losses_added_after_a_persistent_tape(model: Any, x: Any, y: Any) -> Any:
    """Gradients of two losses, added with a weight of the step's choice."""
    with tf.GradientTape(persistent=True) as tape:
        y_pred = model(x, training=True)
        loss = error(y, y_pred)
        activity = tf.reduce_mean(y_pred**2)
    variables = model.trainable_variables
    of_loss, of_activity = tape.gradient(loss, variables), tape.gradient(activity, variables)
    give(model, [a + 0.1 * b for a, b in zip(of_loss, of_activity, strict=True)])
    return loss


@choice
def private(model: Any, x: Any, y: Any) -> Any:
    """DP-SGD: the gradient of each sample by a jacobian, clipped and averaged."""
    with tf.GradientTape() as tape:
        losses = tf.reduce_mean((model(x, training=True) - y) ** 2, 1)
    gradients = []
    for each in tape.jacobian(losses, model.trainable_variables):
        flat = tf.reshape(each, (6, -1))
        clipped = tf.clip_by_norm(flat, 0.1, axes=[1])
        gradients.append(tf.reshape(tf.reduce_mean(clipped, 0), each.shape[1:]))
    give(model, gradients)
    return tf.reduce_mean(losses)


@choice
def descent_by_hand(model: Any, x: Any, y: Any) -> Any:
    """No optimizer: the step subtracts its gradients itself."""
    loss, gradients = found(model, x, y)
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        variable.assign_sub(0.01 * gradient)
    return loss


@choice
def tapes_averaged(model: Any, x: Any, y: Any) -> Any:
    """Gradients on the batch and on a noisy copy of it, averaged."""
    loss, clean = found(model, x, y)
    _, noisy = found(model, x + 0.1, y)
    give(model, [(a + b) / 2 for a, b in zip(clean, noisy, strict=True)])
    return loss


@choice
def two_rounds(model: Any, x: Any, y: Any) -> Any:
    """Two updates in one step, each with a tape of its own."""
    loss = None
    for _ in range(2):
        loss, gradients = found(model, x, y)
        give(model, gradients)
    return loss


@choice
def conflicts_projected(model: Any, x: Any, y: Any) -> Any:
    """PCGrad: what one task's gradient takes from the other's is projected away."""
    with tf.GradientTape(persistent=True) as tape:
        y_pred = model(x, training=True)
        first, second = error(y, y_pred), tf.reduce_mean(tf.abs(y_pred + 1))
    variables = model.trainable_variables
    gradients = []
    for a, b in zip(tape.gradient(first, variables), tape.gradient(second, variables), strict=True):
        conflict = tf.minimum(tf.reduce_sum(a * b), 0.0)
        shares = a / (tf.reduce_sum(a**2) + 1e-9) + b / (tf.reduce_sum(b**2) + 1e-9)
        gradients.append(a + b - conflict * shares)
    give(model, gradients)
    return first


@choice
def rounds_in_a_loop(model: Any, x: Any, y: Any) -> Any:
    """Three updates in a loop of the graph."""

    def body(i: Any, _: Any) -> Any:
        loss, gradients = found(model, x, y)
        give(model, gradients)
        return i + 1, loss

    return tf.while_loop(lambda i, _: i < 3, body, [0, 0.0])[1]


@choice
def in_a_function_of_its_own(model: Any, x: Any, y: Any) -> Any:
    """Tape and optimizer inside a tf.function."""

    @tf.function
    def inner() -> Any:
        loss, gradients = found(model, x, y)
        give(model, gradients)
        return loss

    return inner()


@choice
def gradients_without_their_variables(model: Any, x: Any, y: Any) -> Any:
    """An optimizer that is built knows its variables, and is handed gradients alone."""
    model.optimizer.build(model.trainable_variables)
    loss, gradients = found(model, x, y)
    model.optimizer.apply(gradients)
    return loss


def momentum_by_hand() -> Any:
    """No optimizer: the step keeps a velocity for each variable."""

    def step(model: Any, x: Any, y: Any) -> Any:
        loss, gradients = found(model, x, y)
        moved = zip(model.trainable_variables, gradients, model.velocities, strict=True)
        for variable, gradient, velocity in moved:
            velocity.assign(0.9 * velocity + gradient)
            variable.assign_sub(0.01 * velocity)
        return loss

    model = stepping(step)
    model.velocities = [
        tf.Variable(tf.zeros(variable.shape), trainable=False)
        for variable in model.trainable_variables
    ]
    return model


def with_a_teacher() -> Any:
    """A student that follows the moving average of itself, which no optimizer is given."""

    def step(model: Any, x: Any, y: Any) -> Any:
        student, teacher = model.layers[0], model.teacher
        target = tf.stop_gradient(teacher(x))
        loss, gradients = found(
            model, x, y, lambda *batch: loss_of(*batch) + tf.reduce_mean((student(x) - target) ** 2)
        )
        give(model, gradients)
        for ours, theirs in zip(student.weights, teacher.weights, strict=True):
            theirs.assign(0.99 * theirs + 0.01 * ours)
        return loss

    model = stepping(step)
    model.teacher = keras.layers.Dense(3, activation="tanh", name="teacher", trainable=False)
    model.teacher.build((None, 3))
    return model


def accumulating() -> Any:
    """Gradients accumulated over two steps in variables, and applied every second time."""

    def step(model: Any, x: Any, y: Any) -> Any:
        loss, gradients = found(model, x, y, lambda *batch: loss_of(*batch) / 2)
        for total, gradient in zip(model.totals, gradients, strict=True):
            total.assign_add(gradient)
        model.count.assign_add(1)

        def apply() -> int:
            give(model, [tf.convert_to_tensor(total) for total in model.totals])
            for total in model.totals:
                total.assign(tf.zeros_like(total))
            return 0

        tf.cond(tf.equal(model.count % 2, 0), apply, lambda: 0)
        return loss

    model = stepping(step)
    model.totals = [
        tf.Variable(tf.zeros(variable.shape), trainable=False)
        for variable in model.trainable_variables
    ]
    model.count = tf.Variable(0, trainable=False)
    return model


def loss_scaled() -> Any:
    """A LossScaleOptimizer whose scale the loss is given."""

    def step(model: Any, x: Any, y: Any) -> Any:
        loss, gradients = found(
            model, x, y, lambda *batch: model.optimizer.scale_loss(loss_of(*batch))
        )
        give(model, gradients)
        return loss

    return stepping(step, keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()))


CHOICES |= {
    "momentum by hand": momentum_by_hand,
    "teacher that follows": with_a_teacher,
    "accumulated over steps": accumulating,
    "scaled by the optimizer": loss_scaled,
}


@pytest.mark.parametrize("name", CHOICES)
def test_choices_of_a_step_pass(name: str) -> None:
    """What training steps do to right gradients on purpose is no bug."""
    report = checked(CHOICES[name]())
    assert report.verdict is Verdict.PASS, str(report)
    assert report.culprits == ()
    assert {variable.path for variable in report.variables} >= set(PATHS)


# -- mistakes --------------------------------------------------------------------------------

NOT_RECEIVED = (
    "A tape finds a gradient for this variable, but no optimizer receives it, so that the variable "
    "stays as it is."
)
NOT_USED = (
    "The gradient that a tape finds for this variable is made no use of: the optimizer receives "
    "another one."
)
ZEROS = "The optimizer gets zeros for this variable, whose gradient is not zero."
OPPOSITE = "The optimizer gets this variable's gradient with the opposite sign."
TRANSPOSED = "The optimizer gets this variable's gradient transposed."
REORDERED = "The optimizer gets the entries of this variable's gradient in another order."


def times(number: str) -> str:
    """The note on a constant factor."""
    return f"The optimizer gets {number} times this variable's gradient."


def instead(path: str) -> str:
    """The note on the gradient of another variable."""
    return f"The optimizer gets the gradient of {path} for this variable."


def for_all(note: str) -> dict[str, str]:
    """The same note for every variable."""
    return dict.fromkeys(PATHS, note)


def given_twice(model: Any, x: Any, y: Any) -> Any:
    """The same gradients, applied twice."""
    loss, gradients = found(model, x, y)
    give(model, gradients)
    give(model, gradients)
    return loss


def never_given(model: Any, x: Any, y: Any) -> Any:
    """Gradients that nothing is done with."""
    return found(model, x, y)[0]


def cut_short(model: Any, x: Any, y: Any) -> Any:
    """Gradients zipped with all variables but the last."""
    loss, gradients = found(model, x, y)
    model.optimizer.apply_gradients(zip(gradients, model.trainable_variables[:-1], strict=False))
    return loss


def of_another_loss(model: Any, x: Any, y: Any) -> Any:
    """Two gradients of a persistent tape, of which the wrong one is applied."""
    with tf.GradientTape(persistent=True) as tape:
        y_pred = model(x, training=True)
        loss, activity = error(y, y_pred), tf.reduce_mean(y_pred**2)
    tape.gradient(loss, model.trainable_variables)
    give(model, tape.gradient(activity, model.trainable_variables))
    return loss


def scaled_only_by_hand(model: Any, x: Any, y: Any) -> Any:
    """Gradients divided by a scale that the loss was never given."""
    loss, gradients = found(model, x, y)
    give(model, [each / 1024.0 for each in gradients])
    return loss


def without_variables(model: Any, x: Any, y: Any) -> Any:
    """Gradients that are doubled, for an optimizer that knows its variables."""
    model.optimizer.build(model.trainable_variables)
    loss, gradients = found(model, x, y)
    model.optimizer.apply([2 * each for each in gradients])
    return loss


def by_hand(change: Step) -> Step:
    """A step that subtracts `change(gradients)` itself; None stands for nothing."""

    def step(model: Any, x: Any, y: Any) -> Any:
        loss, gradients = found(model, x, y)
        for variable, each in zip(model.trainable_variables, change(gradients), strict=True):
            if each is not None:
                variable.assign_sub(0.01 * each)
        return loss

    return step


ONE, ONE_BIAS, TWO, TWO_BIAS = PATHS

MISTAKES: dict[str, tuple[Step, dict[str, str]]] = {
    "doubled": (changed(lambda g, _: [2 * each for each in g]), for_all(times("2"))),
    "one of them scaled": (changed(lambda g, _: [10 * g[0], *g[1:]]), {ONE: times("10")}),
    "averaged again": (changed(lambda g, _: [each / 6 for each in g]), for_all(times("0.1667"))),
    "unscaled, never scaled": (scaled_only_by_hand, for_all(times("0.0009766"))),
    "zeroed": (changed(lambda g, _: [*g[:3], tf.zeros_like(g[3])]), {TWO_BIAS: ZEROS}),
    "negated": (changed(lambda g, _: [-each for each in g]), for_all(OPPOSITE)),
    "one of them negated": (changed(lambda g, _: [-g[0], *g[1:]]), {ONE: OPPOSITE}),
    "in reverse": (
        changed(lambda g, _: [g[2], g[3], g[0], g[1]]),
        {
            ONE: instead(TWO),
            ONE_BIAS: instead(TWO_BIAS),
            TWO: instead(ONE),
            TWO_BIAS: instead(ONE_BIAS),
        },
    ),
    "another's, scaled": (changed(lambda g, _: [g[0], g[1], 3 * g[0], g[3]]), {TWO: instead(ONE)}),
    "transposed": (changed(lambda g, _: [tf.transpose(g[0]), *g[1:]]), {ONE: TRANSPOSED}),
    "rolled": (changed(lambda g, _: [g[0], g[1], tf.roll(g[2], 1, 0), g[3]]), {TWO: REORDERED}),
    "another's added": (
        changed(lambda g, _: [g[0] + g[2], *g[1:]]),
        {ONE: f"The optimizer gets the gradient of {TWO} added to this variable's own."},
    ),
    "given twice": (given_twice, for_all("The optimizer gets this gradient 2 times.")),
    "never given": (never_given, for_all(NOT_RECEIVED)),
    "cut short": (cut_short, {TWO_BIAS: NOT_RECEIVED}),
    "of another loss": (of_another_loss, for_all(NOT_USED)),
    "doubled, without variables": (without_variables, for_all(times("2"))),
    "ascent by hand": (by_hand(lambda g: [-each for each in g]), for_all(OPPOSITE)),
    "swapped by hand": (
        by_hand(lambda g: [g[2], g[1], g[0], g[3]]),
        {ONE: instead(TWO), TWO: instead(ONE)},
    ),
    "one left out by hand": (by_hand(lambda g: [*g[:3], None]), {TWO_BIAS: NOT_RECEIVED}),
}


def notes(report: GradientReport) -> dict[str, str]:
    """What is said of the variables that are misapplied, by path, but for the line."""
    return {v.path: LINE.sub("", v.note) for v in report.variables if v.reason == "misapplied"}


LINE = re.compile(
    r" (Gradients are applied|It is assigned|The tape is asked for gradients) at [^:]+:\d+.*\.$"
)


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_told(name: str) -> None:
    """The note says what the optimizer gets instead, of exactly the variables concerned."""
    step, expected = MISTAKES[name]
    report = checked(stepping(step))
    assert notes(report) == expected, str(report)
    assert report.culprits == ("train_step",)
    for variable in report.variables:
        if variable.path in expected:
            sure = expected[variable.path] not in (NOT_RECEIVED, NOT_USED)
            assert variable.verdict is (Verdict.FAIL if sure else Verdict.SUSPECT), str(report)
        else:
            assert variable.verdict is Verdict.PASS, str(report)
        assert variable.score < report.settings.thresholds.okay


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_need_no_compiled_loss(name: str) -> None:
    """What the optimizer gets is compared with the tape, whatever the model is compiled with."""
    step, expected = MISTAKES[name]
    report = checked(stepping(step, loss=None))
    assert notes(report) == expected, str(report)


def test_a_loss_that_was_never_scaled() -> None:
    """The scale that a LossScaleOptimizer divides by is given, and the remedy."""
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(), initial_scale=512.0)
    report = checked(stepping(changed(lambda g, _: g), optimizer))
    said = (
        "The optimizer divides gradients by its loss scale of 512, but the loss was not scaled by "
        "that. Call optimizer.scale_loss."
    )
    assert notes(report) == for_all(said), str(report)
    assert said.split(".")[-2].strip() in " ".join(str(report).split())


@pytest.mark.parametrize("name", ["doubled", "in reverse", "given twice"])
def test_mistakes_of_eager_steps(name: str) -> None:
    """A step that only runs eagerly is told the same."""
    step, expected = MISTAKES[name]

    def eager(model: Any, x: Any, y: Any) -> Any:
        loss = step(model, x, y)
        assert np.isfinite(loss.numpy())
        return loss

    model = stepping(eager)
    model.compile("sgd", "mse", run_eagerly=True)
    report = checked(model)
    assert notes(report) == expected, str(report)
    assert report.culprits == ("train_step",)


SLICES: dict[str, tuple[Step, dict[str, str]]] = {
    "as they are": (lambda g: g, {}),
    "clipped": (lambda g: tf.clip_by_global_norm(g, 0.1)[0], {}),
    "doubled": (
        lambda g: [tf.IndexedSlices(2 * g[0].values, g[0].indices, g[0].dense_shape), *g[1:]],
        {"net/embedding/embeddings": times("2")},
    ),
    "made dense and negated": (
        lambda g: [-tf.convert_to_tensor(g[0]), *g[1:]],
        {"net/embedding/embeddings": OPPOSITE},
    ),
}


@pytest.mark.parametrize("name", SLICES)
def test_slices(name: str) -> None:
    """Gradients of an embedding, which are slices, are compared as any others."""
    change, expected = SLICES[name]
    model = Stepping(
        [
            keras.Input((4,), dtype="int32"),
            keras.layers.Embedding(7, 3, name="embedding"),
            keras.layers.Flatten(),
            keras.layers.Dense(2, name="after"),
        ],
        name="net",
    )
    model.step = changed(lambda g, _: change(g))
    model.compile("sgd", "mse")
    ids = np.array([[0, 1, 2, 2], [3, 3, 1, 0], [5, 2, 2, 5]], np.int32)
    report = check_gradients(model, ids, np.random.default_rng(5).normal(size=(3, 2)))
    assert notes(report) == expected, str(report)
    assert (report.verdict is Verdict.PASS) == (not expected)


def test_a_declared_step_counts_for_nothing() -> None:
    """Ascent on purpose is declared as the step's, and no longer fails."""
    model = stepping(changed(lambda g, _: [-each for each in g]))
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(6, 3)), rng.normal(size=(6, 3))
    report = check_gradients(model, x, y, expected_mismatch=["train_step"])
    assert {v.reason for v in report.variables} == {"declared"}
    assert report.culprits == ()


def test_nothing_of_the_model_changes() -> None:
    """A check runs the step, its updates by hand included, and leaves the weights alone."""
    for step in (descent_by_hand, sharpness_aware, given_twice):
        model = stepping(step)
        before = [weight.copy() for weight in model.get_weights()]
        checked(model)
        for was, now in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(now, was)
