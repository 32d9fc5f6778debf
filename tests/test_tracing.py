"""Tracing: the step as it trains, dropout silent, every tape heard, and nothing left behind."""

# mypy: allow-subclassing-any

from __future__ import annotations

import contextlib
import queue
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfcheck.trace.tracing
from tfcheck import TfcheckError, Verdict, check_gradients
from tfcheck.errors import BatchError, TraceError
from tfcheck.objective.graph_objective import GraphObjective
from tfcheck.objective.objective import Objective
from tfcheck.objective.point import Base
from tfcheck.trace.batch import Batch, first_batch
from tfcheck.trace.steps import model_step
from tfcheck.trace.tracing import TracedStep

L = keras.layers
RNG = np.random.default_rng(8)
X = RNG.normal(size=(6, 3)).astype("float32")
Y = RNG.normal(size=(6, 2)).astype("float32")
SEQUENCES = RNG.normal(size=(4, 5, 3)).astype("float32")


def compiled(*layers: keras.layers.Layer, shape: tuple[int, ...] = (3,), **how: Any) -> Any:
    """A compiled model of these layers."""
    model = keras.Sequential([keras.Input(shape), *layers], name="net")
    model.compile(**{"optimizer": "sgd", "loss": "mse", **how})
    return model


def trace_step(model: Any, batch: Batch, **options: Any) -> TracedStep:
    """A model's step as a graph."""
    return tfcheck.trace.tracing.trace(model_step(model, **options), batch)


def objective_of(model: keras.Model, *data: Any, **options: Any) -> tuple[Objective, Base]:
    """The traced objective, at the point where the model stands."""
    batch = first_batch(*data)
    objective = GraphObjective(trace_step(model, batch, **options))
    return objective, objective.at(batch)


def loss_of(model: keras.Model, *data: Any, **options: Any) -> float:
    """The one loss of a traced step, in float64; asserts that it is deterministic."""
    objective, base = objective_of(model, *data, **options)
    (loss,) = base.losses
    assert objective.loss(0, base.inputs) == objective.loss(0, base.inputs) == loss
    assert objective.facts.random_ops == ()
    return loss


# -- nothing changes -------------------------------------------------------------------------


class Busy(keras.Model):
    """A model with state of every kind."""

    def __init__(self) -> None:
        super().__init__(name="busy")
        self.first = L.Dense(4, kernel_regularizer="l2", name="first")
        self.norm = L.BatchNormalization(name="norm")
        self.drop = L.Dropout(0.5, name="drop")
        self.noise = L.GaussianNoise(0.1, name="noise")
        self.last = L.Dense(2, activity_regularizer="l1", name="last")
        self.calls = tf.Variable(0.0, trainable=False)
        self.raises = False

    def call(self, x: Any, training: bool = False) -> Any:
        x = self.noise(self.norm(self.first(x), training=training), training=training)
        x = self.drop(x, training=training)
        self.calls.assign_add(1.0)
        self.add_loss(0.1 * keras.ops.mean(x**2))
        if self.raises:
            raise RuntimeError("planted")
        return self.last(x)


def busy() -> Busy:
    """A `Busy` model, compiled and built but never fitted."""
    keras.utils.set_random_seed(4)
    model = Busy()
    model(X)
    model.compile("adam", "mse", metrics=["mae", keras.metrics.RootMeanSquaredError()])
    return model


def held(loss: Any) -> float:
    """The value of a recorded loss; of one that a training left in its graph, its identity."""
    return float(loss) if hasattr(loss, "numpy") else id(loss)


def snapshot(model: Busy) -> dict[str, Any]:
    """All that a trace might change in a model."""
    parts = (model._compile_loss, model._compile_metrics, *model.metrics)
    return {
        "values": [
            np.asarray(v).tolist()
            for v in (*model.variables, model.calls, *model.optimizer.variables)
        ],
        "metrics": [np.asarray(v).tolist() for v in model.metrics_variables],
        "names": [metric.name for metric in model.metrics],
        "losses": [held(loss) for loss in model.losses],
        "attributes": [{k: id(v) for k, v in vars(part).items()} for part in parts],
        "rates": (model.drop.rate, model.noise.stddev),
        "built": (model.built, model.optimizer.built, *(part.built for part in parts[:2])),
        "functions": (model.train_function, model.test_function),
        "trainable": [v.path for v in model.trainable_variables],
    }


