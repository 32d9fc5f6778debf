"""Mismatches that are meant: straight-through estimators, gradient reversal and the like.

A pattern may name variables, or a layer. A layer whose own backward pass is not its derivative
corrupts every variable before it; where it is declared, these count as declared with it, as long
as every other layer between is right.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import keras

from tfcheck.errors import ArgumentError, rule
from tfcheck.examine.finding import layer_of
from tfcheck.internals import sublayers
from tfcheck.objective.objective import Objective
from tfcheck.variables import path_of

_SHOWN = 40


@dataclass(frozen=True)
class Declared:
    """What `expected_mismatch` names.

    Attributes:
        variables: paths of the variables.
        layers: paths of the layers; also `"loss"` and `"train_step"`, for what is wrong outside of
            them.
    """

    variables: frozenset[str] = frozenset()
    layers: frozenset[str] = frozenset()


def declared_by(
    objective: Objective, patterns: Sequence[str], model: keras.Layer, others: Iterable[str] = ()
) -> Declared:
    """The variables and layers that the patterns declare; every pattern must match one.

    A pattern may leave out the model's own name, which Keras numbers. `"vq/*"` declares the
    variables of the layer `vq` and the layer itself; `"loss"` and `"train_step"` declare what is no
    derivative outside of all layers.

    Args:
        objective: the objective, for the variables' paths.
        patterns: patterns as in `fnmatch`.
        model: the model, for the layers' paths.
        others: paths of variables that no tape is asked for. Defaults to none.

    Raises:
        ArgumentError: for a pattern that matches nothing.
    """
    if not patterns:
        return Declared()
    variables = {parameter.path for parameter in objective.parameters if not parameter.within}
    variables |= set(others)
    layers = {path_of(layer) for layer in sublayers(model) if layer is not model}
    layers |= {layer_of(path) for path in variables - set(others)}
    outside = {"loss", "train_step"} & set(patterns)
    known = variables | layers | outside | {f"{path}/" for path in layers}
    for pattern in patterns:
        if not any(_names(pattern, path, model.name) for path in known):
            shown = sorted(layers)[:_SHOWN]
            more = f" and {len(layers) - _SHOWN} more" if len(layers) > _SHOWN else ""
            raise ArgumentError(
                rule(
                    "Every pattern of expected_mismatch must match a layer or a variable",
                    "pattern",
                    pattern,
                    f"The layers are {', '.join(shown)}{more}; variables are layer/name",
                )
            )
    named = frozenset(
        path
        for path in layers
        if any(
            _names(pattern, name, model.name) for pattern in patterns for name in (path, f"{path}/")
        )
    )
    return Declared(
        variables=frozenset(
            path
            for path in variables
            if layer_of(path) in named
            or any(_names(pattern, path, model.name) for pattern in patterns)
        ),
        layers=named | outside,
    )


def _names(pattern: str, path: str, model: str) -> bool:
    """Whether a pattern matches a path, with or without the model's name."""
    return any(
        fnmatch.fnmatchcase(name, pattern) for name in (path, path.removeprefix(f"{model}/"))
    )
