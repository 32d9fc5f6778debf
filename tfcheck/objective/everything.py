"""All there is to know at a point, in one evaluation of the whole float64 graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfcheck.errors import telling_line
from tfcheck.graph.excerpts import callable_part
from tfcheck.objective.float64_step import Float64Step
from tfcheck.objective.losses import Losses
from tfcheck.objective.point import Base, as_floats, spread
from tfcheck.trace.recording import TapeCall
from tfcheck.trace.refusals import does_not_run
from tfcheck.units.apart import Apart


class Everything:
    """A step's losses, gradients, and what units give each other, all at once.

    Args:
        step: the step in float64.
        losses: its losses one by one, for where not all of it can be evaluated.
        calls: for each loss the call of a tape that it stands for.
        apart: for each loss its units; None where they cannot be told apart.
        source: what was traced.
    """

    def __init__(
        self,
        step: Float64Step,
        losses: Losses,
        calls: Sequence[TapeCall],
        apart: Sequence[Apart | None],
        source: str,
    ) -> None:
        self._step = step
        self._losses = losses
        self._calls = calls
        self._source = source
        fetches = dict.fromkeys(n for units in apart if units is not None for n in units.fetches)
        element = step.promoted.graph.as_graph_element
        outputs = {**step.outputs, "units": {name: element(name) for name in fetches}}
        self._whole = callable_part(step.promoted.excerpts, step.feeds.inputs, outputs)

    def at(self, inputs: Sequence[tf.Tensor]) -> Base:
        """What there is at a point; nothing is known there of the step as it trains.

        Args:
            inputs: the inputs of the step in float64.

        Raises:
            TraceError: if not even the losses can be evaluated.
        """
        found = self._evaluated(inputs)
        return Base(
            inputs=(*inputs, *found["held"]),
            losses=tuple(map(float, found["losses"])),
            losses_as_trained=(),
            scales=tuple(map(_scale, found["scales"])),
            gradients=tuple(
                gradient
                for call, of_call in zip(self._calls, found["gradients"], strict=True)
                for gradient in spread(call, of_call)
            ),
            errors=found["errors"],
            applied=tuple(map(as_floats, found["applied"])),
            divisors=tuple(map(float, found["divisors"])),
            factors=tuple(map(_with_inverses, found["factors"])),
            units=found["units"],
        )

    def _evaluated(self, inputs: Sequence[tf.Tensor]) -> dict[str, Any]:
        """The outputs of the graph, with the errors of tapes that cannot run."""
        errors = tuple(call.error for call in self._calls)
        try:
            return {**self._whole(*inputs), "errors": errors}
        except tf.errors.OpError as error:
            failure = error
        excerpts, outputs = self._step.promoted.excerpts, self._step.outputs
        forward = {name: outputs[name] for name in ("losses", "held", "scales")}
        try:
            found = callable_part(excerpts, self._step.feeds.inputs, forward)(*inputs)
        except tf.errors.OpError as error:
            raise does_not_run(error, self._source) from failure
        nothing: dict[str, Any] = {"applied": [], "divisors": [], "factors": [], "units": {}}
        return {**found, **nothing, **self._one_by_one((*inputs, *found["held"]))}

    def _one_by_one(self, point: Sequence[tf.Tensor]) -> dict[str, Any]:
        """The gradients of those tapes that can run, and the errors of the others."""
        gradients, errors = [], []
        for loss, call in enumerate(self._calls):
            error = call.error
            try:
                gradients.append(self._losses.gradients(loss, point))
            except tf.errors.OpError as failure:
                error = f"{type(failure).__name__}: {telling_line(failure.message)}"
                gradients.append([None for gradient in call.gradients if gradient is not None])
            errors.append(error)
        return {"gradients": gradients, "errors": tuple(errors)}


def _scale(found: tf.Tensor) -> float:
    """The loss scale inside a loss; 1 where the loss does not tell it, being zero or infinite."""
    return float(found) if np.isfinite(found) and found != 0 else 1.0


def _with_inverses(factors: Sequence[Any]) -> tuple[float, ...]:
    """The factors of a loss, and what it would be multiplied with if it was divided by them."""
    found = [float(value) for value in factors]
    return tuple(f for factor in found if factor for f in (factor, 1 / factor))
