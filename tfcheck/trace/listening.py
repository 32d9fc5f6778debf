"""Listening to a training step while it is traced: its tapes, its optimizers, its layers."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import tensorflow as tf

from tfcheck.errors import telling_line
from tfcheck.graph.division import LOSS, Call, Division, divide
from tfcheck.internals import copy_mask, is_watched, live_variable, telling_of_tapes
from tfcheck.trace.own_calls import OwnCalls
from tfcheck.trace.source_lines import Place, place_here
from tfcheck.unchanged.patching import put_in_place, threads_inherit, unreplaced
from tfcheck.variables import is_overwritten, is_variable


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
    place: Place | None = None
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
    place: Place | None = None


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


_NONE = tf.UnconnectedGradients.NONE


@contextlib.contextmanager
def listening(recording: Recording) -> Iterator[None]:
    """Record tapes and optimizers while the block runs; optimizers then apply nothing.

    This thread's alone, and those of threads that it starts in the block.
    """
    base = keras.optimizers.Optimizer
    with contextlib.ExitStack() as undo, threads_inherit():
        put = functools.partial(put_in_place, undo)
        put(tf.GradientTape, "gradient", _recorded_gradient(recording))
        put(tf.GradientTape, "__enter__", _recording_begins(recording))
        put(tf.GradientTape, "__exit__", _recording_ends(recording))
        put(tf.GradientTape, "stop_recording", _recording_pauses(recording))
        put(keras.Model, "compute_metrics", lambda _: lambda *_args, **_options: {})
        put(base, "apply_gradients", lambda _: _recorded_apply_gradients)
        put(keras.Model, "compute_loss", _noted_compiled(recording))
        put(keras.losses.Loss, "__call__", _noted_loss(recording))
        put(keras.Layer, "__call__", _gated_layer(recording))
        put(*telling_of_tapes(), _noted_backward(recording))
        for optimizer in (base, *_descendants(base)):
            if optimizer is base or "apply" in vars(optimizer):
                put(optimizer, "apply", lambda _: _recorded_apply(recording))
            if "scale_loss" in vars(optimizer):
                put(optimizer, "scale_loss", _recorded_scale(recording))
        yield


def _descendants(cls: type) -> list[type]:
    children: list[type] = cls.__subclasses__()
    return list(dict.fromkeys([*children, *(d for child in children for d in _descendants(child))]))


_Replacement = Callable[[Callable[..., Any]], Callable[..., Any]]
"""Makes what replaces a function, from that function."""


def _recorded_gradient(recording: Recording) -> _Replacement:
    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        # The names and the order of the arguments are those of `tf.GradientTape.gradient`.
        def gradient(
            self: tf.GradientTape,
            target: Any,
            sources: Any,
            output_gradients: Any = None,
            unconnected_gradients: Any = _NONE,
        ) -> Any:
            known = list(map(recording.known_as, tf.nest.flatten(sources)))
            asked = [source for source in known if _has_slope(source)]
            division = recording.division(target, asked) if asked else None
            behind = [] if division is None else list(division.behind)
            connected = unconnected_gradients in (_NONE, _NONE.value)
            others = _unasked(recording, self, known) if asked and connected else []
            raised = ""
            try:
                result, shares, to_others = _with_others(
                    lambda wanted: original(
                        self, target, wanted, output_gradients, unconnected_gradients
                    ),
                    [sources, behind],
                    others,
                )
                found = tf.nest.flatten(result, expand_composites=False)
            except Exception as error:  # noqa: BLE001 - a finding; the step goes on with zeros
                raised = what_raised(error)
                result = tf.nest.map_structure(tf.zeros_like, sources)
                found, shares = [None] * len(known), []
                to_others, division = [None] * len(others), None
            recording.note_reached(others, to_others)
            made = recording.graph.version if recording.tracing else 0
            pairs = _pairs(recording, sources, found)
            if pairs:
                call = _tape_call(pairs, target, output_gradients)
                recording.tape_calls.append(
                    replace(
                        call,
                        error=raised,
                        spans=recording.spans_of(self),
                        division=division,
                        shares=tuple(map(_dense, shares)),
                        place=place_here(),
                        made=made,
                    )
                )
            return result

        return gradient

    return make


def _dense(gradient: Any) -> tf.Tensor | None:
    """A gradient that a tape found, with repeated rows of embeddings summed."""
    return None if gradient is None else tf.convert_to_tensor(gradient)


def _unasked(recording: Recording, tape: tf.GradientTape, asked: Sequence[Any]) -> list[Any]:
    """The trainable variables that a tape sees, or that it ought to be asked for, and is not."""
    seen = map(recording.known_as, tape.watched_variables())
    known = {id(variable) for variable in asked}
    others = {id(variable): variable for variable in (*recording.expected, *seen)}
    return [
        variable
        for variable in others.values()
        if id(variable) not in known and variable.trainable and _has_slope(variable)
    ]


def _with_others(
    ask: Callable[[Any], Sequence[Any]], asked: list[Any], others: list[Any]
) -> Sequence[Any]:
    """What a tape gives for what it is asked for, and for others, where it can."""
    try:
        return ask([*asked, others])
    except Exception:
        if not others:
            raise
        return [*ask([*asked, []])[:-1], [None] * len(others)]


def _pairs(recording: Recording, sources: Any, found: Sequence[Any]) -> list[tuple[Any, Any]]:
    """The variables among the sources of a tape, each with the gradient it found, dense."""
    return [
        (recording.known_as(source), _dense(gradient))
        for source, gradient in zip(tf.nest.flatten(sources), found, strict=True)
        if _has_slope(recording.known_as(source))
    ]


def _tape_call(pairs: Sequence[tuple[Any, Any]], target: Any, output_gradients: Any) -> TapeCall:
    """What a call of `tape.gradient` differentiated, and what it found."""
    targets = tuple(tf.nest.flatten(target))
    given = output_gradients is not None
    of_targets = tuple(tf.nest.flatten(output_gradients)) if given else (None,) * len(targets)
    variables, gradients = zip(*pairs, strict=True)
    return TapeCall(targets, of_targets, variables, gradients, weights=_weights_of(targets))


def _recording_begins(recording: Recording) -> _Replacement:
    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def enter(self: tf.GradientTape) -> tf.GradientTape:
            recording.records(self, on=True)
            return original(self)

        return enter

    return make


def _recording_ends(recording: Recording) -> _Replacement:
    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def leave(self: tf.GradientTape, *error: Any) -> Any:
            recording.records(self, on=False)
            return original(self, *error)

        return leave

    return make


def _recording_pauses(recording: Recording) -> _Replacement:
    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        @contextlib.contextmanager
        def pause(self: tf.GradientTape) -> Iterator[None]:
            recording.records(self, on=False)
            with original(self):
                yield
            recording.records(self, on=True)

        return pause

    return make


def _weights_of(targets: Sequence[tf.Tensor]) -> tuple[tf.Tensor, ...]:
    """The scalars that one target was last multiplied with or divided by, as a loss scale is."""
    weights: list[tf.Tensor] = []
    tensor = targets[0] if len(targets) == 1 else None
    while isinstance(tensor, tf.Tensor) and hasattr(tensor, "graph"):
        operation = tensor.op
        if operation.type in ("Identity", "Cast"):
            (tensor,) = operation.inputs
        elif operation.type in ("Mul", "RealDiv") and tensor.shape.rank == 0:
            first, second = operation.inputs
            one = second if _leads_to_a_loss(first) else first
            tensor = first if one is second else second
            weights.append(one)
        else:
            break
    return tuple(weights)


def _leads_to_a_loss(tensor: tf.Tensor) -> bool:
    """Whether a factor is computed in the step, rather than a constant or a variable's value."""
    while tensor.op.type in ("Identity", "Cast"):
        (tensor,) = tensor.op.inputs
    return tensor.op.type not in ("Const", "ReadVariableOp", "Placeholder")


