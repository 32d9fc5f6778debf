"""A whole check: healthy models pass, what cannot be checked is refused, the report says it all."""

# mypy: allow-subclassing-any

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from wrong_sine import WrongSine

from tfcheck import (
    Coordinate,
    GradientReport,
    LayerReport,
    TfcheckError,
    Thresholds,
    VariableReport,
    Verdict,
    check_gradients,
)
from tfcheck.errors import (
    ArgumentError,
    ArgumentTypeError,
    BackendError,
    BatchError,
    ModelError,
    TraceError,
)

L = keras.layers
RNG = np.random.default_rng(21)
X = RNG.normal(size=(6, 4)).astype("float32")
Y = RNG.normal(size=(6, 2)).astype("float32")
IMAGES = RNG.normal(size=(3, 8, 8, 2)).astype("float32")
SEQUENCES = RNG.normal(size=(4, 5, 3)).astype("float32")
IDS = RNG.integers(1, 9, size=(4, 5))
FORM = re.compile(r"^[^\n]+\. Received: [^\n]+\. [^\n]+\.$")


def compiled(*layers: keras.layers.Layer, shape: tuple[int, ...] = (4,), **how: Any) -> Any:
    """A compiled model `net` of these layers."""
    dtype = how.pop("dtype", None)
    model = keras.Sequential([keras.Input(shape, dtype=dtype), *layers], name="net")
    model.compile(**{"optimizer": "sgd", "loss": "mse", **how})
    return model


def small() -> Any:
    """A small healthy model."""
    keras.utils.set_random_seed(5)
    return compiled(L.Dense(3, activation="tanh", name="one"), L.Dense(2, name="two"))


# -- healthy models --------------------------------------------------------------------------


class Subclassed(keras.Model):
    """A model by subclassing, with a layer in a list and a hard-coded float32."""

    def __init__(self) -> None:
        super().__init__(name="subclassed")
        self.blocks = [L.Dense(4, activation="gelu"), L.Dense(4, activation="elu")]
        self.head = L.Dense(2)

    def call(self, x: Any) -> Any:
        for block in self.blocks:
            x = x + block(tf.cast(x, tf.float32))
        return self.head(x)


class Tied(keras.Model):
    """An autoencoder with one kernel for both directions."""

    def __init__(self) -> None:
        super().__init__(name="tied")
        self.encoder = L.Dense(3, name="encoder")

    def build(self, shape: Any) -> None:
        self.encoder.build(shape)

    def call(self, x: Any) -> Any:
        return keras.ops.tanh(self.encoder(x)) @ keras.ops.transpose(self.encoder.kernel)


def built(model: keras.Model, x: Any) -> keras.Model:
    """The model, built and compiled."""
    model(x)
    model.compile("sgd", "mse")
    return model


def attention() -> keras.Model:
    """A transformer block over token ids."""
    ids = keras.Input((5,), dtype="int32")
    x = L.Embedding(9, 4)(ids)
    x = L.LayerNormalization()(x + L.MultiHeadAttention(2, 2, use_bias=False)(x, x))
    x = x + L.Dense(4)(L.Dense(6, activation="swish")(x))
    model = keras.Model(ids, L.Dense(2)(L.GlobalAveragePooling1D()(x)), name="block")
    model.compile("adamw", "mse")
    return model


def shared() -> keras.Model:
    """Two inputs through one encoder, a nested model."""
    encoder = keras.Sequential(
        [keras.Input((4,)), L.Dense(3, activation="tanh"), L.Dense(2)], name="encoder"
    )
    left, right = keras.Input((4,)), keras.Input((4,))
    model = keras.Model([left, right], L.Multiply()([encoder(left), encoder(right)]))
    model.compile("sgd", "mae")
    return model


def mixed(policy: str) -> Callable[[], tuple[Any, ...]]:
    """A normalised network in mixed precision."""
    return lambda: (
        compiled(
            L.Dense(6, activation="tanh", dtype=policy),
            L.LayerNormalization(dtype=policy),
            L.Dense(2, dtype=policy),
            optimizer="adam",
        ),
        X,
        Y,
    )


