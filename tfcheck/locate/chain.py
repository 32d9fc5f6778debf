"""The layers of a step in a row, and which of them get their gradient through a culprit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set

import tensorflow as tf

from tfcheck.graph.division import LOSS, OUTSIDE, Division, before_all
from tfcheck.objective.objective import Objective
from tfcheck.report.chain import Link
from tfcheck.trace.layers import EagerCall
from tfcheck.trace.recording import TapeCall
from tfcheck.variables import path_of

_AT_THE_END = (LOSS, "train_step")


def chain_of_graph(
    objective: Objective, owner: str, culprits: Sequence[str], failed: Set[str]
) -> tuple[Link, ...]:
    """The layers that a traced step calls, in the order in which they compute its loss.

    Args:
        objective: the step.
        owner: the path of the model itself.
        culprits: paths of what is wrong by itself.
        failed: paths of the variables whose gradients are wrong.

    Returns:
        The layers, what is outside of all layers last, where that is the loss or a culprit; nothing
        where the graph is not divided into layers.
    """
    losses = [p.loss for p in objective.parameters if p.path in failed] or [0]
    call = objective.traced.call(losses[0])
    if call is None or call.division is None:
        return ()
    starts = {
        start.name
        for parameter in objective.parameters
        if parameter.path in failed and parameter.loss == losses[0]
        if (start := objective.traced.start(parameter)) is not None
    }
    corrupted = _corrupted(call, call.division, culprits, starts)
    outside = () if objective.facts.source == "layer" else (LOSS,)
    idle = {owner, *_wholes(call, call.division)} - set(culprits)
    paths = [path for path in call.division.paths if path not in idle]
    return _linked((*paths, *outside), culprits, corrupted)


def chain_of_run(
    calls: Sequence[EagerCall], owner: str, culprits: Sequence[str], failed: Set[str]
) -> tuple[Link, ...]:
    """The layers that a step calls which runs eagerly, in the order of their calls.

    Args:
        calls: the calls of layers, inner ones first.
        owner: the path of the model itself.
        culprits: paths of what is wrong by itself.
        failed: paths of the layers with variables whose gradients are wrong.
    """
    named = [(path_of(call.layer), bool(call.children)) for call in calls]
    told = {*culprits, *failed}
    paths = [path for path, whole in named if path in told or not (whole or path == owner)]
    paths = list(dict.fromkeys(paths))
    blamed = [place for place, path in enumerate(paths) if path in culprits]
    before = {path for path in paths[: max(blamed, default=None)] if path in failed}
    return _linked((*paths, LOSS), culprits, before - set(culprits))


def _linked(paths: Sequence[str], culprits: Sequence[str], corrupted: Set[str]) -> tuple[Link, ...]:
    """Paths in a row, each once, and those that are in no layer at its end."""
    layers = [path for path in dict.fromkeys(paths) if path not in (*_AT_THE_END, OUTSIDE, "")]
    missing = [path for path in culprits if path not in layers and path not in _AT_THE_END]
    ends = [path for path in _AT_THE_END if path in {*culprits, *({LOSS} & set(paths))}]
    return tuple(Link(path, path in corrupted) for path in [*layers, *missing, *ends])


def _wholes(call: TapeCall, division: Division) -> Set[str]:
    """The paths of the layers that compute nothing beside what the layers within them do."""
    computing = {
        division.path_of(operation)
        for operation in call.targets[0].graph.get_operations()
        if operation.type not in _HANDING_ON
    }
    return {
        path
        for path in set(division.paths) - computing
        if any(other.startswith(f"{path}/") for other in division.paths)
    }


_HANDING_ON = frozenset({"Cast", "Const", "EnsureShape", "Identity", "NoOp", "Reshape"})
"""What a model does with what it is given before it hands that to its layers."""


def _corrupted(
    call: TapeCall, division: Division, culprits: Sequence[str], starts: Set[str]
) -> Set[str]:
    """The paths of the layers on the way from failed variables to a culprit.

    Args:
        call: the tape's call.
        division: its units.
        culprits: paths of what is wrong by itself.
        starts: the names of the tensors that failed variables start from.
    """
    operations = call.targets[0].graph.get_operations()
    wrong = {*culprits, *([OUTSIDE] if set(culprits) & {*_AT_THE_END} else [])}
    own = [op for op in operations if division.path_of(op) in wrong]
    before = before_all(tensor for op in own for tensor in op.inputs)
    found = {division.path_of(op) for op in _moved_by(operations, starts) if op.name in before}
    return found - wrong - {"", OUTSIDE}


def _moved_by(operations: Iterable[tf.Operation], starts: Set[str]) -> Iterator[tf.Operation]:
    """The operations that depend on some tensors, in the order in which they were made."""
    moved = set(starts)
    for operation in operations:
        if any(tensor.name in moved for tensor in operation.inputs):
            moved |= {tensor.name for tensor in operation.outputs}
            yield operation