OPTIONS: dict[str, dict[str, Any]] = {
    "train": {},
    "inference": {"phase": "inference"},
    "loss_fn": {
        "loss_fn": lambda model, x, y, _w: tf.reduce_mean((model(x, training=True) - y) ** 2)
    },
}


@pytest.mark.parametrize("fitted", [False, True], ids=["never fitted", "fitted"])
def test_nothing_changes(fitted: bool) -> None:
    """Weights, statistics, optimizer, metrics, losses, rates and functions stay as they were."""
    model = busy()
    if fitted:
        model.fit(X, Y, verbose=0)
    before = snapshot(model)
    for kind, options in OPTIONS.items():
        trace_step(model, first_batch(X, Y), **options)
        assert snapshot(model) == before, kind
    objective_of(model, X, Y)
    assert snapshot(model) == before


def test_nothing_changes_when_the_trace_raises() -> None:
    """A step that raises half way leaves everything as it was, too."""
    model = busy()
    before = snapshot(model)
    for kind, options in OPTIONS.items():
        model.raises = True
        with pytest.raises(TfcheckError, match="planted"):
            trace_step(model, first_batch(X, Y), **options)
        model.raises = False
        assert snapshot(model) == before, kind
    assert model.fit(X, Y, verbose=0).history["loss"]


def test_a_snapshot_sees_changes() -> None:
    """One step of training changes what the tests above compare."""
    model = busy()
    before = snapshot(model)
    model.fit(X, Y, verbose=0)
    after = snapshot(model)
    changed = {name for name in before if before[name] != after[name]}
    assert {"values", "metrics", "attributes", "built", "functions"} <= changed


def drawn() -> list[float]:
    """A number from every global source of randomness."""
    return [
        random.random(),
        float(np.random.random()),  # noqa: NPY002 - the global state is what is compared
        float(tf.random.uniform(())),
        float(tf.random.get_global_generator().uniform(())),
        float(keras.random.uniform(())),
    ]


def test_random_states_do_not_change() -> None:
    """Python, NumPy, TensorFlow and Keras draw on as if nothing had been traced."""

    class Gambling(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            shift = random.random() + np.random.random()  # noqa: NPY002
            return x + shift + tf.random.uniform((1,)) + keras.random.uniform((1,))

    def draw_after(trace: bool) -> list[float]:
        keras.utils.set_random_seed(9)
        tf.random.get_global_generator().reset_from_seed(9)
        model = compiled(L.Dense(2), Gambling(), L.Dropout(0.5))
        keras.random.uniform(())
        if trace:
            trace_step(model, first_batch(X, Y))
        return drawn()

    assert draw_after(trace=True) == draw_after(trace=False)


PATCHED: list[tuple[Any, str]] = [
    (tf.GradientTape, "gradient"),
    (keras.Model, "compute_metrics"),
    (keras.Layer, "__call__"),
    (keras.optimizers.Optimizer, "apply"),
    (keras.optimizers.LossScaleOptimizer, "apply"),
    (keras.optimizers.LossScaleOptimizer, "scale_loss"),
    (keras.random, "dropout"),
    (tf.nn, "dropout"),
    (tf.nn.experimental, "stateless_dropout"),
    (tf.nn.experimental, "general_dropout"),
]


@pytest.mark.parametrize("raises", [False, True], ids=["traced", "raised"])
def test_patches_are_undone(raises: bool) -> None:
    """What is listened to during a trace is TensorFlow's and Keras's own again afterwards."""

    def present() -> list[Any]:
        # An attribute that was inherited must be inherited again, so `vars`, not `getattr`.
        return [vars(owner).get(name) for owner, name in PATCHED]

    before = present()
    model = busy()
    model.raises = raises
    during: queue.SimpleQueue[list[Any]] = queue.SimpleQueue()  # no list: that would be put back
    original = model.first.call

    def call(x: Any, **options: Any) -> Any:
        during.put(present())
        return original(x, **options)

    model.first.call = call
    with pytest.raises(TfcheckError) if raises else contextlib.nullcontext():
        trace_step(model, first_batch(X, Y))
    assert all(one is other for one, other in zip(present(), before, strict=True))
    heard = [one is not other for one, other in zip(during.get_nowait(), before, strict=True)]
    assert heard[:4] == [True] * 4


def test_tapes_and_optimizers_work_after_a_trace() -> None:
    """A tape gives gradients and an optimizer applies them, right after a trace."""
    model = compiled(L.Dense(2))
    trace_step(model, first_batch(X, Y))
    kernel = np.asarray(model.layers[0].kernel)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(X))
    gradients = tape.gradient(loss, model.trainable_variables)
    np.testing.assert_allclose(gradients[0], np.sum(X, 0)[:, None] * np.ones((1, 2)), rtol=1e-5)
    model.optimizer.apply(gradients, model.trainable_variables)
    assert not np.array_equal(kernel, np.asarray(model.layers[0].kernel))


