"""Right models: what a case is, where it is entered, and the networks that cases are made of.

The cases are in the files `right_*.py`, by theme.
"""

# mypy: allow-subclassing-any

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

Call = Callable[..., Any]
L = keras.layers


@dataclass(frozen=True)
class Case:
    """A right model and a batch on which it is hard to see that it is.

    Attributes:
        model: a built and compiled model.
        x: inputs of the batch.
        y: targets of the batch. Defaults to None.
        sample_weight: weights of the samples. Defaults to None.
        reason: a reason that some variable must pass with. Defaults to any.
        options: options of the check. Defaults to none.
        raw: variables that the model trains and Keras does not list. Defaults to none.
    """

    model: keras.Model
    x: Any
    y: Any = None
    sample_weight: Any = None
    reason: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    raw: tuple[tf.Variable, ...] = ()


Build = Callable[[np.random.Generator], Case]
TRICKY: dict[str, Build] = {}
OUT_OF_REACH: dict[str, Build] = {}
"""Right models of which nothing can be said: they may stay open, but must not be accused."""


def tricky(build: Build) -> Build:
    """Enter a builder of a right model in the table, under its name."""
    return _entered(build, TRICKY)


def out_of_reach(build: Build) -> Build:
    """Enter a builder in the table of right models that may stay open."""
    return _entered(build, OUT_OF_REACH)


def _entered(build: Build, table: dict[str, Build]) -> Build:
    name = build.__name__.replace("_", " ")
    assert name not in table, f"two cases are called {name}"
    table[name] = build
    return build


def net(
    *layers: keras.layers.Layer,
    shape: tuple[int | None, ...] = (3,),
    dtype: str | None = None,
    **how: Any,
) -> keras.Model:
    """A compiled network of these layers."""
    model = keras.Sequential([keras.Input(shape, dtype=dtype), *layers], name="net")
    model.compile(**{"optimizer": "sgd", "loss": "mse", **how})
    return model


def around(*middle: keras.layers.Layer, width: int = 4, **how: Any) -> keras.Model:
    """A network with some layers between two dense ones."""
    return net(L.Dense(width, name="before"), *middle, L.Dense(2, name="after"), **how)


def dense(width: int = 4, **options: Any) -> keras.layers.Layer:
    """A dense layer with a smooth activation."""
    return L.Dense(width, **{"activation": "tanh", **options})


def vectors(rng: np.random.Generator, count: int = 6) -> tuple[Any, Any]:
    """Inputs and targets for `net` and `around`."""
    return rng.normal(size=(count, 3)), rng.normal(size=(count, 2))


def series(rng: np.random.Generator, count: int = 3) -> tuple[Any, Any]:
    """Sequences of five steps with three features, and two targets for each sequence."""
    return rng.normal(size=(count, 5, 3)), rng.normal(size=(count, 2))


def images(rng: np.random.Generator, count: int = 2) -> tuple[Any, Any]:
    """Images of 6×6 pixels with two channels, and two targets for each."""
    return rng.normal(size=(count, 6, 6, 2)), rng.normal(size=(count, 2))


class Wired(keras.Model):
    """A subclassed model: `wire(model, x, training)` is its call, `parts` are its layers."""

    def __init__(self, wire: Call, parts: dict[str, Any]) -> None:
        super().__init__(name="wired")
        self.wire = wire
        for name, part in parts.items():
            setattr(self, name, part)

    def call(self, x: Any, training: bool = False) -> Any:
        return self.wire(self, x, training)


def wired(wire: Call, x: Any, how: dict[str, Any] | None = None, **parts: Any) -> keras.Model:
    """A built and compiled `Wired` model."""
    model = Wired(wire, parts)
    model(keras.tree.map_structure(_as_trained, x))
    model.compile(**{"optimizer": "sgd", "loss": "mse", **(how or {})})
    return model


def _as_trained(leaf: Any) -> Any:
    if isinstance(leaf, tf.RaggedTensor | tf.SparseTensor):
        return leaf
    tensor = tf.convert_to_tensor(leaf)
    return tf.cast(tensor, tf.float32) if tensor.dtype.is_floating else tensor


class OwnStep(keras.Sequential):
    """A model whose train_step is the function `step(model, x, y)`, which returns the loss."""

    step: Call

    def train_step(self, batch: Any) -> Any:
        x, y, _ = keras.utils.unpack_x_y_sample_weight(batch)
        return {"loss": self.step(self, x, y)}


def stepping(step: Call, *layers: Any, shape: tuple[int, ...] = (3,), **how: Any) -> keras.Model:
    """A compiled `OwnStep` model."""
    model = OwnStep([keras.Input(shape), *layers], name="own")
    model.step = step
    model.compile(**{"optimizer": "sgd", "loss": "mse", **how})
    return model


def descend(model: Any, tape: Any, loss: Any) -> Any:
    """One step of the model's optimizer."""
    gradients = tape.gradient(loss, model.trainable_variables)
    model.optimizer.apply(gradients, model.trainable_variables)
    return loss
