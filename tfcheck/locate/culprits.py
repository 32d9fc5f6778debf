"""Naming the culprit: the layers whose own backward pass is wrong.

A layer that hands a wrong gradient to its input corrupts every variable before it while its own
pass. Where the units of a step were told apart, the wrong ones are known; in a step that runs
eagerly, each layer is called again by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass

from tfcheck.graph.division import OUTSIDE
from tfcheck.locate.suspects import Suspects
from tfcheck.progress import Progress
from tfcheck.trace.layers import EagerCall
from tfcheck.trace.steps import Step


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
    suspects: Suspects, failed: Set[str], *, declared: Set[str] = frozenset(), outside: str
) -> Culprits:
    """The layers whose own backward pass is wrong, given that some variables failed.

    Args:
        suspects: the units of the step that may be to blame.
        failed: paths of the variables whose gradients are wrong.
        declared: paths of the layers whose backward pass is meant to be no derivative.
        outside: how what is in no layer is named.
    """
    culprits: list[str] = []
    explained: set[str] = set()
    for suspect in suspects.guilty():
        path = outside if suspect.path == OUTSIDE else suspect.path
        if path in declared:
            explained |= failed & suspect.before
        else:
            culprits.append(path)
    if culprits:
        return Culprits(tuple(dict.fromkeys(culprits)))
    if failed <= explained:
        return Culprits(explained=frozenset(explained))
    return _outside_layers(outside, declared, failed, explained)


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


def _outside_layers(
    where: str, declared: Set[str], failed: Set[str], explained: Set[str]
) -> Culprits:
    """No layer fails alone: the fault is in the loss or the step, unless that is declared."""
    if where in declared:
        return Culprits(explained=frozenset(explained | failed))
    return Culprits((where,), frozenset(explained))