# -- dropout ---------------------------------------------------------------------------------


def functional_layer(function: Callable[[Any], Any]) -> keras.layers.Layer:
    """A layer that applies a function."""

    class Applying(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return function(x)

    return Applying()


class Attentive(keras.layers.Layer):
    """Self-attention through a Keras layer with dropout."""

    def __init__(self, attention: keras.layers.Layer, **options: Any) -> None:
        super().__init__()
        self.attention = attention
        self.options = options

    def call(self, x: Any, training: bool = False) -> Any:
        inputs = (x, x) if self.options.get("separate") else ([x, x],)
        return self.attention(*inputs, training=training)


def _recurrent(kind: Any, **options: Any) -> keras.layers.Layer:
    return kind(3, return_sequences=True, **options)


DROPOUTS: dict[str, Callable[[], list[keras.layers.Layer]]] = {
    "layers": lambda: [
        L.Dropout(0.5),
        L.Dropout(0.5, seed=3),
        L.SpatialDropout1D(0.5),
        L.GaussianDropout(0.5),
        L.AlphaDropout(0.5),
        L.TimeDistributed(L.Dropout(0.5)),
        keras.Sequential([L.Dense(3), keras.Sequential([L.Dropout(0.5)])]),
    ],
    "recurrent": lambda: [
        _recurrent(L.LSTM, dropout=0.5, recurrent_dropout=0.5),
        L.Bidirectional(_recurrent(L.SimpleRNN, recurrent_dropout=0.5)),
    ],
    "stacked cells": lambda: [
        L.RNN(
            L.StackedRNNCells([L.GRUCell(3, dropout=0.5), L.SimpleRNNCell(3, dropout=0.5)]),
            return_sequences=True,
        )
    ],
    "attention": lambda: [
        Attentive(L.MultiHeadAttention(2, 3, dropout=0.5), separate=True),
        Attentive(L.GroupQueryAttention(3, 2, 1, dropout=0.5), separate=True),
        Attentive(L.Attention(dropout=0.5)),
        Attentive(L.AdditiveAttention(dropout=0.5)),
    ],
    "keras.random.dropout": lambda: [
        functional_layer(lambda x: keras.random.dropout(x, 0.5, seed=1))
    ],
    "tf.nn.dropout": lambda: [
        functional_layer(lambda x: tf.nn.dropout(x, rate=0.5)),
        functional_layer(lambda x: tf.nn.dropout(x=x, rate=0.5)),
        functional_layer(lambda x: tf.nn.experimental.stateless_dropout(x, 0.5, seed=[1, 2])),
    ],
}


def dropping(kind: str) -> keras.Model:
    """A model with one kind of dropout."""
    keras.utils.set_random_seed(6)
    return compiled(L.Dense(3), *DROPOUTS[kind](), L.Dense(2), shape=(5, 3))


def without_dropout(model: keras.Model, kind: str) -> float:
    """The loss by an eager forward pass without dropout."""
    x: Any = SEQUENCES
    if "." not in kind:
        return float(np.mean(np.square(model(x, training=False))))
    first, *_, last = model.layers  # functions drop in inference, too, and are left out
    return float(np.mean(np.square(last(first(x)))))


@pytest.mark.parametrize("kind", DROPOUTS)
def test_dropout_is_silent(kind: str) -> None:
    """The traced loss is that without dropout, whichever way the model drops."""
    model = dropping(kind)
    loss = loss_of(model, SEQUENCES, np.zeros((4, 5, 2)))
    assert loss == pytest.approx(without_dropout(model, kind), rel=1e-5)


@pytest.mark.parametrize("kind", DROPOUTS)
def test_frozen_dropout_shows_and_stands_still(kind: str) -> None:
    """Frozen, every kind is on, and drops the same at every evaluation of one graph."""
    model = dropping(kind)
    batch = first_batch(SEQUENCES, np.zeros((4, 5, 2)))
    frozen = replace(model_step(model), dropout="frozen")
    objective = GraphObjective(tfcheck.trace.tracing.trace(frozen, batch))
    base = objective.at(batch)
    assert base.losses[0] != pytest.approx(without_dropout(model, kind), rel=1e-3)
    assert objective.loss(0, base.inputs) == objective.loss(0, base.inputs) == base.losses[0]


def test_noise_is_kept() -> None:
    """Noise that is not dropout stays in the loss, the same at every evaluation."""
    keras.utils.set_random_seed(1)
    model = compiled(L.Dense(3), L.GaussianNoise(0.5), L.Dense(2))
    loss = loss_of(model, X, Y)
    silent = float(np.mean(np.square(model(X, training=False) - Y)))
    assert loss != pytest.approx(silent, rel=1e-3)


# -- the loss as trained ---------------------------------------------------------------------


class Penalised(keras.layers.Layer):
    """A layer that adds a loss of its own."""

    def call(self, x: Any) -> Any:
        self.add_loss(0.3 * keras.ops.mean(keras.ops.abs(x)))
        return x


def two_headed() -> keras.Model:
    """A model with two named inputs and outputs, two losses and weights for them."""
    keras.utils.set_random_seed(3)
    left, right = keras.Input((3,), name="left"), keras.Input((2,), name="right")
    joined = L.Concatenate()([L.Dense(3, activation="tanh", name="of_left")(left), right])
    outputs = {
        "mean": L.Dense(2, name="mean")(joined),
        "kind": L.Dense(4, activation="softmax", name="kind")(joined),
    }
    model = keras.Model({"left": left, "right": right}, outputs, name="heads")
    model.compile(
        "sgd",
        {"mean": "mae", "kind": "sparse_categorical_crossentropy"},
        loss_weights={"mean": 0.7, "kind": 2.0},
    )
    return model


TWO_HEADED = (
    {"left": X, "right": X[:, :2].copy()},
    {"mean": Y, "kind": np.array([0, 1, 2, 3, 2, 1])},
)
WEIGHTS = np.array([1.0, 0.0, 3.0, 0.5, 1.0, 2.0], "float32")

AS_EVALUATED: dict[str, Callable[[], tuple[Any, ...]]] = {
    "plain": lambda: (compiled(L.Dense(2)), X, Y),
    "regularised": lambda: (
        compiled(L.Dense(4, kernel_regularizer="l1"), L.Dense(2, bias_regularizer="l2")),
        X,
        Y,
    ),
    "activity": lambda: (compiled(L.Dense(2, activity_regularizer="l2")), X, Y),
    "add_loss": lambda: (compiled(L.Dense(2), Penalised(), L.Dense(2)), X, Y),
    "weighted": lambda: (compiled(L.Dense(2)), X, Y, WEIGHTS),
    "two heads": lambda: (two_headed(), *TWO_HEADED),
    "two heads, weighted": lambda: (
        two_headed(),
        *TWO_HEADED,
        {"mean": WEIGHTS, "kind": WEIGHTS[::-1].copy()},
    ),
    "batch sum": lambda: (
        compiled(L.Dense(2), loss=keras.losses.MeanSquaredError(reduction="sum")),
        X,
        Y,
    ),
    "masked": lambda: (
        compiled(L.Masking(0.0), L.SimpleRNN(3, return_sequences=True), L.Dense(2), shape=(5, 3)),
        SEQUENCES * (np.arange(5) < 3)[None, :, None],
        np.ones((4, 5, 2)),
    ),
}


@pytest.mark.parametrize("kind", AS_EVALUATED)
def test_the_loss_is_the_one_that_is_trained(kind: str) -> None:
    """Regularisers, added losses, sample weights, masks and several outputs are in the loss."""
    keras.utils.set_random_seed(2)
    model, *data = AS_EVALUATED[kind]()
    loss = loss_of(model, *data)
    x, y, *weight = data
    evaluated = model.evaluate(
        x, y, sample_weight=weight[0] if weight else None, batch_size=8, verbose=0, return_dict=True
    )
    assert loss == pytest.approx(evaluated["loss"], rel=2e-6)


def test_phases() -> None:
    """`train` uses the batch's statistics, `inference` the moving ones, also in what is named."""
    keras.utils.set_random_seed(2)
    model = compiled(L.Dense(3), L.BatchNormalization(), L.Dense(2))
    by_phase = {phase: objective_of(model, X, Y, phase=phase) for phase in ("train", "inference")}
    for phase, training in (("train", True), ("inference", False)):
        objective, base = by_phase[phase]
        before = [np.asarray(v) for v in model.non_trainable_variables]
        expected = float(np.mean(np.square(model(X, training=training) - Y)))
        for variable, value in zip(model.non_trainable_variables, before, strict=True):
            variable.assign(value)
        assert base.losses[0] == pytest.approx(expected, rel=1e-5)
        assert objective.facts.source == ("train_step" if training else "compute_loss")
    assert by_phase["train"][1].losses != by_phase["inference"][1].losses


def test_loss_fn() -> None:
    """`loss_fn` gets the model and the batch, and its value is the loss; no compile is needed."""
    model = keras.Sequential([keras.Input((3,)), L.Dense(2)])
    seen: queue.SimpleQueue[Any] = queue.SimpleQueue()  # no list: that would be put back

    def loss_fn(model: keras.Model, x: Any, y: Any, sample_weight: Any) -> Any:
        seen.put((x.shape, y.shape, sample_weight.shape))
        return tf.reduce_sum(sample_weight[:, None] * (model(x) - y) ** 2)

    objective, base = objective_of(model, X, Y, WEIGHTS, loss_fn=loss_fn)
    expected = np.sum(WEIGHTS[:, None] * (np.asarray(model(X)) - Y) ** 2)
    assert base.losses[0] == pytest.approx(float(expected), rel=1e-5)
    assert objective.facts.source == "loss_fn"
    assert seen.get_nowait() == ((6, 3), (6, 2), (6,))
    assert seen.empty()


@pytest.mark.parametrize("result", [None, 3.0, "vector"])
def test_loss_fn_must_return_a_scalar_tensor(result: Any) -> None:
    """A vector, a Python number or nothing at all is refused with a remedy."""
    model = compiled(L.Dense(2))
    loss_fn = lambda m, x, *_: m(x)[:, 0] if result == "vector" else result  # noqa: E731
    with pytest.raises(TraceError, match=r"scalar tensor\. Received: .*Reduce the loss"):
        trace_step(model, first_batch(X, Y), loss_fn=loss_fn)


@pytest.mark.parametrize("targets", [None, Y], ids=["none", "some"])
def test_targets_are_missed_where_there_are_none(targets: Any) -> None:
    """Where they are given and something else is None, nobody is sent to look for them."""

    def loss(_y: Any, _y_pred: Any) -> Any:
        return tf.convert_to_tensor(None)

    with pytest.raises(TfcheckError, match="None") as caught:
        check_gradients(compiled(L.Dense(2), loss=loss), X, targets)
    assert ("targets are missing" in str(caught.value)) == (targets is None)


def test_a_loss_fn_that_raises_is_to_be_called() -> None:
    """What `fit` could train says nothing of a function that it does not know."""

    def loss(*_arguments: Any) -> Any:
        raise RuntimeError("no luck")

    with pytest.raises(TraceError, match=r"no luck\. Call loss_fn\(model") as caught:
        check_gradients(compiled(L.Dense(2)), X, Y, loss_fn=loss)
    assert "fit" not in str(caught.value)


def test_a_batch_that_does_not_fit() -> None:
    """What the model says of the batch is passed on as a `BatchError`."""
    with pytest.raises(BatchError, match=r"^The batch must fit the model\. Received: float32\["):
        trace_step(compiled(L.Dense(2)), first_batch(np.ones((6, 5)), Y))


def test_loss_scaling_is_taken_out() -> None:
    """Under mixed precision the tape sees a scaled loss; losses and norms are reported without."""

    def report_of(policy: str) -> Any:
        keras.utils.set_random_seed(2)
        model = compiled(
            L.Dense(3, activation="tanh", dtype=policy, name="one"),
            L.Dense(2, dtype=policy, name="two"),
            optimizer=keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())
            if policy != "float32"
            else "sgd",
        )
        return check_gradients(model, X, Y)

    scaled, plain = report_of("mixed_float16"), report_of("float32")
    assert scaled.verdict is plain.verdict is Verdict.PASS
    assert scaled.objective.losses[0] == pytest.approx(plain.objective.losses[0], rel=1e-3)
    for one, other in zip(scaled.variables, plain.variables, strict=True):
        assert one.analytic_norm == pytest.approx(other.analytic_norm, rel=1e-2)
        assert one.numerical_norm == pytest.approx(other.numerical_norm, rel=1e-2)


