"""A check changes nothing: of models as real scripts have them, in any thread, after any error."""

# mypy: allow-subclassing-any

from __future__ import annotations

import collections
import itertools
import random
import threading
import warnings
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from fingerprint import nothing_changes

import tfcheck
from tfcheck.callbacks import GradientCheck
from tfcheck.errors import BatchError, TfcheckError

L = keras.layers
X = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
Y = X[:, :1] * 2
QUIET: dict[str, Any] = {"tracking": None, "verbose": 0, "directions": 1}
STEPS_SEEN = 0
MEMORY: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def same_weights() -> None:
    """Seed what layers draw their initial weights from."""
    keras.utils.set_random_seed(3)


# -- models as real scripts have them ----------------------------------------------------------


class Parts(keras.Model):
    """Models in a list, layers in a dict, of which `fit` builds what is not built yet."""

    def __init__(self) -> None:
        super().__init__()
        inputs = keras.Input((3,))
        self.parts = [keras.Model(inputs, L.Dense(3)(inputs)) for _ in range(2)]
        self.named = {"last": L.Dense(1), "unused": L.Dense(2)}

    def call(self, x: Any) -> Any:
        for part in self.parts:
            x = part(x)
        return self.named["last"](x)


class Stepping(keras.Model):
    """A model with a step of its own, which calls a part of it and never the whole."""

    def __init__(self) -> None:
        super().__init__()
        inputs = keras.Input((3,))
        self.network = keras.Model(inputs, L.Dense(1)(L.Dropout(0.3, seed=4)(L.Dense(4)(inputs))))

    def call(self, x: Any) -> Any:
        return self.network(x)

    def loss_of(self, x: Any, y: Any) -> Any:
        return tf.reduce_mean((self.network(x, training=True) - y) ** 2)

    def train_step(self, data: Any) -> Any:
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.loss_of(x, y)
        self.stepped(x, loss)
        gradients = tape.gradient(loss, self.network.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.network.trainable_weights, strict=True))
        return {"loss": loss}

    def stepped(self, x: Any, loss: Any) -> None:
        """What a step does besides."""


class Diffusing(Stepping):
    """Noise from Keras's global generator, an EMA copy, and a loss that was compiled."""

    def __init__(self) -> None:
        super().__init__()
        self.ema = keras.models.clone_model(self.network)

    def loss_of(self, x: Any, y: Any) -> Any:
        noise = keras.random.normal((8, 3))
        return self.compute_loss(y=y, y_pred=self.network(x + noise, training=True))

    def stepped(self, x: Any, loss: Any) -> None:
        for mine, copy in zip(self.network.weights, self.ema.weights, strict=True):
            copy.assign(0.99 * copy + 0.01 * mine)


class Counting(Stepping):
    """Counters in Python, wherever code can keep them."""

    of_class = 0
    seen: list[int] = []  # noqa: RUF012 - shared by all, as in scripts

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.log: list[Any] = []
        self.plain = SimpleNamespace(items=[], by_name={}, latest=None)
        self.recent: collections.deque[int] = collections.deque(maxlen=3)
        self.table = np.zeros(4)
        self.generator = np.random.default_rng(1)
        self.dice = random.Random(2)
        self.closed = counter()
        self.numbers = itertools.count(1)

    def stepped(self, x: Any, loss: Any) -> None:
        global STEPS_SEEN  # noqa: PLW0603 - as in scripts
        STEPS_SEEN += 1
        MEMORY["latest"] = x
        self.count += 1
        Counting.of_class += 1
        self.seen.append(self.count)
        self.log.append(loss)
        self.plain.items = [x[:1], *self.plain.items]
        self.plain.by_name["loss"] = loss
        self.plain.latest = loss
        self.recent.append(self.count)
        self.table[self.count % 4] += self.generator.random() + self.dice.random()
        self.closed()
        next(self.numbers)
        random.random()
        np.random.random()  # noqa: NPY002 - the global one is meant


def counter() -> Callable[[], int]:
    """A function that counts its calls."""
    count = 0

    def counted() -> int:
        nonlocal count
        count += 1
        return count

    return counted


class Replaying(Stepping):
    """A replay buffer in a plain object, of the tensors of earlier steps."""

    def __init__(self) -> None:
        super().__init__()
        self.buffer = SimpleNamespace(items=[])

    def loss_of(self, x: Any, y: Any) -> Any:
        self.buffer.items = [x[:1], *self.buffer.items][:3]
        replayed = tf.concat(self.buffer.items, axis=0)
        return super().loss_of(x, y) + tf.reduce_mean(self.network(replayed) ** 2)


