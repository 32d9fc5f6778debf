"""What a traced graph, and its form in float64, tell of a step."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from tfcheck.errors import some
from tfcheck.formats import FLOAT64
from tfcheck.graph.excerpts import lowest_float
from tfcheck.graph.nodes import all_nodes, assigned_in, reachable
from tfcheck.objective.facts import StepFacts
from tfcheck.objective.float64_step import Float64Step
from tfcheck.objective.step_inputs import StepInputs
from tfcheck.objective.traced_losses import TracedLosses
from tfcheck.promote.purify import PureGraph
from tfcheck.trace.choices import Choices
from tfcheck.trace.left_out import LeftOut
from tfcheck.trace.recording import Recording
from tfcheck.trace.tracing import TracedStep
from tfcheck.trace.untracked import untracked_in, users_in

ISLAND_STEP = 2.0**-8
"""Where to begin the search for a step in a loss that is partly computed in float32."""


def facts_of_graph(
    traced: TracedStep,
    graph_def: Any,
    inputs: StepInputs,
    losses: TracedLosses,
    step: Float64Step,
) -> StepFacts:
    """What is known of a traced step.

    Args:
        traced: the traced step.
        graph_def: its `GraphDef`.
        inputs: what goes into it.
        losses: its losses.
        step: the step in float64.
    """
    recording, pure = traced.recording, step.pure
    drawn = _drawn(pure)
    assigned = _assigned(traced, graph_def)
    python = any(node.op in _PYTHON for node in all_nodes(pure.graph_def))
    return StepFacts(
        source=traced.source,
        precision="float64",
        bits=FLOAT64.bits,
        lowest=lowest_float(graph_def),
        choices=Choices(recording),
        first_step=ISLAND_STEP if pure.islands else None,
        islands=pure.islands,
        random_ops=pure.random_ops,
        draws=tuple(not drawn.isdisjoint(behind) for behind in step.names_behind),
        samples=tuple(some(sorted(pure.sampled & behind)) for behind in step.names_behind),
        constants=losses.constants,
        asked_at=tuple(call.place for call in losses.calls),
        applied=losses.applied,
        received=frozenset(id(applied.variable) for applied in recording.applied),
        updates=bool(recording.expected) and not _assigns_out_of_sight(graph_def),
        dropped=_dropped(step, losses),
        left_out=_left_out(recording, assigned, inputs, losses, step),
        untracked=untracked_in(recording, assigned, users_in(traced)),
        made=traced.made,
        calls_python=python,
        may_differ=python or bool(pure.random_ops or pure.islands),
    )


def _drawn(pure: PureGraph) -> set[str]:
    """The names of the nodes that hold random numbers fixed which would be drawn anew."""
    noted = {noted.partition(" (")[2].rstrip(")") for noted in pure.random_ops}
    return {new.split(":")[0] for old, new in pure.drawn.items() if old.split(":")[0] in noted}


def _assigned(traced: TracedStep, graph_def: Any) -> set[int]:
    """What the step assigns to, by the identities of the handles."""
    names = assigned_in(graph_def) if traced.recording.reached else set()
    return {id(outside) for outside, inside in traced.captures if inside.op.name in names}


def _assigns_out_of_sight(graph_def: Any) -> bool:
    """Whether variables are assigned to in loops, branches or other nested functions."""
    nodes = (node for function in graph_def.library.function for node in function.node_def)
    return any(node.op.startswith("Assign") for node in nodes)


def _dropped(step: Float64Step, losses: TracedLosses) -> frozenset[int]:
    """The losses whose gradients nothing in the step makes use of."""
    names = step.promoted.names
    used = [applied.gradient.name for applied in losses.applied]
    used += [target.name for call in losses.calls for target in call.targets]
    sinks = [names[name] for name in used] + [cut.tensor for cut in step.pure.cuts]
    needed = {node.name for node in reachable(step.nodes, sinks)}
    return frozenset(
        loss
        for loss, call in enumerate(losses.calls)
        if needed.isdisjoint(names[g.name].split(":")[0] for g in call.gradients if g is not None)
    )


def _left_out(
    recording: Recording,
    assigned: Set[int],
    inputs: StepInputs,
    losses: TracedLosses,
    step: Float64Step,
) -> tuple[Any, ...]:
    """Trainable variables that a loss depends on, and that no tape is asked for."""
    if not recording.reached:
        return ()
    forward = step.behind(range(len(losses.calls)))
    return LeftOut(recording, assigned, forward, inputs.placeholder_of).variables()


_PYTHON = ("PyFunc", "PyFuncStateless", "EagerPyFunc")
