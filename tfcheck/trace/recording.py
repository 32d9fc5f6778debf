"""What is noted while a training step runs: calls of tapes, of layers and losses, of optimizers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from tfcheck.graph.division import Call, Division, divide
from tfcheck.internals import live_variable
from tfcheck.trace.own_calls import OwnCalls
from tfcheck.trace.source_lines import SourceLine
from tfcheck.variables import is_variable


@dataclass(frozen=True, eq=False)
class TapeCall:
    """One call of `tape.gradient`.

    Attributes:
        targets: the tensors that were differentiated.
        output_gradients: their weights, or None each for one.
        sources: what they were differentiated with respect to: variables, or tensors of the graph
            at which it can be cut.
        gradients: the gradient of each as a dense tensor, or None where the tape gave None.
        error: what the tape raised instead of giving gradients, `""` where it did not.
        names: a name for each source that is a tensor of the graph; empty where they need none.
        weights: scalars that the target was multiplied with or divided by.
        spans: while which operations of the graph, by their positions, the tape recorded; empty
            where that is not known.
        division: the units that the targets are computed in; None where no graph is traced.
        shares: the gradient of each tensor that the division has asked for, as for `gradients`.
        place: the line that asked; None where that is none of the user's.
        made: how many operations the graph had when the gradients were found.
    """

    targets: tuple[tf.Tensor, ...]
    output_gradients: tuple[tf.Tensor | None, ...]
    sources: tuple[Any, ...]
    gradients: tuple[tf.Tensor | None, ...]
    error: str = ""
    names: tuple[str, ...] = ()
    weights: tuple[tf.Tensor, ...] = ()
    spans: tuple[tuple[int, int], ...] = ()
    division: Division | None = None
    shares: tuple[tf.Tensor | None, ...] = ()
    place: SourceLine | None = None
    made: int = 0


@dataclass(frozen=True)
class Applied:
    """One gradient as handed to an optimizer, as a dense tensor, and the variable it was for.

    Attributes:
        gradient: the gradient.
        variable: the variable.
        divisor: what that optimizer divides it by: a number, or a tensor of the graph.
        place: the line that handed it over; None where that is none of the user's.
    """

    gradient: tf.Tensor
    variable: Any
    divisor: Any = 1.0
    place: SourceLine | None = None


@dataclass
class Recording:
    """What was heard during a trace.

    Attributes:
        tape_calls: the tapes' calls for variables.
        graph: the graph that is traced; None where the step runs eagerly.
        calls: the calls of layers and losses in it, outer ones before those made in them.
        gates: the names of the operations that layers' inputs go through, and whether a tape
            that records knows what they were computed from.
        applied: what the optimizers were given.
        loss_scales: scaled losses, each with the loss before.
        scaling: the optimizers that scale losses, and whether each was built when it did.
        known: the model's Keras variables by the identity of the `tf.Variable` behind each, which
            a step may use in its place.
        expected: variables that the step is expected to differentiate for.
        tapes: each tape that was used in a graph, by identity, and while which operations.
        reached: trainable variables that a tape reaches and was not asked for, by identity.
        owner: the model or layer that the step belongs to.
        own_calls: the calls of layers that the step itself makes, and who reads which variable.
        assigned: in an eager run, what is assigned to, by the identities of the handles.
        compiled: what `compute_loss` and the losses that the model is compiled with gave.
    """

    tape_calls: list[TapeCall] = field(default_factory=list)
    graph: Any = None
    calls: list[Call] = field(default_factory=list)
    gates: dict[str, bool] = field(default_factory=dict)
    applied: list[Applied] = field(default_factory=list)
    loss_scales: list[tuple[tf.Tensor, tf.Tensor]] = field(default_factory=list)
    scaling: list[tuple[Any, bool]] = field(default_factory=list)
    known: Mapping[int, Any] = field(default_factory=dict)
    expected: tuple[Any, ...] = ()
    tapes: dict[int, tuple[Any, list[tuple[int, int | None]]]] = field(default_factory=dict)
    reached: dict[int, Any] = field(default_factory=dict)
    owner: Any = None
    own_calls: OwnCalls = field(default_factory=OwnCalls)
    assigned: set[int] = field(default_factory=set)
    compiled: list[Any] = field(default_factory=list)

    def records(self, tape: tf.GradientTape, *, on: bool) -> None:
        """Note that a tape begins or ceases to record."""
        self.own_calls.tape(tape, records=on)
        if tf.executing_eagerly():
            return
        _, spans = self.tapes.setdefault(id(tape), (tape, []))
        now = len(tf.compat.v1.get_default_graph().get_operations())
        if on:
            spans.append((now, None))
        elif spans:
            spans[-1] = (spans[-1][0], now)

    def spans_of(self, tape: tf.GradientTape) -> tuple[tuple[int, int], ...]:
        """While which operations a tape recorded, up to now."""
        _, spans = self.tapes.get(id(tape), (tape, []))
        if not spans:
            return ()
        now = len(tf.compat.v1.get_default_graph().get_operations())
        return tuple((start, now if end is None else end) for start, end in spans)

    @property
    def tracing(self) -> bool:
        """Whether what is made now belongs to the graph that is traced."""
        return self.graph is not None and tf.compat.v1.get_default_graph() is self.graph

    @contextlib.contextmanager
    def calling(
        self, path: str, *, tracked: bool = False, backward_of: Call | None = None
    ) -> Iterator[None]:
        """Note that what is made in the block belongs to a call of a layer or a loss.

        Args:
            path: the layer's path, or that of a loss.
            tracked: whether the layer is one of the model's. Defaults to False.
            backward_of: the call of which it is a backward pass. Defaults to None.
        """
        call = Call(path, self.graph.version, tracked=tracked, backward_of=backward_of)
        self.calls.append(call)
        try:
            yield
        finally:
            call.end = self.graph.version

    @property
    def innermost(self) -> Call | None:
        """The call that is being made now; None outside of all."""
        open_calls = [call for call in self.calls if call.end is None]
        if not open_calls:
            return None
        return open_calls[-1].backward_of or open_calls[-1]

    def division(self, targets: Any, sources: Sequence[Any]) -> Division | None:
        """How targets divide into units, where they belong to the graph that is traced."""
        tensors = [t for t in tf.nest.flatten(targets) if isinstance(t, tf.Tensor)]
        if not self.tracing or not all(tensor.graph is self.graph for tensor in tensors):
            return None
        handles = {id(outside): inside for outside, inside in self.graph.captures}
        leaves: dict[str, Any] = {}
        for source in sources:
            if not is_variable(source):
                leaves[source.name] = None
            elif id(handle := live_variable(source).handle) in handles:
                leaves[handles[id(handle)].name] = source
        return divide(self.graph, self.calls, self.gates, tensors, leaves)

    def note_reached(self, variables: Sequence[Any], gradients: Sequence[Any]) -> None:
        """Note which variables a tape reaches that it was not asked for."""
        self.reached |= {
            id(variable): variable
            for variable, gradient in zip(variables, gradients, strict=True)
            if gradient is not None
        }

    def known_as(self, variable: Any) -> Any:
        """The model's Keras variable, where this is the `tf.Variable` behind one."""
        return self.known.get(id(variable), variable)
