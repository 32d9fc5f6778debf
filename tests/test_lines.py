"""The loss along lines, many places at once, is what it is place by place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import tfcheck.units.apart
import tfcheck.units.sources
from tfcheck.check import check_gradients
from tfcheck.checker import GradientChecker
from tfcheck.evaluate.around import MANY, Around
from tfcheck.measure.directions import generator, scale_of
from tfcheck.measure.lines import Direction, Factors
from tfcheck.objective.objective import Objective
from tfcheck.objective.point import Base, Parameter
from tfcheck.settings import Settings
from tfcheck.trace.batch import first_batch
from tfcheck.units.together import Together

PLACES = (2.0**-4, -(2.0**-4), 2.0**-12, 0.5)


def few() -> keras.Model:
    """Few variables: dense and convolutional, normalised, regularised, and one assigned to."""
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(3, 3, activation="relu", kernel_regularizer="l2"),
            layers.BatchNormalization(),
            layers.SpectralNormalization(layers.Conv2D(2, 2)),
            layers.Flatten(),
            layers.Dense(4, "gelu"),
            layers.Dense(3),
        ]
    )


class Transposed(layers.Layer):  # type: ignore[misc]
    """A kernel that is transposed, and used twice."""

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(shape[-1], shape[-1]), name="kernel")

    def call(self, x: Any) -> Any:
        once = tf.tanh(tf.matmul(x, self.kernel, transpose_b=True))
        return x + tf.matmul(once, self.kernel, transpose_b=True)


class Grouped(layers.Layer):  # type: ignore[misc]
    """A convolution of two groups of channels."""

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(1, 1, shape[-1] // 2, 64), name="kernel")

    def call(self, x: Any) -> Any:
        return tf.nn.conv2d(x, self.kernel, 1, "VALID")


def many() -> keras.Model:
    """Many variables, with kernels of every kind, some of them in more than one place."""
    x = keras.Input((6, 6, 2))
    y = layers.Conv2D(8, 3, padding="same", name="small")(x)
    y = layers.AveragePooling2D(2)(y)
    for _ in range(6):
        y = layers.Add()([layers.Conv2D(8, 3, padding="same", activation="tanh")(y), y])
        y = layers.BatchNormalization()(y)
    y = layers.DepthwiseConv2D(3, name="depthwise")(y)
    y = layers.Conv2D(16, 1, kernel_regularizer="l2", name="regularised")(y)
    y = Grouped(name="grouped")(y)
    y = layers.Flatten()(y)
    for _ in range(4):
        y = layers.Dense(12, "tanh")(y)
    return keras.Model(x, layers.Dense(3)(Transposed()(y)))


def at(model: keras.Model) -> tuple[Objective, Base]:
    """The objective of a model, and where it stands."""
    rng = np.random.default_rng(0)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    batch = first_batch(rng.standard_normal((4, 6, 6, 2)), rng.integers(0, 3, 4))
    objective = GradientChecker(model, Settings()).objective(batch)
    return objective, objective.at(batch)


def place_by_place(
    objective: Objective, base: Base, directions: dict[Parameter, Direction]
) -> list[float]:
    """The loss at the places, each evaluated at a point of its own."""
    found = []
    for place in PLACES:
        inputs = list(base.inputs)
        for parameter, direction in directions.items():
            dense = direction.dense() if isinstance(direction, Factors) else direction
            for position in parameter.inputs:
                inputs[position] = tf.constant(np.asarray(inputs[position]) + place * dense)
        found.append(objective.loss(0, inputs))
    return found


def assert_same(objective: Objective, base: Base, parameters: list[Parameter]) -> None:
    """Assert that a random line in the parameters has the values that its places have."""
    moves = [(p, scale_of(objective.value(base, p))) for p in parameters]
    directions = Around(objective).drawn(generator(0, parameters[0].path), moves)
    values = Around(objective).line(base, directions)
    found = values(PLACES)
    np.testing.assert_allclose(found, place_by_place(objective, base, directions), rtol=1e-13)
    assert len(set(found)) == len(PLACES) or all(not np.any(np.asarray(m)) for m in moves)


@pytest.fixture
def large_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat all kernels as large ones, for which a thin product pays."""
    monkeypatch.setattr(tfcheck.units.sources, "LARGE", 16)
    monkeypatch.setattr(tfcheck.units.sources, "pays", lambda *_arguments, **_options: True)


@pytest.mark.usefixtures("large_kernels")
@pytest.mark.parametrize("make", [few, many])
def test_lines_are_what_they_are_place_by_place(make: Any) -> None:
    """Single variables, parts of the network and everything, to rounding."""
    keras.utils.set_random_seed(1)
    objective, base = at(make())
    parameters = [p for p in objective.parameters if p.inputs]
    assert (len(parameters) > MANY) == (make is many)
    for group in ([parameters[0]], parameters[-3:], parameters[::5], parameters):
        assert_same(objective, base, group)


