"""What a step trains against the compiled loss: what is missing is told with its size."""

# mypy: allow-subclassing-any

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcheck import GradientReport, Verdict, check_gradients

Step = Callable[..., Any]

WEIGHTS = np.linspace(0.2, 3.0, 6)
"""Sample weights of the batch."""


class Stepping(keras.Model):
    """A model whose train_step trains `loss(model, x, y, y_pred, sample_weight)`.

    What it hands to the optimizer are the gradients divided by `scale`.
    """

    loss_of: Step
    scale = 1.0

    def train_step(self, batch: Any) -> Any:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        with tf.GradientTape() as tape:
            loss = self.loss_of(self, x, y, self(x, training=True), sample_weight)
        variables = self.trainable_variables
        gradients = [each / self.scale for each in tape.gradient(loss, variables)]
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return {"loss": loss}


class Own(Stepping):
    """A model whose `compute_loss` is not what it is compiled with."""

    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, *_: Any) -> Any:
        return 3 * error(y, y_pred) + 0.1 * tf.reduce_mean(tf.abs(y_pred))


class Activity(keras.layers.Layer):
    """A layer that adds a loss of its own."""

    def call(self, x: Any) -> Any:
        self.add_loss(0.3 * tf.reduce_mean(x**2))
        return x


def stepping(
    trained: Step,
    kind: type[Stepping] = Stepping,
    *,
    penalty: float = 0.0,
    activity: bool = False,
    outputs: int = 1,
    **compiled: Any,
) -> Any:
    """A `Stepping` model of the layers `one` and `two` (and `three`), compiled with mse.

    Args:
        trained: the loss of the step.
        kind: the class of the model. Defaults to `Stepping`.
        penalty: factor of the L2 regularisation of the kernels.
        activity: whether a layer between the two adds a loss.
        outputs: how many outputs of three there are.
        compiled: arguments of `compile`.
    """
    penalised = {"kernel_regularizer": keras.regularizers.L2(penalty)} if penalty else {}
    inputs = keras.Input((3,))
    hidden = keras.layers.Dense(4, activation="tanh", name="one", **penalised)(inputs)
    if activity:
        hidden = Activity()(hidden)
    heads = [
        keras.layers.Dense(3, name=name, **penalised)(hidden)
        for name in ("two", "three", "four")[:outputs]
    ]
    model = kind(inputs, heads if outputs > 1 else heads[0], name="net")
    model.loss_of = trained
    model.compile(**{"optimizer": "sgd", "loss": ["mse"] * outputs, **compiled})
    return model


def batch(outputs: int = 1) -> tuple[Any, Any]:
    """Inputs and targets of six samples."""
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(6, 3)), [rng.normal(size=(6, 3)) for _ in range(outputs)]
    return x, y if outputs > 1 else y[0]