def test_the_scale_is_known() -> None:
    """The scale that Keras begins with is found in the step, not assumed."""
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(), initial_scale=1024.0)
    model = compiled(L.Dense(2, dtype="mixed_float16"), optimizer=scaled)
    _, base = objective_of(model, X, Y)
    assert base.scales == (1024.0,)
    assert base.losses[0] / 1024 == pytest.approx(model.evaluate(X, Y, verbose=0), rel=1e-2)


# -- train steps of one's own ----------------------------------------------------------------


class Vae(keras.Model):
    """A variational autoencoder with a train_step of its own."""

    def __init__(self) -> None:
        super().__init__(name="vae")
        self.encoder = L.Dense(4, name="encoder")
        self.decoder = L.Dense(3, name="decoder")
        self.seeds = keras.random.SeedGenerator(5)

    def call(self, x: Any) -> Any:
        mean, log_variance = keras.ops.split(self.encoder(x), 2, axis=-1)
        noise = keras.random.normal(keras.ops.shape(mean), seed=self.seeds)
        self.add_loss(
            -0.5 * keras.ops.mean(1 + log_variance - mean**2 - keras.ops.exp(log_variance))
        )
        return self.decoder(mean + keras.ops.exp(0.5 * log_variance) * noise)

    def train_step(self, x: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self(x, training=True) - x) ** 2) + sum(self.losses)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return {"loss": loss}


