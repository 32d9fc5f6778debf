"""How many steps a training has made: what really steps is counted.

Keras makes an optimizer for every model, also for one that is compiled with optimizers of its own
and never steps Keras's: a GAN would be at step 0 for ever.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from tfcheck.internals import sublayers


class StepCount:
    """Counts the steps of one model.

    What is counted is decided once, when the first batch is through: the model's own optimizer if
    it has moved; else, of the other optimizers that the model holds, the one that has made the
    most steps; else batches.

    Args:
        model: the model that is trained.
        batches: how many batches it has been trained on before, as far as that is known.

    Attributes:
        note: one sentence for a reader where it is not the model's own optimizer that is counted,
            else `""`.
        batches: how many batches are through.
    """

    def __init__(self, model: keras.Model, batches: int = 0) -> None:
        self.model = model
        self.note = ""
        self.batches = self._first_batch = self._read_at = batches
        self._decided = False
        self._optimizer: Any = None
        self._optimizers = list(_optimizers(model))
        self._at_first = {name: _counters(optimizer) for name, optimizer in self._optimizers}
        self._rate = 1.0
        self._begin: int | None = None
        self._last = self._begin = self.steps()

    def more_batches(self, count: int) -> None:
        """Note that so many more batches are through. Costs nothing."""
        self.batches += count

    def may_have_reached(self, step: float) -> bool:
        """Whether it is worth reading the counter to see if this step is made."""
        if step == math.inf:
            return False
        most = self._last + math.ceil(self._rate * (self.batches - self._read_at))
        return not self._decided or most >= step

    def steps(self) -> int:
        """The steps so far. Reading an optimizer's counter waits for the device."""
        if not self._decided:
            self._decide()
        if self._optimizer is not None:
            self._last = _iterations(self._optimizer)
        elif self._decided:
            self._last = self.batches
        else:
            self._last = self._first_batch
        self._read_at = self.batches
        if self._begin is not None and self.batches > self._first_batch:
            rate = (self._last - self._begin) / (self.batches - self._first_batch)
            self._rate = max(self._rate, rate)
        return self._last

    def _decide(self) -> None:
        moved = [(name, optimizer) for name, optimizer in self._optimizers if self._moved(name)]
        if not moved and self.batches == self._first_batch:
            return  # nothing has been trained yet that could tell
        self._decided = True
        own = dict(moved).get("optimizer")
        if own is not None:
            self._optimizer = own
        elif moved:
            name, self._optimizer = max(moved, key=lambda item: _iterations(item[1]))
            self.note = (
                f"Steps are those of the optimizer `{name}`: the one that the model was compiled "
                "with makes none."
            )
        else:
            self.note = "Steps are batches: no optimizer that the model holds makes any."

    def _moved(self, name: str) -> bool:
        optimizer = dict(self._optimizers)[name]
        before = self._at_first[name]
        now = _counters(optimizer)
        return _iterations(optimizer) > 0 or any(now[key] != before[key] for key in before)


def _optimizers(model: keras.Model) -> Iterator[tuple[str, Any]]:
    """The optimizers that a model and the models in it hold, each once, with where they are."""
    seen: set[int] = set()
    for layer in sublayers(model):
        prefix = "" if layer is model else f"{layer.name}."
        # What TensorFlow notes for itself, under names that begin like this, repeats the rest.
        held = {name: value for name, value in vars(layer).items() if not name.startswith("_self_")}
        for name, value in held.items():
            for place, item in _items(name.lstrip("_"), value):
                if isinstance(item, keras.optimizers.Optimizer) and id(item) not in seen:
                    seen.add(id(item))
                    yield f"{prefix}{place}", item


def _items(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """A value, or what lists and dicts hold; the optimizer within one that scales the loss, too."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _items(f"{name}[{key!r}]", item)
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            yield from _items(f"{name}[{place}]", item)
    else:
        yield name, value
        if isinstance(value, keras.optimizers.LossScaleOptimizer):
            yield f"{name}.inner_optimizer", value.inner_optimizer


def _iterations(optimizer: Any) -> int:
    return int(np.asarray(optimizer.iterations))


def _counters(optimizer: Any) -> dict[int, float]:
    """An optimizer's counters, which move even while it gathers gradients or skips steps.

    Its learning rate is left out: schedules change that of an optimizer that never steps, too.
    """
    return {
        id(variable): float(np.asarray(variable))
        for variable in optimizer.variables
        if variable.shape == () and variable.name != "learning_rate"
    }