HEALTHY: dict[str, Callable[[], tuple[Any, ...]]] = {
    "dense": lambda: (
        compiled(
            L.Dense(8, activation="relu", kernel_regularizer="l2"),
            L.Dropout(0.5),
            L.Dense(2, activation="softmax"),
            loss="categorical_crossentropy",
            metrics=["accuracy"],
        ),
        X,
        np.eye(2)[[0, 1, 1, 0, 1, 0]],
    ),
    "convolutional": lambda: (
        compiled(
            L.Conv2D(4, 3, use_bias=False),
            L.BatchNormalization(),
            L.ReLU(),
            L.DepthwiseConv2D(2, activation="softplus"),
            L.MaxPooling2D(),
            L.Conv2DTranspose(2, 2, strides=2),
            L.GlobalAveragePooling2D(),
            L.Dense(2),
            shape=(8, 8, 2),
            loss=keras.losses.BinaryCrossentropy(from_logits=True),
        ),
        IMAGES,
        np.array([[0, 1], [1, 1], [0, 0]]),
    ),
    "recurrent": lambda: (
        compiled(
            L.Bidirectional(L.LSTM(2, return_sequences=True, dropout=0.3)),
            L.GRU(3),
            L.Dense(2),
            shape=(5, 3),
            optimizer="rmsprop",
        ),
        SEQUENCES,
        Y[:4],
    ),
    "embedding": lambda: (
        compiled(
            L.Embedding(9, 3, mask_zero=True),
            L.GRU(2),
            L.Dense(3),
            shape=(5,),
            dtype="int32",
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        ),
        IDS * (np.arange(5) < 4),
        np.array([0, 2, 1, 0]),
    ),
    "attention": lambda: (attention(), IDS, Y[:4]),
    "mixed float16": mixed("mixed_float16"),
    "mixed bfloat16": mixed("mixed_bfloat16"),
    "subclassed": lambda: (built(Subclassed(), X), X, Y),
    "tied": lambda: (built(Tied(), X), X, X),
    "shared and nested": lambda: (shared(), [X, X[::-1].copy()], Y),
    "dataset": lambda: (small(), tf.data.Dataset.from_tensor_slices((X, Y)).batch(3)),
}


@pytest.mark.parametrize("kind", HEALTHY)
def test_healthy_models_pass(kind: str) -> None:
    """A right gradient passes with a score far below the bands, and no culprit is named."""
    keras.utils.set_random_seed(13)
    model, *batch = HEALTHY[kind]()
    report = check_gradients(model, *batch)
    assert report.verdict is Verdict.PASS, str(report)
    assert report.score < 1e-7, str(report)
    assert report.culprits == ()
    assert {v.path for v in report.variables} == {v.path for v in model.trainable_variables}
    assert all(v.score <= Thresholds().okay for v in report.variables), str(report)


@pytest.mark.parametrize("epsilon", ["auto", 1e-7], ids=["auto", "classical"])
@pytest.mark.parametrize("kind", ["dense", "recurrent"])
def test_every_entry(kind: str, epsilon: float | str) -> None:
    """The full method passes healthy models as well, with its own step or the classical one."""
    keras.utils.set_random_seed(13)
    model, *batch = HEALTHY[kind]()
    report = check_gradients(model, *batch, method="full", epsilon=epsilon)
    assert report.verdict is Verdict.PASS, str(report)
    assert report.score < (1e-7 if epsilon == "auto" else 1e-5)
    entries = sum(v.size for v in report.variables)
    assert report.evaluations >= 2 * entries


def test_methods_agree() -> None:
    """Directions estimate the norms and scores that the full method measures entry by entry."""
    layers = [L.Dense(3, name="one"), WrongSine(name="sine"), L.Dense(2, name="two")]
    keras.utils.set_random_seed(5)
    model = compiled(*layers)
    estimated = check_gradients(model, X, Y, directions=16)
    exact = check_gradients(model, X, Y, method="full")
    assert estimated.verdict is exact.verdict is Verdict.FAIL
    assert estimated.culprits == exact.culprits == ("net/sine",)
    for one, other in zip(estimated.variables, exact.variables, strict=True):
        assert one.analytic_norm == pytest.approx(other.analytic_norm)
        assert one.verdict is other.verdict
        if other.verdict is Verdict.FAIL:
            assert one.score == pytest.approx(other.score, rel=0.5)
            uncertain = 0.5 * (other.analytic_norm + other.numerical_norm)
            assert one.numerical_norm == pytest.approx(other.numerical_norm, abs=uncertain)


# -- points that look wrong and are right ----------------------------------------------------