@pytest.mark.usefixtures("large_kernels")
def test_directions_in_large_kernels_are_products() -> None:
    """A kernel of one product or convolution is not even moved; others are."""
    keras.utils.set_random_seed(1)
    objective, _ = at(many())
    parameters = [p for p in objective.parameters if p.inputs]
    drawn = Around(objective).drawn(generator(0, "any"), [(p, 1.0) for p in parameters])
    factors = {p.path for p, d in drawn.items() if isinstance(d, Factors)}
    kernels = {p.path for p in parameters if p.path.endswith("kernel")}
    assert len(kernels) == 16
    assert kernels <= factors
    apart = objective.apart[0]
    assert apart is not None
    still = {
        p.path
        for p in parameters
        if all(source.number in apart.kernels for source in apart.leaves(p.held_by))
    }
    moved = {f"{name}/kernel" for name in ("depthwise", "regularised", "grouped")}
    assert still == kernels - moved
    for parameter, direction in drawn.items():
        if isinstance(direction, Factors):
            gradient = np.random.default_rng(0).standard_normal(parameter.variable.shape)
            assert direction.dense().shape == parameter.variable.shape
            slope = direction.slope(gradient)
            assert slope == pytest.approx(float(np.sum(direction.dense() * gradient)), rel=1e-12)


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[Together]:
    """The graphs that were built."""
    found: list[Together] = []

    def counting(*arguments: Any, **options: Any) -> Together:
        found.append(Together(*arguments, **options))
        return found[-1]

    monkeypatch.setattr(tfcheck.units.apart, "Together", counting)
    return found


def test_places_are_counted_and_a_graph_is_built_once(built: list[Together]) -> None:
    """Every place counts as an evaluation; another point and direction need no other graph."""
    keras.utils.set_random_seed(1)
    model = few()
    objective, base = at(model)
    parameter = objective.parameters[0]
    direction = np.ones(parameter.variable.shape)
    first = Around(objective).line(base, {parameter: direction})(PLACES)
    assert objective.evaluations == len(PLACES)
    inputs = list(base.inputs)
    inputs[parameter.inputs[0]] += 2.0
    other = Around(objective).line(replace(base, inputs=tuple(inputs)), {parameter: -direction})
    assert not np.any(np.isclose(other(PLACES), first))
    assert objective.evaluations == 2 * len(PLACES)
    assert len(built) == 1


def test_what_stands_still_before_a_layer_that_blocks_is_known() -> None:
    """The loss as a whole is given what units are given that the tape has no gradient of."""
    frozen = layers.Dense(5, "tanh", trainable=False)
    rounded = layers.Lambda(lambda x: tf.round(4 * x), output_shape=(4,))
    flat = layers.Flatten()
    model = keras.Sequential(
        [keras.Input((6, 6, 2)), flat, frozen, layers.Dense(4), rounded, layers.Dense(3)]
    )
    objective, base = at(model)
    assert_same(objective, base, [p for p in objective.parameters if p.inputs])


def test_a_place_that_is_refused_is_nan_alone() -> None:
    """Where an operation refuses one place of a line, the others keep their values."""

    class Root(layers.Layer):  # type: ignore[misc]
        def build(self, _shape: Any) -> None:
            self.matrix = self.add_weight(shape=(2, 2), initializer="identity", name="matrix")

        def call(self, x: Any) -> Any:
            return x @ tf.linalg.cholesky(self.matrix)

    model = keras.Sequential([keras.Input((6, 6, 2)), Root(), layers.Flatten(), layers.Dense(3)])
    objective, base = at(model)
    matrix = objective.parameters[0]
    found = Around(objective).line(base, {matrix: np.eye(2)})([0.25, -4.0, 0.5])
    assert list(np.isfinite(found)) == [True, False, True]


def test_one_check_of_a_small_model_builds_no_graphs_for_lines(built: list[Together]) -> None:
    """What is used once only is measured place by place."""
    objective, base = at(few())
    parameter = objective.parameters[0]
    values = Around(objective, once=True).line(base, {parameter: np.ones(parameter.variable.shape)})
    assert np.all(np.isfinite(values(PLACES)))
    assert not built


def test_scores_do_not_depend_on_how_keras_numbers_names() -> None:
    """A model that is built a second time in one process gets other names, and the same scores."""
    reports = []
    for _ in range(2):
        keras.utils.set_random_seed(1)
        model = few()
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        x, y = np.random.default_rng(0).standard_normal((4, 6, 6, 2)), np.arange(4) % 3
        reports.append(check_gradients(model, x, y))
    first, second = ({v.path: v.score for v in report.variables} for report in reports)
    assert first.keys() != second.keys()
    assert list(first.values()) == list(second.values())