class Queueing(Stepping):
    """A queue of features and a momentum encoder, in variables."""

    def __init__(self) -> None:
        super().__init__()
        self.momentum = keras.models.clone_model(self.network)
        self.queue = tf.Variable(tf.ones((4, 1)), trainable=False)

    def stepped(self, x: Any, loss: Any) -> None:
        keys = self.momentum(x)
        self.queue.assign(tf.concat([keys, self.queue], axis=0)[:4])
        for mine, slow in zip(self.network.weights, self.momentum.weights, strict=True):
            slow.assign(0.9 * slow + 0.1 * mine)


class TwoPlayers(keras.Model):
    """Two optimizers and two tapes."""

    def __init__(self) -> None:
        super().__init__()
        self.maker = keras.Sequential([keras.Input((2,)), L.Dense(3)])
        self.judge = keras.Sequential([keras.Input((3,)), L.Dense(1)])
        self.seeds = keras.random.SeedGenerator(5)

    def compile(self) -> None:
        super().compile()
        self.optimizers = {
            "maker": keras.optimizers.Adam(0.01),
            "judge": keras.optimizers.SGD(0.01),
        }

    def train_step(self, data: Any) -> Any:
        x, _ = data
        noise = keras.random.normal((8, 2), seed=self.seeds)
        with tf.GradientTape() as tape:
            gap = tf.reduce_mean(self.judge(self.maker(noise))) - tf.reduce_mean(self.judge(x))
            loss = gap + 0.1 * tf.reduce_mean(self.judge(x) ** 2)
        mine = tape.gradient(loss, self.judge.trainable_weights)
        self.optimizers["judge"].apply_gradients(
            zip(mine, self.judge.trainable_weights, strict=True)
        )
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(self.judge(self.maker(noise)))
        mine = tape.gradient(loss, self.maker.trainable_weights)
        self.optimizers["maker"].apply_gradients(
            zip(mine, self.maker.trainable_weights, strict=True)
        )
        return {"loss": loss}


class Functions(Stepping):
    """A part under `@tf.function`, which makes its state at its first call, and a helper."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Any = None

    @tf.function
    def noted(self, loss: Any) -> Any:
        if self.calls is None:
            self.calls = tf.Variable(0.0, trainable=False)
        self.calls.assign_add(1.0)
        return loss + 0.0 * self.calls

    def loss_of(self, x: Any, y: Any) -> Any:
        return self.noted(super().loss_of(x, y))


def compiled(model: keras.Model, *, built: bool = True, **how: Any) -> keras.Model:
    """The model, compiled; called once, or left for `fit` to build."""
    model.compile(**{"optimizer": "adam", "loss": "mse", **how})
    if built:
        model(X)
    return model


def two_players() -> keras.Model:
    """A model that compiles itself."""
    model = TwoPlayers()
    model.compile()
    return model


MODELS: dict[str, Callable[[], keras.Model]] = {
    "parts": lambda: compiled(Parts(), optimizer="sgd"),
    "parts that fit builds": lambda: compiled(Parts(), built=False),
    "a step that never calls the model": lambda: compiled(Stepping(), built=False),
    "diffusion": lambda: compiled(Diffusing(), built=False),
    "counters": lambda: compiled(Counting()),
    "counters, eagerly": lambda: compiled(Counting(), run_eagerly=True),
    "replay": lambda: compiled(Replaying(), run_eagerly=True),
    "queue and momentum": lambda: compiled(Queueing()),
    "queue and momentum, eagerly": lambda: compiled(Queueing(), run_eagerly=True),
    "two players": two_players,
    "functions": lambda: compiled(Functions()),
    "XLA": lambda: compiled(Stepping(), jit_compile=True),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_check_changes_nothing(name: str) -> None:
    """All that the model reaches and all of the process is what it was, lazily made or not."""
    model = MODELS[name]()
    checks: list[str] = []
    for _ in range(2):
        with nothing_changes(model):
            try:
                checks.append(str(tfcheck.check_gradients(model, X, Y, verbose=0).verdict))
            except TfcheckError as error:
                checks.append(str(error))
        model.fit(X, Y, verbose=0, batch_size=8)
    assert checks[-1] in ("pass", "inconclusive"), checks


def state_of(model: Any) -> list[Any]:
    """All values of variables behind a model, and its user's own attributes."""
    optimizers = [model.optimizer, *getattr(model, "optimizers", {}).values()]
    variables = [*model.variables, *(v for optimizer in optimizers for v in optimizer.variables)]
    found: list[Any] = [np.asarray(variable).tolist() for variable in variables]
    found += [value for name, value in vars(model).items() if isinstance(value, int | float | str)]
    if isinstance(model, Counting):
        found += [STEPS_SEEN, Counting.of_class, list(Counting.seen), len(model.log)]
        found += [
            len(model.plain.items),
            list(model.recent),
            model.table.tolist(),
            model.closed(),
            next(model.numbers),
        ]
        found += [model.generator.random(), model.dice.random()]
    if isinstance(model, Replaying):
        found.append(len(model.buffer.items))
    return found