def checked(model: Any, sample_weight: Any = None) -> GradientReport:
    """Check on the batch."""
    x, y = batch(len(model.outputs))
    return check_gradients(model, x, y, sample_weight)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same model every time."""
    keras.utils.set_random_seed(11)


def error(y: Any, y_pred: Any) -> Any:
    """The mean squared error, by hand."""
    return tf.reduce_mean((y_pred - y) ** 2)


def compiled(model: Any, x: Any, y: Any, y_pred: Any, sample_weight: Any) -> Any:
    """The compiled loss."""
    return model.compute_loss(x, y, y_pred, sample_weight)


def notes(report: GradientReport) -> dict[str, str]:
    """What is said of the variables that another loss is trained for, by path, but for the line."""
    return {
        v.path: v.note.partition(" The tape is asked for gradients at ")[0]
        for v in report.variables
        if v.reason == "other_loss"
    }


def require(report: GradientReport, said: str, *layers: str, kernels: bool = False) -> None:
    """Fail unless exactly the variables of these layers are suspect, for what is said."""
    parts = ("kernel",) if kernels else ("kernel", "bias")
    expected = {f"{layer}/{part}": f"The tape's loss {said}." for layer in layers for part in parts}
    assert notes(report) == expected, str(report)
    assert report.verdict is Verdict.SUSPECT, str(report)
    assert report.culprits == ("train_step",)
    for variable in report.variables:
        verdict = Verdict.SUSPECT if variable.path in expected else Verdict.PASS
        assert variable.verdict is verdict, str(report)
        assert variable.score < report.settings.thresholds.concerning


def penalties(model: Any) -> float:
    """The L2 penalties of the kernels, by hand."""
    return sum(
        float(layer.kernel_regularizer.l2) * float(np.sum(np.float64(layer.kernel.numpy()) ** 2))
        for layer in model.layers
        if isinstance(layer, keras.layers.Dense)
    )


def activity_of(model: Any) -> float:
    """What `Activity` adds, by hand."""
    x, _ = batch()
    one = model.get_layer("one")
    return 0.3 * float(np.mean(np.tanh(x @ one.kernel.numpy() + one.bias.numpy()) ** 2))


# -- right -----------------------------------------------------------------------------------


def with_a_variable(loss: Step, **how: Any) -> Any:
    """A model with a schedule `beta`, which each step moves on."""

    def step(model: Any, *batch: Any) -> Any:
        value = loss(model, model.beta, *batch)
        model.beta.assign(tf.minimum(1.0, model.beta + 0.1))
        return value

    model = stepping(step, **how)
    model.beta = model.add_weight(
        shape=(), initializer=keras.initializers.Constant(0.3), trainable=False, name="beta"
    )
    return model


def scaled_back(loss: Step, **how: Any) -> Any:
    """A model whose step divides its gradients by 1024."""
    model = stepping(loss, **how)
    model.scale = 1024.0
    return model


RIGHT: dict[str, Callable[[], Any]] = {
    "compute_loss as it is": lambda: stepping(compiled, penalty=0.05, activity=True),
    "by hand, with its penalties": lambda: stepping(
        lambda model, x, y, p, w: error(y, p) + tf.add_n(model.losses), penalty=0.05, activity=True
    ),
    "no compiled loss": lambda: stepping(
        lambda model, x, y, p, w: 3 * error(y, p), penalty=0.05, loss=None
    ),
    "no penalties to forget": lambda: stepping(lambda model, x, y, p, w: error(y, p)),
    "another loss": lambda: stepping(lambda model, x, y, p, w: tf.reduce_mean(tf.abs(p - y))),
    "another loss, with its penalties": lambda: stepping(
        lambda model, x, y, p, w: (
            tf.reduce_mean(tf.math.log(tf.cosh(p - y))) + tf.add_n(model.losses)
        ),
        penalty=0.05,
    ),
    "an auxiliary loss": lambda: stepping(
        lambda model, x, y, p, w: (
            compiled(model, x, y, p, w) + 0.1 * error(p, model(x + 0.1, training=True))
        ),
        penalty=0.05,
    ),
    "an auxiliary penalty": lambda: stepping(
        lambda model, x, y, p, w: compiled(model, x, y, p, w) + 0.05 * tf.reduce_mean(p**2)
    ),
    "weight decay by hand": lambda: stepping(
        lambda model, x, y, p, w: (
            compiled(model, x, y, p, w)
            + 0.01 * tf.add_n([tf.nn.l2_loss(v) for v in model.trainable_variables])
        )
    ),
    "other targets": lambda: stepping(lambda model, x, y, p, w: error(x, p)),
    "hard samples alone": lambda: stepping(
        lambda model, x, y, p, w: tf.reduce_mean(
            tf.math.top_k(tf.reduce_mean((p - y) ** 2, 1), 3).values
        )
    ),
    "half of the batch": lambda: stepping(lambda model, x, y, p, w: error(y[:3], p[:3])),
    "annealed": lambda: with_a_variable(
        lambda model, beta, x, y, p, w: error(y, p) + beta * sum(model.losses), activity=True
    ),
    "scheduled": lambda: with_a_variable(lambda model, beta, x, y, p, w: beta * error(y, p)),
    "outputs balanced by a variable": lambda: with_a_variable(
        lambda model, beta, x, y, p, w: beta * error(y[0], p[0]) + (2 - beta) * error(y[1], p[1]),
        outputs=2,
    ),
    "outputs weighted as compiled": lambda: stepping(
        lambda model, x, y, p, w: error(y[0], p[0]) + 0.2 * error(y[1], p[1]),
        outputs=2,
        loss_weights=[1.0, 0.2],
    ),
    "scale undone": lambda: scaled_back(
        lambda *batch: 1024.0 * compiled(*batch), penalty=0.05, activity=True
    ),
    "compute_loss of one's own": lambda: stepping(compiled, Own),
}


@pytest.mark.parametrize("name", RIGHT)
def test_the_loss_is_the_step_s_choice(name: str) -> None:
    """A loss that is the compiled one, or clearly another one, is no bug."""
    report = checked(RIGHT[name]())
    assert report.verdict is Verdict.PASS, str(report)
    assert report.culprits == ()
    assert notes(report) == {}


WEIGHTED: dict[str, Step] = {
    "compiled": compiled,
    "by a loss object": lambda model, x, y, p, w: keras.losses.MeanSquaredError()(y, p, w),
    "by hand": lambda model, x, y, p, w: tf.reduce_mean(w * tf.reduce_mean((p - y) ** 2, 1)),
    "their mean": lambda model, x, y, p, w: (
        tf.reduce_sum(w * tf.reduce_mean((p - y) ** 2, 1)) / tf.reduce_sum(w)
    ),
}


@pytest.mark.parametrize("name", WEIGHTED)
def test_sample_weights_may_be_normalised(name: str) -> None:
    """Keras divides by the number of samples, others by the sum of the weights: both pass."""
    report = checked(stepping(WEIGHTED[name]), WEIGHTS)
    assert report.verdict is Verdict.PASS, str(report)


# -- forgotten and counted twice -------------------------------------------------------------


@pytest.mark.parametrize("penalty", [0.05, 1e-3, 1e-5])
def test_forgotten_penalties(penalty: float) -> None:
    """The regularisation that is missing is told with its size, for the kernels it is of."""
    model = stepping(lambda model, x, y, p, w: error(y, p), penalty=penalty)
    lost = f"lacks {penalties(model):.4g} of regularisation losses"
    require(checked(model), lost, "one", "two", kernels=True)


@pytest.mark.parametrize(
    "how",
    [{"optimizer": "adam"}, {"jit_compile": True}, {"run_eagerly": True}],
    ids=["adam", "xla", "eager"],
)
def test_penalties_forgotten_anyhow(how: dict[str, Any]) -> None:
    """However the model is compiled, what is lacking is the same."""

    def trained(model: Any, x: Any, y: Any, y_pred: Any, _: Any) -> Any:
        loss = error(y, y_pred)
        if "run_eagerly" in how:
            assert np.isfinite(loss.numpy())  # no graph can do this
        return loss

    model = stepping(trained, penalty=0.05, **how)
    lost = f"lacks {penalties(model):.4g} of regularisation losses"
    require(checked(model), lost, "one", "two", kernels=True)


class Clipping(Stepping):
    """A model whose step clips its gradients."""

    def train_step(self, batch: Any) -> Any:
        x, y = batch
        with tf.GradientTape() as tape:
            loss = error(y, self(x, training=True))
        variables = self.trainable_variables
        clipped, _ = tf.clip_by_global_norm(tape.gradient(loss, variables), 0.05)
        self.optimizer.apply(clipped, variables)
        return {"loss": loss}


def test_penalties_forgotten_before_clipping() -> None:
    """Clipped gradients hide nothing: the tape's are compared, too."""
    model = stepping(lambda *_: None, Clipping, penalty=0.05)
    lost = f"lacks {penalties(model):.4g} of regularisation losses"
    require(checked(model), lost, "one", "two", kernels=True)