KINKS: dict[str, Callable[[], tuple[Any, ...]]] = {
    "rectifier at zero": lambda: (
        compiled(L.Dense(3, activation="relu"), L.Dense(2)),
        np.where(np.arange(6)[:, None] < 3, 0.0, X),
        Y,
    ),
    "leaky rectifier at zero": lambda: (
        compiled(L.Dense(3), L.LeakyReLU(), L.Dense(2)),
        np.where(np.arange(6)[:, None] < 3, 0.0, X),
        Y,
    ),
    "ties in a pool": lambda: (
        compiled(
            L.Conv2D(2, 3, kernel_initializer="zeros"),
            L.MaxPooling2D(),
            L.Flatten(),
            L.Dense(2),
            shape=(8, 8, 2),
        ),
        IMAGES,
        Y[:3],
    ),
    "hinge at its corner": lambda: (
        compiled(L.Dense(2, kernel_initializer="zeros", bias_initializer="ones"), loss="hinge"),
        X,
        np.ones((6, 2)),
    ),
}
SYMMETRIC_KINKS: dict[str, Callable[[], tuple[Any, ...]]] = {
    "some absolute errors zero": lambda: (
        compiled(L.Dense(2, kernel_initializer="zeros"), loss="mae"),
        X,
        np.where(np.arange(6)[:, None] < 2, 0.0, Y),
    ),
    "all absolute errors zero": lambda: (
        compiled(L.Dense(2, kernel_initializer="zeros"), loss="mae"),
        X,
        np.zeros((6, 2)),
    ),
    "l1 at zero": lambda: (compiled(L.Dense(2, bias_regularizer="l1")), X, Y),
}


@pytest.mark.parametrize("kind", KINKS)
def test_kinks_pass(kind: str) -> None:
    """Sitting exactly on a kink is no bug: the variables pass, and the reason says kink."""
    keras.utils.set_random_seed(3)
    model, *batch = KINKS[kind]()
    report = check_gradients(model, *batch)
    assert report.verdict is Verdict.PASS, str(report)
    assert report.culprits == ()
    assert "kink" in {v.reason for v in report.variables}, str(report)


@pytest.mark.parametrize("kind", SYMMETRIC_KINKS)
def test_symmetric_kinks_pass(kind: str) -> None:
    """A kink at which the tape gives the mean of both slopes is no bug either."""
    keras.utils.set_random_seed(3)
    model, *batch = SYMMETRIC_KINKS[kind]()
    report = check_gradients(model, *batch)
    assert report.verdict is Verdict.PASS, str(report)
    assert report.culprits == ()