def trained(build: Callable[[], keras.Model], *callbacks: Any, **fitting: Any) -> list[Any]:
    """All that is there after a training, random states included."""
    global STEPS_SEEN
    STEPS_SEEN, Counting.of_class = 0, 0
    Counting.seen.clear()
    keras.utils.set_random_seed(3)
    keras.backend.clear_session()
    model = build()
    history = model.fit(
        X, Y, **{"epochs": 2, "batch_size": 8, "verbose": 0, **fitting}, callbacks=list(callbacks)
    )
    return [
        history.history,
        *state_of(model),
        random.random(),
        np.random.random(),  # noqa: NPY002 - the global one is meant
        tf.random.uniform((2,)).numpy().tolist(),
        keras.random.normal((2,)).numpy().tolist(),
    ]


@pytest.mark.parametrize("name", MODELS)
def test_training_is_the_same(name: str) -> None:
    """With the callback, `fit` ends bit for bit as without it, and what it makes has its names."""
    watching = GradientCheck(X, Y, epochs=(1, 2), steps=2, **QUIET)
    alone = trained(MODELS[name])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        watched = trained(MODELS[name], watching)
    assert watching.reports
    assert watched == alone


@pytest.mark.parametrize("how", [{}, {"run_eagerly": True}, {"jit_compile": True}], ids=str)
@pytest.mark.parametrize("when", [{"epochs": 1}, {"start": False, "steps": (1, 2)}], ids=str)
def test_training_is_the_same_however_it_runs(how: dict[str, Any], when: dict[str, Any]) -> None:
    """In a graph, eagerly and under XLA, with MLflow, whenever the checks are."""

    def build() -> keras.Model:
        model = keras.Sequential(
            [
                keras.Input((3,)),
                L.Dense(4, "relu"),
                L.BatchNormalization(),
                L.Dropout(0.4),
                L.Dense(1),
            ]
        )
        return compiled(model, metrics=["mae"], **how)

    alone = trained(build)
    watched = trained(build, GradientCheck(X, Y, verbose=0, directions=1, **when))
    assert watched == alone


# -- after errors ------------------------------------------------------------------------------