MIDDLE: dict[str, Callable[[], keras.layers.Layer]] = {
    "dropout": lambda: keras.layers.Dropout(0.5, seed=3),
    "batch normalisation": keras.layers.BatchNormalization,
    "half precision": lambda: keras.layers.Dense(8, name="half", dtype="mixed_float16"),
}


@pytest.mark.parametrize("name", MIDDLE)
def test_penalties_forgotten_around(name: str) -> None:
    """Layers that draw random numbers, use the batch or round do not blur what is lacking."""
    inputs = keras.Input((3,))
    penalised = {"kernel_regularizer": keras.regularizers.L2(0.05)}
    hidden = keras.layers.Dense(8, activation="tanh", name="one", **penalised)(inputs)
    outputs = keras.layers.Dense(3, name="two", **penalised)(MIDDLE[name]()(hidden))
    model = Stepping(inputs, outputs, name="net")
    model.loss_of = lambda _model, x, y, p, w: error(y, p)
    model.compile("sgd", "mse")
    sizes = [0.05 * float(np.sum(model.get_layer(n).kernel.numpy() ** 2)) for n in ("one", "two")]
    said = f"The tape's loss lacks {sum(sizes):.4g} of regularisation losses."
    assert notes(checked(model)) == {"one/kernel": said, "two/kernel": said}


