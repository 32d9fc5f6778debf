"""What a trace has baked in, which the trace that `fit` makes for itself may not have.

A step is traced before the first step is made, where that is checked; `fit` traces its own with the
first step, and once more when that has made variables. Until then a loss scale is a number, flags
say that nothing was initialised yet, and what a step makes for itself at its first run is missing.
Later changes are in neither trace.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from tfcheck.internals import sublayers


class Baked:
    """What was read in Python while a step was traced.

    Args:
        owner: the model or layer that the step belongs to.
        scaling: the optimizers that scaled a loss, and whether each was built.
        final: whether `fit` has its own trace already, so that this one reads no later values.
    """

    def __init__(
        self, owner: keras.Layer, scaling: Sequence[tuple[Any, bool]], *, final: bool
    ) -> None:
        self._scaling = tuple(scaling)
        self._final = final
        self._attributes = {} if final else _attributes(owner)

    def is_stale(self, owner: keras.Layer, *, final: bool) -> bool:
        """Whether `fit` runs another trace by now.

        Args:
            owner: the model or layer.
            final: whether `fit` has its own trace by now.
        """
        if any(optimizer.built != built for optimizer, built in self._scaling):
            return True
        if self._final:
            return False
        self._final = final
        return _attributes(owner) != self._attributes


def _attributes(owner: keras.Layer) -> dict[tuple[int, str], Any]:
    """The attributes that a model and its layers have in classes of one's own.

    Of what is no plain value only the kind is told, such as that a list stands where None did.
    """
    return {
        (id(layer), name): value if isinstance(value, _PLAIN) else type(value)
        for layer in sublayers(owner)
        if not type(layer).__module__.startswith("keras.")
        for name, value in vars(layer).items()
        if name not in _OF_KERAS
    }


_OF_KERAS = frozenset(
    {
        "_called",
        "_eval_epoch_iterator",
        "history",
        "predict_function",
        "stop_evaluating",
        "stop_predicting",
        "stop_training",
        "test_function",
    }
)
"""What Keras itself notes in a layer or model while it trains."""

_PLAIN = (bool, int, float, str, type(None))
