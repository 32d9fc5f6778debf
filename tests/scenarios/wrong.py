"""Wrong models: what a plant is, where it is entered, and what plants are made of.

The plants are in the files `wrong_*.py`, by theme.
"""

# mypy: allow-subclassing-any

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfcheck import Verdict

Call = Callable[..., Any]


@dataclass(frozen=True)
class Plant:
    """A model with one wrong gradient, a batch, and what a check must say of them.

    Attributes:
        model: a built and compiled model.
        x: inputs of the batch.
        y: targets of the batch.
        wrong: paths of exactly the variables whose gradient is wrong.
        culprits: what the report must name.
        reason: the reason with which every wrong variable fails.
        options: options of the check.
        sample_weight: weights of the batch's samples.
        verdict: what the report and every wrong variable come to.
    """

    model: keras.Model
    x: Any
    y: Any
    wrong: set[str]
    culprits: tuple[str, ...]
    reason: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    sample_weight: Any = None
    verdict: Verdict = Verdict.FAIL


Build = Callable[[np.random.Generator], Plant]
PLANTED: dict[str, Build] = {}
NOT_YET: dict[str, Build] = {}
"""Models in which a wrong layer is not reached by any gradient yet."""


def planted(build: Build) -> Build:
    """Enter a builder of a wrong model in the table, under its name."""
    return _entered(build, PLANTED)


def not_yet(build: Build) -> Build:
    """Enter a builder in the table of what is wrong once a gradient goes there."""
    return _entered(build, NOT_YET)


def _entered(build: Build, table: dict[str, Build]) -> Build:
    name = build.__name__.replace("_", " ")
    assert name not in table, f"two plants are called {name}"
    table[name] = build
    return build


def around(
    middle: keras.layers.Layer | list[keras.layers.Layer],
    *,
    width: int = 4,
    **dense: Any,
) -> keras.Model:
    """A network `net` with a layer between the dense layers `before` and `after`."""
    layers = middle if isinstance(middle, list) else [middle]
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(width, name="before", **dense),
            *layers,
            keras.layers.Dense(2, name="after"),
        ],
        name="net",
    )
    model.compile("sgd", "mse")
    return model


def vectors(rng: np.random.Generator, count: int = 6) -> tuple[Any, Any]:
    """Inputs and targets for `around`."""
    return rng.normal(size=(count, 3)), rng.normal(size=(count, 2))


BEFORE = {"net/before/kernel", "net/before/bias"}


class Handing(keras.Sequential):
    """A model whose train_step changes the gradients on their way to the optimizer."""

    change: Call

    def train_step(self, batch: Any) -> Any:
        x, y = batch
        with tf.GradientTape() as tape:
            loss = self.compute_loss(y=y, y_pred=self(x, training=True))
        gradients = self.change(tape.gradient(loss, self.trainable_variables))
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return {"loss": loss}


def handing(change: Call) -> keras.Model:
    """A `Handing` model of two layers with equal shapes."""
    model = Handing(
        [
            keras.Input((3,)),
            keras.layers.Dense(3, activation="tanh", name="one"),
            keras.layers.Dense(3, name="two"),
        ],
        name="net",
    )
    model.change = change
    model.compile("sgd", "mse")
    return model


class Stepping(keras.Sequential):
    """A model whose train_step is `step(model, x, y, sample_weight)`, which returns its loss."""

    step: Call

    def train_step(self, batch: Any) -> Any:
        return {"loss": self.step(self, *keras.utils.unpack_x_y_sample_weight(batch))}


def stepping(step: Call, *compiled: Any, penalty: float = 0.0, **how: Any) -> keras.Model:
    """A `Stepping` model `net` of the dense layers `one` and `two`, compiled as told.

    Args:
        step: the training step.
        compiled: the arguments of `compile`; the optimizer alone says that there is no loss.
            Defaults to `"sgd", "mse"`.
        penalty: factor of the L2 regularisation of both kernels.
        how: keyword arguments of `compile`.
    """
    penalised = {"kernel_regularizer": keras.regularizers.L2(penalty)} if penalty else {}
    model = Stepping(
        [
            keras.Input((3,)),
            keras.layers.Dense(3, activation="tanh", name="one", **penalised),
            keras.layers.Dense(3, name="two", **penalised),
        ],
        name="net",
    )
    model.step = step
    model.compile(*(compiled or ("sgd", "mse")), **how)
    return model


def on_the_tape(loss: Call) -> Call:
    """A step that trains `loss(model, x, y, sample_weight)`."""

    def step(model: Any, *batch: Any) -> Any:
        with tf.GradientTape() as tape:
            value = loss(model, *batch)
        variables = model.trainable_variables
        model.optimizer.apply(tape.gradient(value, variables), variables)
        return value

    return step


def error(y: Any, y_pred: Any) -> Any:
    """The mean squared error, by hand."""
    return tf.reduce_mean((y_pred - y) ** 2)


def threes(rng: np.random.Generator) -> tuple[Any, Any]:
    """Inputs and targets for `stepping`."""
    return rng.normal(size=(6, 3)), rng.normal(size=(6, 3))


KERNELS = {"net/one/kernel", "net/two/kernel"}
EVERYTHING = KERNELS | {"net/one/bias", "net/two/bias"}
STEP = ("train_step",)
