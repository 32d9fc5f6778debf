"""Listening to tapes: what they are asked for and find, and while what they record."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from tfcheck.errors import telling_line
from tfcheck.graph.division import Division
from tfcheck.internals import live_variable
from tfcheck.trace.recording import Recording, TapeCall
from tfcheck.trace.source_lines import place_here
from tfcheck.unchanged.patching import Replacement, unreplaced
from tfcheck.variables import is_overwritten, is_variable

_NONE = tf.UnconnectedGradients.NONE

# -- what a step asks its tapes for ----------------------------------------------------------


def recorded_gradient(recording: Recording) -> Replacement:
    """Has `tape.gradient` note what it is asked for and what it finds."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        # The names and the order of the arguments are those of `tf.GradientTape.gradient`.
        def gradient(
            self: tf.GradientTape,
            target: Any,
            sources: Any,
            output_gradients: Any = None,
            unconnected_gradients: Any = _NONE,
        ) -> Any:
            def ask(wanted: Any) -> Any:
                return original(self, target, wanted, output_gradients, unconnected_gradients)

            known = list(map(recording.known_as, tf.nest.flatten(sources)))
            asked = [source for source in known if _has_slope(source)]
            division = recording.division(target, asked) if asked else None
            connected = unconnected_gradients in (_NONE, _NONE.value)
            others = _unasked(recording, self, known) if asked and connected else []
            found = _found(recording, ask, sources, division, others)
            if found.error:  # a finding; the step goes on with zeros
                result = tf.nest.map_structure(tf.zeros_like, sources)
            else:
                result = found.gradients
            if asked:
                call = _call_of_the_step(recording, self, (target, output_gradients), known, found)
                recording.tape_calls.append(call)
            return result

        return gradient

    return make


def _call_of_the_step(
    recording: Recording,
    tape: tf.GradientTape,
    differentiated: tuple[Any, Any],
    known: Sequence[Any],
    found: _Found,
) -> TapeCall:
    """What a call of `tape.gradient` differentiated, and what it found for variables.

    Args:
        recording: what was heard so far.
        tape: the tape.
        differentiated: the target, and the weights of its parts, None for ones.
        known: what it was differentiated with respect to.
        found: what the tape gave for that.
    """
    made = recording.graph.version if recording.tracing else 0
    if found.error:
        gradients = [None] * len(known)
    else:
        gradients = tf.nest.flatten(found.gradients, expand_composites=False)
    pairs = [
        (source, _dense(gradient))
        for source, gradient in zip(known, gradients, strict=True)
        if _has_slope(source)
    ]
    target, output_gradients = differentiated
    targets = tuple(tf.nest.flatten(target))
    given = output_gradients is not None
    return TapeCall(
        targets=targets,
        output_gradients=(
            tuple(tf.nest.flatten(output_gradients)) if given else (None,) * len(targets)
        ),
        sources=tuple(source for source, _ in pairs),
        gradients=tuple(gradient for _, gradient in pairs),
        error=found.error,
        weights=_weights_of(targets),
        spans=recording.spans_of(tape),
        division=found.division,
        shares=tuple(map(_dense, found.shares)),
        place=place_here(),
        made=made,
    )


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


# -- while what a tape records ---------------------------------------------------------------


def recording_begins(recording: Recording) -> Replacement:
    """Notes that a tape begins to record."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def enter(self: tf.GradientTape) -> tf.GradientTape:
            recording.records(self, on=True)
            return original(self)

        return enter

    return make


def recording_ends(recording: Recording) -> Replacement:
    """Notes that a tape ceases to record."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def leave(self: tf.GradientTape, *error: Any) -> Any:
            recording.records(self, on=False)
            return original(self, *error)

        return leave

    return make


def recording_pauses(recording: Recording) -> Replacement:
    """Notes that a tape records nothing for the length of a block."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        @contextlib.contextmanager
        def pause(self: tf.GradientTape) -> Iterator[None]:
            recording.records(self, on=False)
            with original(self):
                yield
            recording.records(self, on=True)

        return pause

    return make


# -- asking a tape by oneself ----------------------------------------------------------------


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

    def ask(wanted: Any) -> Any:
        return differentiate(tape, targets, wanted, weights)

    weights = weights or [_cotangent(target, place) for place, target in enumerate(targets)]
    division = recording.division(targets, sources)
    others = _unasked(recording, tape, sources)
    found = _found(recording, ask, list(map(live_variable, sources)), division, others)
    gradients = (None,) * len(sources) if found.error else found.gradients
    return TapeCall(
        targets=tuple(targets),
        output_gradients=tuple(weights),
        sources=tuple(sources),
        gradients=tuple(map(_dense, gradients)),
        error=found.error,
        names=tuple(names),
        division=found.division,
        shares=tuple(map(_dense, found.shares)),
    )


def _cotangent(output: tf.Tensor, position: int) -> tf.Tensor:
    """Random weights for a layer's output, the same at every evaluation."""
    shape = output.shape if output.shape.is_fully_defined() else tf.shape(output)
    return tf.cast(tf.random.stateless_normal(shape, seed=(position, 7)), output.dtype)


# -- what a tape gives -----------------------------------------------------------------------


@dataclass(frozen=True)
class _Found:
    """What a tape gave.

    Attributes:
        gradients: the gradients, in the structure of the sources; None where the tape raised.
        division: the units that the targets are computed in; None where that is not known.
        shares: the gradient of each tensor that the division asks for.
        error: what the tape raised, `""` for nothing.
    """

    gradients: Any = None
    division: Division | None = None
    shares: Sequence[Any] = ()
    error: str = ""


def _found(
    recording: Recording,
    ask: Callable[[Any], Any],
    sources: Any,
    division: Division | None,
    others: list[Any],
) -> _Found:
    """Ask a tape for the gradients of sources, of what a division needs, and of others.

    Args:
        recording: notes which of the others the tape reaches.
        ask: asks the tape for the gradients of a structure.
        sources: what is asked for.
        division: the units that the targets are computed in; None where that is not known.
        others: variables of which it is wanted to know whether the tape reaches them.
    """
    behind = [] if division is None else list(division.behind)
    try:
        gradients, shares, to_others = _with_others(ask, [sources, behind], others)
    except Exception as error:  # noqa: BLE001 - whatever a tape raises is a finding
        return _Found(error=what_raised(error))
    recording.note_reached(others, to_others)
    return _Found(gradients, division, shares)


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


def _dense(gradient: Any) -> tf.Tensor | None:
    """A gradient that a tape found, with repeated rows of embeddings summed."""
    return None if gradient is None else tf.convert_to_tensor(gradient)


def what_raised(error: Exception) -> str:
    """An exception of a tape in one line."""
    return f"{type(error).__name__}: {telling_line(str(error))}"


def _has_slope(source: Any) -> bool:
    """Whether a source of a tape is a variable, and what the tape gives for it a derivative."""
    return is_variable(source) and not is_overwritten(source)