def _recorded_apply(recording: Recording) -> Callable[..., None]:
    def apply(self: Any, grads: Any, trainable_variables: Any = None) -> None:
        # Without variables the gradients are for those the optimizer was built with.
        variables = trainable_variables or getattr(self, "_trainable_variables", ())
        # In the traced graph, wherever the optimizer is asked: a branch is a graph of its own.
        outside = recording.graph.as_default() if recording.graph is not None else nullcontext()
        with outside:
            divisor = _divisor(self)
        place = place_here()
        recording.applied += [
            Applied(tf.convert_to_tensor(gradient), recording.known_as(variable), divisor, place)
            for gradient, variable in zip(grads, variables, strict=False)
            if gradient is not None
        ]

    return apply


def _divisor(optimizer: Any) -> Any:
    """What an optimizer divides gradients by before it applies them, 1 for nothing."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        # Built at its first use, and only then is there a variable.
        built = optimizer.built
        return tf.convert_to_tensor(optimizer.dynamic_scale) if built else optimizer.initial_scale
    return getattr(optimizer, "loss_scale_factor", None) or 1.0


def _recorded_apply_gradients(self: Any, grads_and_vars: Any, **_options: Any) -> None:
    # Keras's own rejects an empty list, which is what is left where every gradient is None.
    pairs = list(grads_and_vars)
    self.apply([gradient for gradient, _ in pairs], [variable for _, variable in pairs])


def _noted_loss(recording: Recording) -> _Replacement:
    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: Any, *args: Any, **options: Any) -> Any:
            with recording.calling(LOSS) if recording.tracing else nullcontext():
                loss = original(self, *args, **options)
            if any(self is own for own in tf.nest.flatten(getattr(recording.owner, "loss", None))):
                recording.compiled.append(loss)
            return loss

        return call

    return make


def _noted_compiled(recording: Recording) -> _Replacement:
    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def compute_loss(self: keras.Model, *args: Any, **options: Any) -> Any:
            loss = original(self, *args, **options)
            recording.compiled.append(loss)
            return loss

        return compute_loss

    return make


def _gated_layer(recording: Recording) -> _Replacement:
    """Notes calls of layers in the graph that is traced, and puts gates before their inputs.

    Calls inside loops and nested functions belong to other graphs and are left alone.
    """

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: keras.Layer, *args: Any, **kwargs: Any) -> Any:
            with recording.own_calls.within(self, args, kwargs):
                return gated(self, *args, **kwargs)

        def gated(self: keras.Layer, *args: Any, **kwargs: Any) -> Any:
            if not recording.tracing:
                return original(self, *args, **kwargs)
            gates: dict[int, tf.Tensor] = {}
            args, kwargs = tf.nest.map_structure(lambda leaf: _gated(leaf, gates), (args, kwargs))
            for gate in gates.values():
                names = (gate.op.name, gate.op.inputs[0].op.name)
                recording.gates |= dict.fromkeys(names, is_watched(gate))
            path, tracked = self.path or self.name, recording.own_calls.knows(self)
            with recording.calling(path, tracked=tracked):
                return original(self, *args, **kwargs)

        return call

    return make


def _noted_backward(recording: Recording) -> _Replacement:
    """Has the backward pass of a gradient of its own belong to the call that it was given in."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        # TensorFlow gives some of the arguments by these names.
        def tell(
            op_type: Any,
            output_tensors: Any,
            input_tensors: Any,
            backward_function: Callable[..., Any],
            **others: Any,
        ) -> Any:
            call = recording.innermost if recording.tracing else None

            def noted(*args: Any, **options: Any) -> Any:
                if call is None or not recording.tracing:
                    return backward_function(*args, **options)
                with recording.calling(call.path, backward_of=call):
                    return backward_function(*args, **options)

            return original(op_type, output_tensors, input_tensors, noted, **others)

        return tell

    return make