def test_penalties_counted_twice() -> None:
    """`compute_loss` has the penalties already; once more is told as two times."""
    model = stepping(
        lambda model, *batch: compiled(model, *batch) + tf.add_n(model.losses), penalty=0.05
    )
    twice = f"counts {penalties(model):.4g} of regularisation losses 2 times"
    require(checked(model), twice, "one", "two", kernels=True)


def test_penalties_divided_by_the_batch() -> None:
    """Penalties averaged over the samples are told with the factor that is left of them."""
    model = stepping(
        lambda model, x, y, p, w: error(y, p) + tf.add_n(model.losses) / 6, penalty=0.05
    )
    sixth = f"counts {penalties(model):.4g} of regularisation losses 0.1667 times"
    require(checked(model), sixth, "one", "two", kernels=True)


def test_forgotten_losses_of_layers() -> None:
    """What layers add with add_loss is told apart from regularisation."""
    model = stepping(lambda model, x, y, p, w: error(y, p), activity=True)
    require(checked(model), f"lacks {activity_of(model):.4g} of losses that layers add", "one")


def test_losses_of_layers_counted_twice() -> None:
    """A step from Keras 2 adds them to a `compute_loss` that has them already."""
    model = stepping(
        lambda model, *batch: compiled(model, *batch) + sum(model.losses), activity=True
    )
    twice = f"counts {activity_of(model):.4g} of losses that layers add 2 times"
    require(checked(model), twice, "one")


def test_both_forgotten() -> None:
    """Penalties and added losses, each with its size, in one sentence."""
    model = stepping(lambda model, x, y, p, w: error(y, p), penalty=0.05, activity=True)
    said = (
        f"The tape's loss lacks {penalties(model):.4g} of regularisation losses and lacks "
        f"{activity_of(model):.4g} of losses that layers add."
    )
    report = checked(model)
    told = {"one/kernel", "one/bias", "two/kernel"}
    assert notes(report) == dict.fromkeys(told, said), str(report)


FACTORS: Mapping[str, tuple[Step, str]] = {
    "doubled": (lambda *batch: 2 * compiled(*batch), "2"),
    "added by hand once more": (
        lambda model, x, y, p, w: compiled(model, x, y, p, w) + error(y, p),
        "2",
    ),
    "averaged twice": (
        lambda *batch: compiled(*batch) / tf.cast(tf.shape(batch[1])[0], tf.float32),
        "0.1667",
    ),
    "summed": (lambda model, x, y, p, w: tf.reduce_sum((p - y) ** 2), "18"),
    "not reduced": (lambda model, x, y, p, w: keras.losses.mean_squared_error(y, p), "6"),
    "scale never undone": (lambda *batch: 1024.0 * compiled(*batch), "1024"),
}


@pytest.mark.parametrize("name", FACTORS)
def test_a_factor_of_the_loss(name: str) -> None:
    """A loss that is a multiple of the compiled one is told with the factor."""
    loss, times = FACTORS[name]
    said = f"is {times} times the one that the model is compiled with"
    require(checked(stepping(loss)), said, "one", "two")


def test_a_factor_and_forgotten_penalties() -> None:
    """A sum without its penalties departs twice, and both are told."""
    model = stepping(lambda model, x, y, p, w: tf.reduce_sum((p - y) ** 2), penalty=0.05)
    said = (
        "is 18 times the one that the model is compiled with and "
        f"lacks {penalties(model):.4g} of regularisation losses"
    )
    require(checked(model), said, "one", "two")


def test_penalties_that_keep_the_factor() -> None:
    """Where data and penalties are doubled alike, only the factor is told."""
    model = stepping(lambda *batch: 2 * compiled(*batch), penalty=0.05)
    require(checked(model), "is 2 times the one that the model is compiled with", "one", "two")


# -- ignored ---------------------------------------------------------------------------------


def test_ignored_sample_weights() -> None:
    """A loss that would be the compiled one without sample weights ignores them."""
    model = stepping(lambda model, x, y, p, w: error(y, p))
    require(checked(model, WEIGHTS), "ignores the sample weights", "one", "two")


@pytest.mark.parametrize(
    "sample_weight", [np.full(6, 2.0), np.array([1.0, 1.0, 1.0, 1.0, 0.0, 0.0])]
)
def test_a_weighted_mean_is_no_factor(sample_weight: Any) -> None:
    """Weights that are all alike, or mark what is padded, may be divided by their sum."""
    report = checked(stepping(WEIGHTED["their mean"]), sample_weight)
    assert report.verdict is Verdict.PASS, str(report)