class Gan(keras.Model):
    """Two players, two tapes, two optimizers, and the second player's gradient penalty."""

    def __init__(self) -> None:
        super().__init__(name="gan")
        self.maker = L.Dense(3, name="maker")
        self.judge = keras.Sequential(
            [keras.Input((3,)), L.Dense(4, activation="softplus"), L.Dense(1)], name="judge"
        )
        self.maker_optimizer = keras.optimizers.Adam()

    def call(self, x: Any) -> Any:
        return self.judge(self.maker(x))

    def train_step(self, x: Any) -> Any:
        with tf.GradientTape(persistent=True) as tape:
            made = self.maker(x[:, :2])
            with tf.GradientTape() as inner:
                inner.watch(x)
                real = self.judge(x)
            slopes = inner.gradient(real, x)
            penalty = tf.reduce_mean((tf.norm(slopes, axis=1) - 1) ** 2)
            judge_loss = tf.reduce_mean(self.judge(made)) - tf.reduce_mean(real) + penalty
            maker_loss = -tf.reduce_mean(self.judge(made))
        judged = {v.path: v for v in self.judge.trainable_variables}
        found = tape.gradient(judge_loss, judged)
        self.optimizer.apply(list(found.values()), list(judged.values()))
        made_by = self.maker.trainable_variables
        self.maker_optimizer.apply(tape.gradient(maker_loss, made_by), made_by)
        return {"judge": judge_loss, "maker": maker_loss}


