"""Naming the culprit: the layers whose own backward pass is wrong.

A layer that hands a wrong gradient to its input corrupts every variable before it while its own
pass. So each layer is checked alone, on the inputs it saw, with random weights on its output: for
those inputs, and for its variables that failed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass

import numpy as np

from tfcheck.batch import Batch
from tfcheck.examine import Examination
from tfcheck.listening import EagerCall
from tfcheck.objective import Objective
from tfcheck.point import Base
from tfcheck.progress import Progress
from tfcheck.report import Settings
from tfcheck.screen import cleared
from tfcheck.steps import Step
from tfcheck.verdict import Verdict

_WRONG = (Verdict.FAIL, Verdict.SUSPECT)


@dataclass(frozen=True)
class Culprits:
    """Where wrong gradients come from.

    Attributes:
        paths: the layers that fail alone, in the order of their calls; `"loss"` or `"train_step"`
            where none does.
        explained: paths of the failed variables whose gradients come through a declared layer that
            fails alone, and through no other.
    """

    paths: tuple[str, ...] = ()
    explained: frozenset[str] = frozenset()


def find_culprits(
    objective: Objective,
    batch: Batch,
    failed: Set[str],
    settings: Settings,
    *,
    declared: Set[str] = frozenset(),
    own_step: bool,
    progress: Progress,
) -> Culprits:
    """The layers whose own backward pass is wrong, given that some variables failed.

    Args:
        objective: the step, traced with its layers listened to.
        batch: the debug batch.
        failed: paths of the variables whose gradients are wrong.
        settings: the options of the check.
        declared: paths of the layers whose backward pass is meant to be no derivative.
        own_step: whether the step is a `train_step` of the user's own.
        progress: called as the search goes on.
    """
    base = objective.at(batch)
    examination = Examination(objective, base, settings, progress, verdicts_only=True)
    suspects = _Suspects(examination, failed)
    first = len(base.losses) - len(objective.layer_calls)
    guilty: dict[int, bool] = {}
    culprits: list[str] = []
    explained: set[str] = set()
    leaves = [first + n for n, call in enumerate(objective.layer_calls) if not call.children]
    clear = cleared(objective, base, leaves, settings.seed)
    for done, call in enumerate(objective.layer_calls):
        progress("looking for the culprit", done, len(objective.layer_calls))
        within = any(guilty[id(child)] for child in call.children)
        alone = not within and first + done not in clear and suspects.fails(first + done)
        guilty[id(call)] = within or alone
        if alone and call.path in declared:
            explained |= failed & objective.paths_before(first + done)
        elif alone:
            culprits.append(call.path)
    if culprits:
        return Culprits(tuple(dict.fromkeys(culprits)))
    if failed <= explained:
        return Culprits(explained=frozenset(explained))
    if objective.source == "layer":
        return Culprits((objective.layer_calls[-1].path,), frozenset(explained))
    if spoilt := _spoilt_in_training(objective, batch, base):
        return Culprits(spoilt, frozenset(explained))
    in_loss = any(suspects.fails(loss) for loss in range(objective.steps, first))
    in_step = own_step and not (in_loss and objective.uses_loss_objects)
    return _outside_layers("train_step" if in_step else "loss", declared, failed, explained)


def culprits_among(
    calls: Sequence[EagerCall],
    failed: Set[str],
    wrong_alone: Callable[[EagerCall], Set[str]],
    *,
    declared: Set[str],
    step: Step,
    progress: Progress,
) -> Culprits:
    """The layers whose own backward pass is wrong, in a step that runs eagerly.

    Args:
        calls: the calls of layers that the step makes, inner ones first.
        failed: paths of the variables whose gradients are wrong.
        wrong_alone: the paths of a layer's inputs and variables that are wrong when the call is
            made again by itself.
        declared: paths of the layers whose backward pass is meant to be no derivative.
        step: the step.
        progress: called as the search goes on.
    """
    guilty: dict[int, bool] = {}
    culprits: list[str] = []
    explained: set[str] = set()
    before: set[str] = set()
    for done, call in enumerate(calls):
        progress("looking for the culprit", done, len(calls))
        path = call.layer.path or call.layer.name
        within = any(guilty[id(child)] for child in call.children)
        own = {variable.path for variable in call.layer.variables}
        alone = not within and any(
            wrong in failed or wrong not in own for wrong in wrong_alone(call)
        )
        guilty[id(call)] = within or alone
        before |= own & failed
        if alone and path in declared:
            explained |= before
        elif alone:
            culprits.append(path)
    if culprits:
        return Culprits(tuple(dict.fromkeys(culprits)))
    if failed <= explained:
        return Culprits(explained=frozenset(explained))
    if step.source == "layer":
        return Culprits((step.owner.path or step.owner.name,))
    return _outside_layers("train_step" if step.own else "loss", declared, failed, explained)


def _spoilt_in_training(objective: Objective, batch: Batch, base: Base) -> tuple[str, ...]:
    """The innermost layers whose gradients only the training precision makes NaN or infinite."""
    spoilt: dict[int, bool] = {}
    found: list[str] = []
    if not objective.layer_calls:
        return ()
    trained = objective.layers_as_trained_at(batch, base)
    for call, gradients in zip(objective.layer_calls, trained, strict=True):
        within = any(spoilt[id(child)] for child in call.children)
        alone = any(g is not None and not np.all(np.isfinite(g)) for g in gradients)
        spoilt[id(call)] = within or alone
        if alone and not within:
            found.append(call.path)
    return tuple(dict.fromkeys(found))


def _outside_layers(
    where: str, declared: Set[str], failed: Set[str], explained: Set[str]
) -> Culprits:
    """No layer fails alone: the fault is in the loss or the step, unless that is declared."""
    if where in declared:
        return Culprits(explained=frozenset(explained | failed))
    return Culprits((where,), frozenset(explained))


class _Suspects:
    """Checks single losses of an objective in which layers were listened to."""

    def __init__(self, examination: Examination, failed: Set[str]) -> None:
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
