"""Naming the culprit: the layers whose own backward pass is wrong.

A layer that hands a wrong gradient to its input corrupts every variable before it while its own
pass. So each layer is checked alone, on the inputs it saw, with random weights on its output: for
those inputs, and for its variables that failed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
import numpy as np

from tfcheck.batch import Batch
from tfcheck.errors import TfcheckError
from tfcheck.examine import Examination, Progress
from tfcheck.objective import Objective
from tfcheck.report import Settings, VariableReport
from tfcheck.tracing import LossFunction, trace_step
from tfcheck.verdict import Verdict

_WRONG = (Verdict.FAIL, Verdict.SUSPECT)


def find_culprits(
    model: keras.Model,
    batch: Batch,
    variables: Sequence[VariableReport],
    settings: Settings,
    *,
    loss_fn: LossFunction | None,
    progress: Progress,
) -> tuple[str, ...]:
    """The layers whose own backward pass is wrong, given that some variables failed.

    Args:
        model: the model.
        batch: the debug batch.
        variables: what was found of the variables that count.
        settings: the options of the check.
        loss_fn: what replaced the train step's loss, if anything did.
        progress: called as the search goes on.

    Returns:
        Paths of the culprits in the order of their calls; `"loss"` or `"train_step"` when no layer
        fails alone; nothing when no variable failed.
    """
    failed = {variable.path for variable in variables if variable.verdict is Verdict.FAIL}
    if not failed:
        return ()
    progress("looking for the culprit", 0, 1)
    try:
        traced = trace_step(model, batch, loss_fn=loss_fn, phase=settings.phase, layers=True)
        objective = Objective(traced)
        base = objective.at(batch)
    except TfcheckError:
        return ()
    layer_calls = traced.recording.layer_calls
    suspects = _Suspects(Examination(objective, base, settings, progress), failed)
    first = len(base.losses) - len(layer_calls)
    loss_of = {id(call): first + position for position, call in enumerate(layer_calls)}
    guilty: dict[int, bool] = {}
    culprits: list[str] = []
    for done, call in enumerate(layer_calls):
        progress("looking for the culprit", done, len(layer_calls))
        within = any(guilty[id(child)] for child in call.children)
        alone = not within and suspects.fails(loss_of[id(call)])
        guilty[id(call)] = within or alone
        if alone:
            culprits.append(call.path)
    if culprits:
        return tuple(dict.fromkeys(culprits))
    losses = range(objective.steps, first)
    in_loss = any(suspects.fails(loss) for loss in losses)
    own_step = type(model).train_step is not keras.Model.train_step
    in_step = not in_loss and own_step and loss_fn is None and settings.phase == "train"
    return ("train_step",) if in_step else ("loss",)


class _Suspects:
    """Checks single losses of an objective in which layers were listened to."""

    def __init__(self, examination: Examination, failed: set[str]) -> None:
        self._examination = examination
        self._failed = failed

    def fails(self, loss: int) -> bool:
        """Whether a gradient of this loss is wrong: of a cut input or a variable that failed."""
        objective, base = self._examination.objective, self._examination.base
        if not math.isfinite(base.losses[loss]):
            return self._makes_nonfinite(loss)
        return any(
            self._examination.examine_one(position).report.verdict in _WRONG
            for position, parameter in enumerate(objective.parameters)
            if parameter.loss == loss and (parameter.within or parameter.path in self._failed)
        )

    def _makes_nonfinite(self, loss: int) -> bool:
        """Whether a loss that is not finite came from finite inputs."""
        objective, base = self._examination.objective, self._examination.base
        return all(
            bool(np.all(np.isfinite(base.inputs[position])))
            for parameter in objective.parameters
            if parameter.loss == loss
            for position in parameter.inputs
        )
