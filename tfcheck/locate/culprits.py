"""Naming the culprit: the layers whose own backward pass is wrong.

A layer that hands a wrong gradient to its input corrupts every variable before it while its own
pass. Where the units of a step were told apart, the wrong ones are known; in a step that runs
eagerly, each layer is called again by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace

from tfcheck.examine.finding import Finding
from tfcheck.graph.division import OUTSIDE
from tfcheck.judge.judgement import Judgement
from tfcheck.judge.reasons import OF_THE_STEP, Reason
from tfcheck.locate.declared import Declared
from tfcheck.locate.suspects import Suspects
from tfcheck.progress import Progress
from tfcheck.trace.layers import EagerCall
from tfcheck.trace.steps import Step
from tfcheck.variables import path_of


@dataclass(frozen=True)
class Culprits:
    """Where wrong gradients come from.

    Attributes:
        paths: the layers that fail alone, in the order of their calls; `"loss"` or `"train_step"`
            where none does.
        explained: paths of the variables whose gradients are meant to be wrong: declared ones, and
            those whose gradients come through a declared layer that fails alone, and through no
            other.
    """

    paths: tuple[str, ...] = ()
    explained: frozenset[str] = frozenset()

    def and_also(self, paths: Iterable[str]) -> Culprits:
        """The same with other paths after these, each once."""
        return replace(self, paths=tuple(dict.fromkeys([*self.paths, *paths])))

    def but_for(self, explained: Iterable[str]) -> Culprits:
        """The same with more variables that are meant to be wrong."""
        return replace(self, explained=self.explained.union(explained))


def find_culprits(suspects: Suspects, failed: Set[str], declared: Set[str], step: Step) -> Culprits:
    """The layers whose own backward pass is wrong, given that some variables failed.

    Args:
        suspects: the units of the step that may be to blame.
        failed: paths of the variables whose gradients are wrong.
        declared: paths of the layers whose backward pass is meant to be no derivative.
        step: the step.
    """
    outside = path_of(step.owner) if step.source == "layer" else outside_of_layers(step)
    blamed = (
        (outside if suspect.path == OUTSIDE else suspect.path, suspect.before)
        for suspect in suspects.guilty()
    )
    found = _not_declared(blamed, failed, declared)
    if found.paths or failed <= found.explained:
        return found
    return _outside_layers(outside, declared, failed, found)


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

    def looked_at() -> Iterator[EagerCall]:
        for done, call in enumerate(calls):
            progress("looking for the culprit", done, len(calls))
            yield call

    def is_wrong(call: EagerCall) -> bool:
        own = _own_variables(call)
        return any(wrong in failed or wrong not in own for wrong in wrong_alone(call))

    blamed = (
        (path_of(call.layer), _variables_up_to(call, calls))
        for call in innermost(looked_at(), is_wrong)
    )
    found = _not_declared(blamed, failed, declared)
    if found.paths or failed <= found.explained:
        return found
    if step.source == "layer":
        return Culprits((path_of(step.owner),))
    return _outside_layers(outside_of_layers(step), declared, failed, found)


def innermost(
    calls: Iterable[EagerCall], is_wrong: Callable[[EagerCall], bool]
) -> Iterator[EagerCall]:
    """The calls that are wrong, though none that is made within them is.

    Args:
        calls: calls of layers, inner ones first.
        is_wrong: whether a call is wrong by itself; asked only where none within is.
    """
    guilty: set[int] = set()
    for call in calls:
        if any(id(child) in guilty for child in call.children):
            guilty.add(id(call))
        elif is_wrong(call):
            guilty.add(id(call))
            yield call


def outside_of_layers(step: Step) -> str:
    """How what a step does outside of all layers is named."""
    return "train_step" if step.own else "loss"


def _own_variables(call: EagerCall) -> set[str]:
    return {variable.path for variable in call.layer.variables}


def _variables_up_to(call: EagerCall, calls: Iterable[EagerCall]) -> set[str]:
    """The paths of the variables of all layers that are called up to a call."""
    paths: set[str] = set()
    for one in calls:
        paths |= _own_variables(one)
        if one is call:
            break
    return paths


def _not_declared(
    blamed: Iterable[tuple[str, Set[str]]], failed: Set[str], declared: Set[str]
) -> Culprits:
    """Those to blame that are not declared; without them, what those explain that are.

    Args:
        blamed: the paths of those to blame, each with the variables before it.
        failed: paths of the variables whose gradients are wrong.
        declared: paths of the layers whose backward pass is meant to be no derivative.
    """
    culprits: list[str] = []
    explained: set[str] = set()
    for path, before in blamed:
        if path in declared:
            explained |= failed & before
        else:
            culprits.append(path)
    if culprits:
        return Culprits(tuple(dict.fromkeys(culprits)))
    return Culprits(explained=frozenset(explained))


def _outside_layers(where: str, declared: Set[str], failed: Set[str], found: Culprits) -> Culprits:
    """No layer fails alone: the fault is in the loss or the step, unless that is declared."""
    return found.but_for(failed) if where in declared else found.and_also([where])


def with_uses(
    found: Culprits,
    findings: Sequence[Finding],
    judgements: Mapping[str, Judgement],
    declared: Declared,
    step: Step,
) -> Culprits:
    """Culprits, with those who use gradients and weights in a way that was hardly meant.

    Args:
        found: the culprits whose gradients are wrong.
        findings: the findings for all variables.
        judgements: what is said of the variables so far, by path.
        declared: what is meant to differ.
        step: the step.
    """
    found = found.but_for(declared.variables)
    unmeasured = [f for f in findings if f.judgement.reason in _UNASKED]
    found = found.but_for(f.path for f in unmeasured if f.layer in declared.layers)
    found = found.and_also(
        finding.layer
        for finding in findings
        if judgements[finding.path].reason == Reason.UNTRACKED
        if finding.path not in found.explained
    )
    of_the_step = {path for path, said in judgements.items() if said.reason in OF_THE_STEP}
    outside = outside_of_layers(step)
    if outside in declared.layers:
        return found.but_for(of_the_step)
    return found.and_also([outside]) if of_the_step - found.explained else found


_UNASKED = (Reason.UNTRAINED, Reason.UNTRACKED)