def test_theoretically_zero_gradients_pass() -> None:
    """The bias of attention keys has no influence: zero on both sides is below resolution."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((5, 3))
    attended = L.MultiHeadAttention(2, 3, name="attention")(inputs, inputs)
    model = keras.Model(inputs, L.Dense(2)(attended))
    model.compile("sgd", "mse")
    report = check_gradients(model, SEQUENCES, RNG.normal(size=(4, 5, 2)))
    assert report.verdict is Verdict.PASS, str(report)
    (bias,) = (v for v in report.variables if v.path.endswith("key/bias"))
    assert bias.reason == "below_resolution"
    assert math.isnan(bias.score)
    assert bias.detectable_error < 1e-4
    assert "within the error bar" in bias.note


def test_a_bias_before_batch_normalisation_passes() -> None:
    """Batch normalisation takes the bias before it out again: zero in theory, and no failure."""
    keras.utils.set_random_seed(3)
    model = compiled(
        L.Conv2D(3, 3, name="conv"),
        L.BatchNormalization(),
        L.Flatten(),
        L.Dense(2),
        shape=(8, 8, 2),
    )
    report = check_gradients(model, IMAGES, Y[:3])
    assert report.verdict is Verdict.PASS, str(report)
    (bias,) = (v for v in report.variables if v.path == "net/conv/bias")
    assert bias.reason == "below_resolution"


def test_a_constant_much_larger_than_the_loss() -> None:
    """A loss that drowns in a constant is measured layer by layer, where nothing drowns."""
    model = small()
    report = check_gradients(
        model, X, Y, loss_fn=lambda m, x, y, _w: tf.reduce_mean((m(x) - y) ** 2) + 1e6
    )
    assert report.verdict is Verdict.PASS, str(report)
    assert all(v.score < 1e-7 and v.error_bar < 1e-5 for v in report.variables), str(report)


# -- unused, blocked, not finite, random -----------------------------------------------------


def of_path(report: GradientReport, path: str) -> VariableReport:
    """The one variable of this path."""
    (found,) = (v for v in report.variables if v.path == path)
    return found


class WithSpare(keras.layers.Layer):
    """A layer with a weight it never uses, and one it uses through `function`."""

    def __init__(self, function: Callable[[Any], Any], **options: Any) -> None:
        super().__init__(**options)
        self.function = function

    def build(self, shape: Any) -> None:
        self.spare = self.add_weight(shape=(2,), name="spare")
        self.used = self.add_weight(shape=(shape[-1],), name="used", initializer="ones")

    def call(self, x: Any) -> Any:
        return x * self.function(tf.convert_to_tensor(self.used))


def test_none_is_unused_or_blocked() -> None:
    """A gradient of None is fine where the loss ignores the variable, and a failure elsewhere."""
    keras.utils.set_random_seed(1)
    model = compiled(WithSpare(tf.stop_gradient, name="layer"), L.Dense(2, name="two"))
    report = check_gradients(model, X, Y)
    unused, blocked = of_path(report, "net/layer/spare"), of_path(report, "net/layer/used")
    assert (unused.verdict, unused.reason, unused.score) == (Verdict.PASS, "unused", 0.0)
    assert (blocked.verdict, blocked.reason) == (Verdict.FAIL, "blocked")
    assert math.isnan(blocked.analytic_norm)
    assert blocked.numerical_norm > 0
    assert all(math.isnan(c.analytic) for c in blocked.worst)
    assert report.verdict is Verdict.FAIL
    assert report.culprits == ("net/layer",)


def test_a_gradient_that_is_not_a_number() -> None:
    """NaN in the tape's gradient fails, and the note counts the entries."""
    keras.utils.set_random_seed(1)
    layer = WithSpare(lambda w: tf.where(w == 1, w, (w - 1) / (w - 1)), name="layer")
    report = check_gradients(compiled(layer, L.Dense(2, name="two")), X, Y)
    found = of_path(report, "net/layer/used")
    assert (found.verdict, found.reason) == (Verdict.FAIL, "non_finite")
    assert found.note == "4 of 4 entries of the tape's gradient are not finite."
    assert math.isnan(found.score)
    assert of_path(report, "net/two/kernel").verdict is Verdict.PASS


def test_a_loss_that_is_not_a_number() -> None:
    """A loss of NaN is never a pass: every variable fails, and a note says why."""
    model = small()
    report = check_gradients(
        model, X, Y, loss_fn=lambda m, x, *_: tf.reduce_mean(tf.math.log(m(x) * 0 - 1))
    )
    assert report.verdict is Verdict.FAIL
    assert {v.reason for v in report.variables} == {"non_finite"}
    assert any("loss is nan" in note for note in report.notes), report.notes


def _drawn_by_numpy(_: Any = None) -> Any:
    return tf.reshape(
        tf.numpy_function(lambda: np.float32(np.random.default_rng().normal()), [], "float32"), ()
    )


def test_numbers_drawn_by_numpy_are_held() -> None:
    """What a Python function gives that no variable has a part in is held fixed."""

    def flickering(model: keras.Model, x: Any, *_: Any) -> Any:
        return tf.reduce_mean(model(x)) * (1 + _drawn_by_numpy())

    assert check_gradients(small(), X, Y, loss_fn=flickering).verdict is Verdict.PASS


def test_a_numpy_loss_that_flickers_is_stochastic() -> None:
    """A loss that differs between two evaluations is not judged."""

    def flickering(model: keras.Model, x: Any, *_: Any) -> Any:
        noise = tf.map_fn(_drawn_by_numpy, tf.zeros((2,)))
        return tf.reduce_mean(model(x)) * (1 + tf.reduce_sum(noise))

    report = check_gradients(small(), X, Y, loss_fn=flickering)
    assert report.verdict is Verdict.INCONCLUSIVE, str(report)
    assert {v.reason for v in report.variables} == {"stochastic"}
    assert any("differs between two evaluations" in note for note in report.notes)


# -- declared, frozen, thresholds ------------------------------------------------------------


