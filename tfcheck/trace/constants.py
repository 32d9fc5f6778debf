"""What a tape takes for constant: values of the step that were made while it did not record.

Targets that are bootstrapped, old policies, adversarial inputs: a step makes them from the weights,
before its tape, in order that they are not differentiated. So differences hold them, too. But a
term of the loss that was made too early, or a weight that was, is a mistake that differences are to
show: what enters a target as one of its summands, and what does not depend on the batch, is not
held.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from typing import Any

import tensorflow as tf

from tfcheck.trace.recording import TapeCall

_SUMS = frozenset({"AddV2", "Add", "AddN", "Sub", "Identity", "Cast", "Mul", "RealDiv", "Neg"})


def constants_of(
    graph: Any, calls: Sequence[TapeCall], batch: Iterable[tf.Tensor], variables: Set[str]
) -> list[tuple[tf.Tensor, ...]]:
    """For each call of a tape, the tensors that it takes for constant.

    Args:
        graph: the traced graph.
        calls: the calls of tapes.
        batch: the placeholders of the batch.
        variables: names of the placeholders of the variables.
    """
    operations = graph.get_operations()
    position_of = {operation.name: position for position, operation in enumerate(operations)}
    from_both = _depending(operations, {tensor.op.name for tensor in batch})
    from_both &= _depending(operations, variables)

    def within(operation: Any, spans: Sequence[tuple[int, int]]) -> bool:
        return any(start <= position_of[operation.name] < end for start, end in spans)

    found = []
    for call in calls:
        summed = _summed(call.targets)
        constants: dict[str, tf.Tensor] = {}
        pending = [t for t in call.targets if call.spans and within(t.op, call.spans)]
        seen = {tensor.op.name for tensor in pending}
        while pending:
            operation = pending.pop().op
            for tensor in operation.inputs:
                if within(tensor.op, call.spans):
                    if tensor.op.name not in seen:
                        seen.add(tensor.op.name)
                        pending.append(tensor)
                elif (
                    tensor.op.name in from_both
                    and tensor.dtype.is_floating
                    and not (tensor.shape.rank == 0 and operation.name in summed)
                ):
                    constants[tensor.name] = tensor
        found.append(tuple(constants.values()))
    return found


def _depending(operations: Iterable[Any], sources: Set[str]) -> set[str]:
    """Names of the operations that depend on the sources."""
    found = set(sources)
    for operation in operations:
        if any(tensor.op.name in found for tensor in operation.inputs):
            found.add(operation.name)
    return found


def _summed(targets: Iterable[tf.Tensor]) -> set[str]:
    """Names of the operations that sum up the targets from scalars."""
    pending, found = list(targets), set[str]()
    while pending:
        operation = pending.pop().op
        if operation.type in _SUMS and operation.name not in found:
            found.add(operation.name)
            pending += [tensor for tensor in operation.inputs if tensor.shape.rank == 0]
    return found