class Stopping(Stepping):
    """Raises in the middle of its step, when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.failing: type[BaseException] | None = None

    def stepped(self, x: Any, loss: Any) -> None:
        self.network.layers[1].name = "renamed"
        self.failing_soon = True
        if self.failing is not None:
            raise self.failing("on purpose")


STAGES = (
    "tfcheck.trace.tracing.listening",
    "tfcheck.prepared.GraphObjective",
    "tfcheck.checker.Examination",
    "tfcheck.after_examining.trained_gradients",
    "tfcheck.training.comparisons.misapplied",
    "tfcheck.training.comparisons.compare",
    "tfcheck.training.eager_losses.EagerLosses.at",
    "tfcheck.training.comparisons.compare_compiled",
    "tfcheck.checker.assemble",
)


@pytest.mark.parametrize("eagerly", [False, True], ids=["graph", "eager"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, RuntimeError, SystemExit])
def test_an_error_in_the_step_leaves_nothing(error: type[BaseException], eagerly: bool) -> None:
    """Whatever the user's code raises, in a trace or a run, all is as before."""
    model: Any = compiled(Stopping(), run_eagerly=eagerly)
    model.failing = error
    with nothing_changes(model), pytest.raises((TfcheckError, error)):
        tfcheck.check_gradients(model, X, Y, verbose=0)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_error_at_any_stage_leaves_nothing(
    stage: str, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C and a lack of memory in the middle of a check leave nothing behind."""
    model = compiled(Counting())

    def failing(*_args: Any, **_options: Any) -> Any:
        raise error("on purpose")

    with nothing_changes(model), monkeypatch.context() as patch:
        patch.setattr(stage, failing)
        try:
            report = tfcheck.check_gradients(model, X, Y, verbose=0)
        except error:
            return
        assert report.verdict != "pass", report


# -- other threads -----------------------------------------------------------------------------


def test_other_threads_train_on() -> None:
    """While a check runs, eager steps and `fit` of other models change their weights as ever."""
    over = threading.Event()
    other = compiled(keras.Sequential([keras.Input((3,)), L.Dropout(0.5), L.Dense(1)]))
    optimizer = keras.optimizers.SGD(0.01)
    idle, steps, errors = [], itertools.count(), []

    def step_eagerly() -> None:
        while not over.is_set():
            before = other.layers[-1].kernel.numpy()
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(other(X, training=True) ** 2) + tf.reduce_sum(other(X))
            gradients = tape.gradient(loss, other.trainable_weights)
            optimizer.apply(gradients, other.trainable_weights)
            if np.array_equal(other.layers[-1].kernel.numpy(), before):
                idle.append(next(steps))

    def fit_on() -> None:
        model = compiled(Parts(), metrics=["mae"])
        try:
            while not over.is_set():
                history = model.fit(X, Y, verbose=0)
                assert "mae" in history.history
        except Exception as error:  # noqa: BLE001 - told by the test
            errors.append(error)

    threads = [threading.Thread(target=work) for work in (step_eagerly, fit_on)]
    for thread in threads:
        thread.start()
    try:
        checked = compiled(Diffusing())
        reports = [tfcheck.check_gradients(checked, X, Y, verbose=0) for _ in range(3)]
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert errors == []
    assert idle == []
    paths = {variable.path for report in reports for variable in report.variables}
    assert paths == {variable.path for variable in checked.network.trainable_variables}


def test_threads_that_a_step_starts_are_listened_to() -> None:
    """A step that runs on threads of its own, as replicas do, applies nothing in a check."""

    class Threaded(Stepping):
        def train_step(self, data: Any) -> Any:
            graph, result = tf.compat.v1.get_default_graph(), []

            def run() -> None:
                with graph.as_default():
                    result.append(super(Threaded, self).train_step(data))

            thread = threading.Thread(target=run)
            thread.start()
            thread.join()
            return result[0]

    model = compiled(Threaded())
    with nothing_changes(model):
        report = tfcheck.check_gradients(model, X, Y, verbose=0)
    assert report.verdict == "pass", report


# -- what is gone once it is taken -------------------------------------------------------------


def batches() -> Iterator[tuple[Any, Any]]:
    """Three different batches."""
    for number in range(3):
        yield X + number, Y


def test_a_debug_batch_takes_nothing_away() -> None:
    """An iterator is refused, and still yields its first batch."""
    source = batches()
    with pytest.raises(BatchError, match="what is taken from an iterator is gone"):
        GradientCheck(source, **QUIET)
    assert np.array_equal(next(source)[0], X)


def test_a_debug_batch_from_a_data_set_changes_nothing() -> None:
    """One that draws and counts when it is asked for a batch is as it was."""

    class Shuffling(keras.utils.PyDataset):
        def __init__(self) -> None:
            super().__init__()
            self.asked = 0
            self.flip = L.RandomFlip(seed=3)

        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Any:
            self.asked += 1
            order = random.sample(range(8), 8)
            noise = np.random.random((8, 1)) + np.asarray(tf.random.normal((8, 1)))  # noqa: NPY002
            self.flip(np.ones((1, 2, 2, 1)), training=True)
            return X[order] + noise.astype("float32"), Y[order]

    data = Shuffling()
    with nothing_changes(data):
        GradientCheck(data, **QUIET)


@pytest.mark.parametrize("eagerly", [False, True], ids=["graph", "eager"])
@pytest.mark.parametrize("kind", ["dataset", "generator"])
def test_steps_that_take_from_elsewhere_are_refused(kind: str, eagerly: bool) -> None:
    """What a step takes from an iterator it holds would be missing in training."""

    class Taking(Stepping):
        def __init__(self) -> None:
            super().__init__()
            data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(2)
            self.more: Any = iter(data) if kind == "dataset" else batches()

        def loss_of(self, x: Any, y: Any) -> Any:
            return super().loss_of(*next(self.more)) + super().loss_of(x, y)

    model: Any = compiled(Taking(), run_eagerly=eagerly)
    with nothing_changes(model), pytest.raises(TfcheckError, match="must take its data from fit"):
        tfcheck.check_gradients(model, X, Y, verbose=0)
    assert np.array_equal(next(model.more)[0], X[:2] if kind == "dataset" else X)


def test_python_in_the_graph_changes_nothing() -> None:
    """A function of Python's that is called whenever the loss is evaluated may count its calls."""

    class Calling(Stepping):
        def __init__(self) -> None:
            super().__init__()
            self.plain = SimpleNamespace(calls=0)

        def loss_of(self, x: Any, y: Any) -> Any:
            def weight(value: Any) -> Any:
                self.plain.calls += 1
                return np.float32(1.0) + 0 * value

            factor = tf.numpy_function(weight, [tf.reduce_mean(y)], tf.float32)
            return super().loss_of(x, y) * tf.ensure_shape(factor, ())

    model: Any = compiled(Calling())
    with nothing_changes(model):
        report = tfcheck.check_gradients(model, X, Y, verbose=0)
    assert report.verdict == "pass", report
    assert model.plain.calls == 0