def wrong() -> Any:
    """A model with a wrong layer between `one` and `two`."""
    keras.utils.set_random_seed(5)
    return compiled(L.Dense(3, name="one"), WrongSine(name="sine"), L.Dense(2, name="two"))


@pytest.mark.parametrize(
    "patterns",
    ["net/one", ["net/*/kernel", "net/one/bias"], ("*/one",), "sine", "sine/*", ["net/sine/*"]],
)
def test_declared_mismatches_do_not_count(patterns: Any) -> None:
    """What is meant to differ is shown as declared: neither a failure nor a pass."""
    report = check_gradients(wrong(), X, Y, expected_mismatch=patterns, directions=2)
    assert report.verdict is Verdict.PASS
    assert report.culprits == ()
    for path in ("net/one/kernel", "net/one/bias"):
        declared = of_path(report, path)
        assert (declared.verdict, declared.reason) == (Verdict.INCONCLUSIVE, "declared")
        assert declared.score > 1e-3
        assert not declared.counts
    assert report.count(Verdict.PASS) == sum(v.counts for v in report.variables) > 0
    assert report.count(Verdict.INCONCLUSIVE) == 0
    assert report.score < 1e-7


def test_a_declaration_covers_nothing_else() -> None:
    """A failure beside a declared mismatch still fails."""
    report = check_gradients(wrong(), X, Y, expected_mismatch=["net/one/bias"])
    assert report.verdict is Verdict.FAIL
    assert of_path(report, "net/one/kernel").verdict is Verdict.FAIL


def test_frozen_variables_are_listed() -> None:
    """Variables that do not train are named as frozen and have no finding."""
    model = compiled(L.Dense(3, name="one"), L.BatchNormalization(name="norm"), L.Dense(2))
    model.layers[0].trainable = False
    model.compile("sgd", "mse")
    report = check_gradients(model, X, Y)
    assert report.verdict is Verdict.PASS
    assert set(report.frozen) == {
        "net/one/kernel",
        "net/one/bias",
        "net/norm/moving_mean",
        "net/norm/moving_variance",
    }
    assert not set(report.frozen) & {v.path for v in report.variables}


def test_thresholds_are_used() -> None:
    """The bands decide: what fails by the ordinary ones may be suspect or pass by others."""
    suspect = check_gradients(wrong(), X, Y, thresholds=Thresholds(concerning=1.0), directions=2)
    passing = check_gradients(wrong(), X, Y, thresholds=Thresholds(okay=0.999, concerning=1.0))
    assert of_path(suspect, "net/one/kernel").verdict is Verdict.SUSPECT
    assert suspect.verdict is Verdict.SUSPECT
    assert passing.verdict is Verdict.PASS
    assert passing.settings.thresholds == Thresholds(okay=0.999, concerning=1.0)


# -- the report ------------------------------------------------------------------------------


def test_report_fields() -> None:
    """The report holds what was found, from the whole down to the coordinate, in tuples."""
    model = wrong()
    report = check_gradients(model, X, Y)
    assert report.verdict is Verdict.FAIL
    assert 0.01 < report.score <= 1
    assert isinstance(report.layers, tuple)
    assert all(isinstance(layer, LayerReport) for layer in report.layers)
    assert [layer.path for layer in report.layers] == ["net/one", "net/two"]
    assert [layer.verdict for layer in report.layers] == [Verdict.FAIL, Verdict.PASS]
    assert [v.path for v in report.variables] == [v.path for v in model.trainable_variables]
    assert isinstance(report.variables, tuple)
    assert report.culprits == ("net/sine",)
    assert isinstance(report.notes, tuple)
    assert isinstance(report.frozen, tuple)
    assert (report.objective.source, report.objective.phase) == ("train_step", "train")
    (loss,) = report.objective.losses
    assert loss == pytest.approx(float(np.mean((model(X) - Y) ** 2)), rel=1e-5)
    assert 0 <= report.objective.parity < 1e-6
    assert (report.settings.batch_size, report.settings.directions) == (6, 4)
    assert (report.model, report.step, report.checkpoint, report.error) == ("net", None, "", "")
    assert report.seconds > 0
    assert report.evaluations > 0

    kernel = of_path(report, "net/one/kernel")
    assert (kernel.layer, kernel.name, kernel.shape) == ("net/one", "kernel", (4, 3))
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((model(X) - Y) ** 2)
    analytic = tape.gradient(loss, model.layers[0].kernel).numpy()
    assert kernel.analytic_norm == pytest.approx(float(np.linalg.norm(analytic)), rel=1e-4)
    assert kernel.numerical_norm == pytest.approx(
        kernel.analytic_norm, abs=2 * kernel.score * kernel.analytic_norm / (1 - kernel.score)
    )
    assert kernel.error_bar < kernel.score
    assert isinstance(kernel.worst, tuple)
    assert 1 <= len(kernel.worst) <= 12
    for coordinate in kernel.worst:
        assert isinstance(coordinate, Coordinate)
        assert isinstance(coordinate.index, tuple)
        assert coordinate.analytic == pytest.approx(float(analytic[coordinate.index]), rel=1e-3)
        assert 0 <= coordinate.error_bar < 1e-6
    gaps = [abs(c.analytic - c.numerical) for c in kernel.worst]
    assert gaps == sorted(gaps, reverse=True)
    assert of_path(report, "net/two/kernel").worst == ()