_LOOKED_THROUGH = frozenset({"Const", "Softmax", "Sigmoid"})
"""What Keras looks for behind the inputs of its losses, and what may be read while tracing."""


def _gated(leaf: Any, gates: dict[int, tf.Tensor]) -> Any:
    """A float tensor of the graph behind two gates, the same for each tensor; all else as it is.

    What comes back through the second, which reshapes a tensor to the shape it has, is a tensor of
    its own, unlike an identity's gradient.
    """
    if not is_float(leaf) or not tf.is_symbolic_tensor(leaf) or leaf.op.type in _LOOKED_THROUGH:
        return leaf
    if leaf.shape.rank is None:
        # Where a rank is asked for, TensorFlow's optimizer takes wrong branches behind a reshape.
        return leaf
    if id(leaf) not in gates:
        gate = tf.ensure_shape(leaf, leaf.shape)
        known = leaf.shape.is_fully_defined()
        gate = tf.reshape(gate, leaf.shape if known else tf.shape(gate))
        gate.set_shape(leaf.shape)
        copy_mask(leaf, gate)
        gates[id(leaf)] = gate
    return gates[id(leaf)]


def _recorded_scale(recording: Recording) -> _Replacement:
    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def scale_loss(self: Any, loss: Any) -> Any:
            scaled = original(self, loss)
            if scaled is not loss:
                recording.loss_scales.append((scaled, loss))
                recording.scaling.append((self, bool(self.built)))
            return scaled

        return scale_loss

    return make