class Decorated(keras.Model):
    """A train_step under tf.function."""

    def __init__(self) -> None:
        super().__init__(name="decorated")
        self.dense = L.Dense(2, name="dense")

    def call(self, x: Any) -> Any:
        return self.dense(x)

    @tf.function
    def train_step(self, batch: Any) -> Any:
        x, y = batch
        with tf.GradientTape() as tape:
            loss = self.compute_loss(y=y, y_pred=self(x, training=True))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        return {"loss": loss}


def own_step(kind: type[keras.Model], x: Any, **how: Any) -> keras.Model:
    """A built and compiled model of a class."""
    keras.utils.set_random_seed(3)
    model = kind()
    model(x)
    model.compile("sgd", **how)
    return model


def test_vae() -> None:
    """A VAE's own train_step is checked as it is, its sampling held fixed."""
    model = own_step(Vae, X)
    report = check_gradients(model, X)
    assert report.verdict is Verdict.PASS, str(report)
    assert {v.layer for v in report.variables} == {"vae/encoder", "vae/decoder"}
    assert report.objective.random_ops == ()


def test_gan() -> None:
    """Each player is checked against its own loss, a penalty on input gradients included."""
    model = own_step(Gan, X[:, :2])
    objective, base = objective_of(model, X)
    assert objective.loss_count == len(base.losses) == 2
    assert [p.loss for p in objective.parameters] == [0, 0, 0, 0, 1, 1]
    report = check_gradients(model, X)
    assert report.verdict is Verdict.PASS, str(report)
    assert len(report.objective.losses) == 2
    assert sorted(v.path for v in report.variables) == sorted(
        v.path for v in model.trainable_variables
    )