def test_a_report_is_frozen() -> None:
    """Nothing in a report can be changed."""
    report = check_gradients(small(), X, Y)
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.verdict = Verdict.FAIL  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.variables[0].score = 0.0  # type: ignore[misc]


def numbers(report: GradientReport) -> dict[str, Any]:
    """Everything in a report but how long it took."""
    content = report.to_dict()
    del content["seconds"]
    return content


def test_checks_are_repeatable() -> None:
    """The same seed gives the same numbers, also for another instance; another seed others."""
    first = numbers(check_gradients(wrong(), X, Y, directions=2, seed=3))
    assert numbers(check_gradients(wrong(), X, Y, directions=2, seed=3)) == first
    model = small()
    by_seed = [numbers(check_gradients(model, X, Y, seed=seed)) for seed in (3, 3, 4)]
    assert by_seed[0] == by_seed[1] != by_seed[2]


def test_a_saved_report_reads_back(tmp_path: Any) -> None:
    """A report of a real check survives its file."""
    report = check_gradients(wrong(), X, Y)
    loaded = GradientReport.load(report.save(tmp_path / "report.json"))
    assert numbers(loaded) == numbers(report)


# -- what is refused -------------------------------------------------------------------------


def unbuilt() -> keras.Model:
    """A model without weights."""
    model = keras.Sequential([L.Dense(2)])
    model.compile("sgd", "mse")
    return model


def uncompiled() -> keras.Model:
    """A model without a loss."""
    return keras.Sequential([keras.Input((4,)), L.Dense(2)])


def untrainable() -> keras.Model:
    """A model in which everything is frozen."""
    model = uncompiled()
    model.trainable = False
    model.compile("sgd", "mse")
    return model


NAN = X.copy()
NAN[2, 1] = np.nan

REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], dict[str, Any], tuple[Any, ...]]] = {
    "unbuilt": (unbuilt, ModelError, {}, (X, Y)),
    "uncompiled": (uncompiled, ModelError, {}, (X, Y)),
    "no model": (lambda: 3, ArgumentTypeError, {}, (X, Y)),
    "a layer": (lambda: L.Dense(2), ArgumentTypeError, {}, (X, Y)),
    "nothing to train": (untrainable, TfcheckError, {}, (X, Y)),
    "wrong width": (small, BatchError, {}, (X[:, :3], Y)),
    "wrong targets": (small, BatchError, {}, (X, np.ones((6, 5)))),
    "wrong rank": (small, BatchError, {}, (X[:, :, None, None], Y)),
    "missing targets": (small, TfcheckError, {}, (X,)),
    "nan": (small, BatchError, {}, (NAN, Y)),
    "infinite targets": (small, BatchError, {}, (X, Y + np.inf)),
    "uneven": (small, BatchError, {}, (X, Y[:5])),
    "uneven weights": (small, BatchError, {}, (X, Y, np.ones(5))),
    "empty": (small, BatchError, {}, (X[:0], Y[:0])),
    "nothing": (small, BatchError, {}, (None,)),
    "not arrays": (small, BatchError, {}, (object(), Y)),
    "empty dataset": (
        small,
        BatchError,
        {},
        (tf.data.Dataset.from_tensor_slices((X, Y)).batch(3).take(0),),
    ),
    "dataset and targets": (
        small,
        BatchError,
        {},
        (tf.data.Dataset.from_tensor_slices((X, Y)).batch(3), Y),
    ),
    "phase": (small, ArgumentError, {"phase": "test"}, (X, Y)),
    "method": (small, ArgumentError, {"method": "exact"}, (X, Y)),
    "epsilon zero": (small, ArgumentError, {"epsilon": 0}, (X, Y)),
    "epsilon negative": (small, ArgumentError, {"epsilon": -1e-7}, (X, Y)),
    "epsilon nan": (small, ArgumentError, {"epsilon": math.nan}, (X, Y)),
    "epsilon infinite": (small, ArgumentError, {"epsilon": math.inf}, (X, Y)),
    "epsilon word": (small, ArgumentError, {"epsilon": "small"}, (X, Y)),
    "epsilon true": (small, ArgumentError, {"epsilon": True}, (X, Y)),
    "epsilon none": (small, ArgumentError, {"epsilon": None}, (X, Y)),
    "directions zero": (small, ArgumentError, {"directions": 0}, (X, Y)),
    "directions fraction": (small, ArgumentError, {"directions": 2.5}, (X, Y)),
    "directions true": (small, ArgumentError, {"directions": True}, (X, Y)),
    "seed": (small, ArgumentError, {"seed": -1}, (X, Y)),
    "thresholds": (small, ArgumentTypeError, {"thresholds": (1e-7, 1e-5, 1e-3)}, (X, Y)),
    "pattern": (small, ArgumentError, {"expected_mismatch": ["net/three"]}, (X, Y)),
    "pattern type": (small, ArgumentTypeError, {"expected_mismatch": [3]}, (X, Y)),
    "loss_fn": (small, ArgumentTypeError, {"loss_fn": "mse"}, (X, Y)),
    "loss_fn result": (small, TraceError, {"loss_fn": lambda m, x, *_: m(x)}, (X, Y)),
}


@pytest.mark.filterwarnings("ignore:The model does not have any trainable")
@pytest.mark.parametrize("kind", REFUSED)
def test_refused(kind: str) -> None:
    """What cannot be checked raises the right error: the rule, what was received, the remedy."""
    make, error, options, batch = REFUSED[kind]
    model = make()
    before = values(model)
    with pytest.raises(error) as caught:
        check_gradients(model, *batch, **options)
    message = str(caught.value)
    assert isinstance(caught.value, TfcheckError)
    assert FORM.match(message), message
    assert "Traceback" not in message
    assert "\x1b" not in message
    assert ".." not in message.replace("...", ""), message
    assert values(model) == before


def values(model: Any) -> Any:
    """All that a model holds."""
    if not isinstance(model, keras.Model):
        return None
    optimizer = getattr(model, "optimizer", None)
    optimizer = [] if optimizer is None else optimizer.variables
    return [np.asarray(v).tolist() for v in (*model.variables, *optimizer)]


def test_another_backend_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """On another backend than TensorFlow the message says how to choose it."""
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(BackendError) as caught:
        check_gradients(small(), X, Y)
    assert str(caught.value) == (
        "tfcheck checks Keras models on the TensorFlow backend. Received: backend='jax'. "
        "Set the environment variable KERAS_BACKEND=tensorflow before the first import of keras."
    )


def test_options_are_keyword_only() -> None:
    """Options have names; a fourth positional argument and a misspelt one are refused."""
    with pytest.raises(TypeError):
        check_gradients(small(), X, Y, None, None)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="epsilom"):
        check_gradients(small(), X, Y, epsilom=1e-7)  # type: ignore[call-arg]


def test_a_loss_fn_needs_no_compile() -> None:
    """With `loss_fn` an uncompiled model can be checked."""
    model = uncompiled()
    report = check_gradients(
        model, X, Y, loss_fn=lambda m, x, y, _w: tf.reduce_sum((m(x) - y) ** 2)
    )
    assert report.verdict is Verdict.PASS
    assert report.objective.source == "loss_fn"


def test_a_kink_passes_along_every_direction() -> None:
    """Rectifiers at exact zeros pass whichever directions are drawn: no verdict hangs on luck."""
    for name in range(12):
        keras.utils.set_random_seed(3)
        first = L.Dense(4, activation="relu", name=f"layer_{name}")
        x = np.where(np.arange(6)[:, None] < 3, 0.0, X)
        report = check_gradients(compiled(first, L.Dense(2)), x, Y)
        assert report.verdict == "pass", str(report)