def test_weights_that_are_all_one_cannot_be_ignored() -> None:
    """Where the weights change nothing, nothing is said."""
    report = checked(stepping(lambda model, x, y, p, w: error(y, p)), np.ones(6))
    assert report.verdict is Verdict.PASS, str(report)


def test_ignored_sample_weights_and_forgotten_penalties() -> None:
    """Both are told together."""
    model = stepping(lambda model, x, y, p, w: error(y, p), penalty=0.05)
    said = f"ignores the sample weights and lacks {penalties(model):.4g} of regularisation losses"
    require(checked(model, WEIGHTS), said, "one", "two")


def masked(loss: Step) -> Any:
    """A model of sequences, of which a mask leaves out some steps."""
    inputs = keras.Input((5, 3))
    hidden = keras.layers.Masking()(inputs)
    hidden = keras.layers.SimpleRNN(4, return_sequences=True, name="one")(hidden)
    model = Stepping(inputs, keras.layers.Dense(1, name="two")(hidden), name="net")
    model.loss_of = loss
    model.compile("sgd", "mse")
    return model


STEPS = np.linspace(0.2, 3.0, 30).reshape(6, 5)
"""Weights of the steps of sequences."""


def padded() -> tuple[Any, Any]:
    """Six sequences, the first three of which are padded."""
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(6, 5, 3)), rng.normal(size=(6, 5, 1))
    x[:3, 3:] = 0.0
    return x, y


@pytest.mark.parametrize(
    ("loss", "sample_weight", "ignored"),
    [
        (lambda model, x, y, p, w: error(y, p), None, "the mask"),
        (lambda model, x, y, p, w: error(y, p), STEPS, "the sample weights and the mask"),
        (lambda model, x, y, p, w: compiled(model, x, y, p, None), STEPS, "the sample weights"),
        (
            lambda model, x, y, p, w: tf.reduce_mean(w * tf.reduce_mean((p - y) ** 2, 2)),
            STEPS,
            "the mask",
        ),
    ],
    ids=["mask", "both", "weights", "mask but not the weights"],
)
def test_ignored_mask(loss: Step, sample_weight: Any, ignored: str) -> None:
    """Padded steps that count, sample weights that do not, or both: it is told which."""
    report = check_gradients(masked(loss), *padded(), sample_weight)
    told = {v.path: f"The tape's loss ignores {ignored}." for v in report.variables}
    assert notes(report) == told, str(report)


@pytest.mark.parametrize("sample_weight", [None, STEPS], ids=["plain", "weighted"])
def test_a_mask_that_is_heeded(sample_weight: Any) -> None:
    """A loss object takes the mask into account as the compiled loss does."""
    model = masked(lambda model, x, y, p, w: keras.losses.MeanSquaredError()(y, p, w))
    report = check_gradients(model, *padded(), sample_weight)
    assert report.verdict is Verdict.PASS, str(report)


def test_ignored_weights_of_three_outputs() -> None:
    """Only the variables of the outputs that count otherwise are suspect."""
    model = stepping(
        lambda model, x, y, p, w: tf.add_n([error(a, b) for a, b in zip(y, p, strict=True)]),
        outputs=3,
        loss_weights=[1.0, 0.5, 2.0],
    )
    said = "counts its outputs 1, 2, 0.5 times as much as the compiled loss"
    require(checked(model), said, "one", "three", "four")


def test_ignored_loss_weights() -> None:
    """Outputs that count otherwise than compiled are told in their order."""
    model = stepping(
        lambda model, x, y, p, w: error(y[0], p[0]) + error(y[1], p[1]),
        outputs=2,
        loss_weights=[1.0, 0.2],
    )
    said = "counts its outputs 1, 5 times as much as the compiled loss"
    require(checked(model), said, "one", "three")


def test_a_departure_is_declared() -> None:
    """A step that leaves the penalties out on purpose says so."""
    model = stepping(lambda model, x, y, p, w: error(y, p), penalty=0.05)
    report = check_gradients(model, *batch(), expected_mismatch=["train_step"])
    assert report.verdict is Verdict.PASS, str(report)
    assert notes(report) == {}
    assert {v.path for v in report.variables if v.reason == "declared"} == {
        "one/kernel",
        "two/kernel",
    }
    assert report.culprits == ()
