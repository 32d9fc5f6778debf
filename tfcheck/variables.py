"""Variables of Keras and of TensorFlow: which are some, and what they and layers are called."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


def is_variable(value: Any) -> bool:
    """Whether this is a Keras or TensorFlow variable."""
    return isinstance(value, keras.Variable | tf.Variable)


def is_overwritten(variable: Any) -> bool:
    """Whether Keras puts what the tape gives for a variable in its place.

    That is its next value, such as the scale of numbers in eight bits, and no slope.
    """
    return bool(getattr(variable, "overwrite_with_gradient", False))


def name_of_variable(variable: Any) -> str:
    """The path of a Keras variable, the name of another."""
    return variable.path if isinstance(variable, keras.Variable) else variable.name.split(":")[0]


def path_of(layer: keras.Layer) -> str:
    """The path of a layer; its name, where it has none yet."""
    return layer.path or layer.name


def unique_paths(variables: Sequence[Any]) -> dict[int, str]:
    """A path for each variable; a path that several share is numbered from the second on."""
    paths: dict[int, str] = {}
    taken: dict[str, int] = {}
    for variable in variables:
        if id(variable) in paths:
            continue
        path = name_of_variable(variable)
        taken[path] = taken.get(path, 0) + 1
        paths[id(variable)] = path if taken[path] == 1 else f"{path}#{taken[path]}"
    return paths


def entries_of(variable: Any) -> int:
    """Number of entries of a variable, or of a tensor."""
    return math.prod(variable.shape)