def test_train_step_under_tf_function() -> None:
    """A decorated train_step is traced like a plain one."""
    model = own_step(Decorated, X, loss="mse")
    assert loss_of(model, X, Y) == pytest.approx(model.evaluate(X, Y, verbose=0), rel=1e-6)


def test_optimizers_of_ones_own_apply_nothing() -> None:
    """An optimizer that overrides `apply` is heard, and not run, as well."""
    applied: list[Any] = []

    class Own(keras.optimizers.SGD):
        def apply(self, grads: Any, trainable_variables: Any = None) -> None:
            applied.append(grads)
            super().apply(grads, trainable_variables)

    model = compiled(L.Dense(2), optimizer=Own(0.1))
    traced = trace_step(model, first_batch(X, Y))
    heard = [applied.variable for applied in traced.recording.applied]
    assert all(one is other for one, other in zip(heard, model.trainable_variables, strict=True))
    assert applied == []


def test_a_step_without_a_tape_is_refused() -> None:
    """A train_step that differentiates nothing cannot be checked, and says so."""

    class Tapeless(keras.Sequential):
        def train_step(self, batch: Any) -> Any:
            return {"loss": tf.reduce_mean(self(batch[0]))}

    model = Tapeless([keras.Input((3,)), L.Dense(2)])
    model.compile("sgd")
    with pytest.raises(TraceError, match="no tape differentiates a variable"):
        trace_step(model, first_batch(X, Y))


def test_a_tape_in_a_nested_function_is_heard() -> None:
    """A tape inside an inner tf.function is checked as if the function were written out."""

    class Nested(keras.Sequential):
        def train_step(self, batch: Any) -> Any:
            @tf.function
            def inner(x: Any) -> Any:
                with tf.GradientTape() as tape:
                    loss = tf.reduce_mean(self(x) ** 2)
                return tape.gradient(loss, self.trainable_variables)

            self.optimizer.apply(inner(batch[0]), self.trainable_variables)
            return {}

    model = Nested([keras.Input((3,)), L.Dense(2)])
    model.compile("sgd")
    report = check_gradients(model, X, Y)
    assert report.verdict == "pass"
    assert len(report.variables) == 2
    assert not tf.config.functions_run_eagerly()


def test_grouped_convolutions() -> None:
    """Their backward pass has no plain kernel on a CPU, and is checked all the same."""
    model = keras.Sequential(
        [keras.Input((6, 6, 4)), L.Conv2D(8, 3, groups=2), L.Flatten(), L.Dense(2)]
    )
    model.compile("sgd", "mse")
    rng = np.random.default_rng(0)
    report = check_gradients(model, rng.normal(size=(3, 6, 6, 4)), rng.normal(size=(3, 2)))
    assert report.verdict == "pass"
    assert report.score < 1e-7


def test_frozen_variables_are_not_differentiated() -> None:
    """A variable that training leaves alone is no parameter of the objective."""
    model = compiled(L.Dense(3, trainable=False, name="frozen"), L.Dense(2, name="live"))
    objective, _ = objective_of(model, X, Y)
    assert [p.path for p in objective.parameters] == ["net/live/kernel", "net/live/bias"]