@dataclass(frozen=True, eq=False)
class EagerCall:
    """One call of a layer in a step that runs eagerly.

    Attributes:
        layer: the layer.
        arguments: the positional and the keyword arguments it was given.
        children: the calls of other layers that were made in it.
    """

    layer: keras.Layer
    arguments: tuple[tuple[Any, ...], dict[str, Any]]
    children: tuple[EagerCall, ...]


@contextlib.contextmanager
def noting_layers(calls: list[EagerCall]) -> Iterator[None]:
    """Note every layer call that is made eagerly, inner ones before those they are made in."""
    stack: list[list[EagerCall]] = [[]]

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: keras.Layer, *args: Any, **kwargs: Any) -> Any:
            if not tf.executing_eagerly():
                return original(self, *args, **kwargs)
            stack.append([])
            outputs = original(self, *args, **kwargs)
            noted = EagerCall(self, (args, kwargs), tuple(stack.pop()))
            calls.append(noted)
            stack[-1].append(noted)
            return outputs

        return call

    with contextlib.ExitStack() as undo:
        put_in_place(undo, keras.Layer, "__call__", make)
        yield


def differentiated(
    recording: Recording,
    tape: tf.GradientTape,
    targets: Sequence[tf.Tensor],
    sources: Sequence[Any],
    names: Sequence[str] = (),
    *,
    weights: Sequence[tf.Tensor] = (),
) -> TapeCall:
    """Ask a tape for gradients of weighted targets, and take down what it does.

    Args:
        recording: what was heard so far.
        tape: the tape.
        targets: what is differentiated.
        sources: tensors and variables to differentiate with respect to.
        names: names for the sources. Defaults to none.
        weights: a weight for each target. Defaults to random ones.
    """
    differentiate = unreplaced(tf.GradientTape, "gradient")
    weights = weights or [_cotangent(target, place) for place, target in enumerate(targets)]
    division = recording.division(targets, sources)
    behind = () if division is None else division.behind
    others = _unasked(recording, tape, sources)
    raised = ""
    try:
        gradients, shares, to_others = _with_others(
            lambda asked: differentiate(tape, targets, asked, weights),
            [list(map(live_variable, sources)), list(behind)],
            others,
        )
        recording.note_reached(others, to_others)
    except Exception as error:  # noqa: BLE001 - whatever a tape raises is a finding
        raised = what_raised(error)
        gradients, shares, division = (None,) * len(sources), (), None
    return TapeCall(
        tuple(targets),
        tuple(weights),
        tuple(sources),
        tuple(map(_dense, gradients)),
        raised,
        tuple(names),
        division=division,
        shares=tuple(map(_dense, shares)),
    )


def what_raised(error: Exception) -> str:
    """An exception of a tape in one line."""
    return f"{type(error).__name__}: {telling_line(str(error))}"


def is_float(leaf: Any) -> bool:
    """Whether this is a tensor of floats."""
    return isinstance(leaf, tf.Tensor) and leaf.dtype.is_floating


def cut(leaf: Any, cuts: list[tf.Tensor]) -> Any:
    """A float tensor through an identity, at which the graph can be cut; all else as it is."""
    if not is_float(leaf):
        return leaf
    identity = tf.identity(leaf)
    copy_mask(leaf, identity)
    cuts.append(identity)
    return identity


def _cotangent(output: tf.Tensor, position: int) -> tf.Tensor:
    """Random weights for a layer's output, the same at every evaluation."""
    shape = output.shape if output.shape.is_fully_defined() else tf.shape(output)
    return tf.cast(tf.random.stateless_normal(shape, seed=(position, 7)), output.dtype)


def _has_slope(source: Any) -> bool:
    """Whether a source of a tape is a variable, and what the tape gives for it a derivative."""
    return is_variable(source) and not is_overwritten(source)
