"""What is said where a step or a layer does not run, or gives no number: rule, received, remedy.

A layer that is checked by itself has inputs, and no targets, no loss and no `fit`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import tensorflow as tf

from tfcheck.errors import BatchError, TraceError, telling_line
from tfcheck.trace.batch import Batch

ALONE = "layer"
"""The source of a layer by itself."""


@dataclass(frozen=True)
class _Wording:
    """The sentences of one kind of thing that is checked.

    Attributes:
        fits: the rule that its batch breaks.
        give: what to give in its place.
        traceable: the rule that it breaks itself.
        runs: the rule that it breaks on this batch.
        see: where to look.
        finite: the rule that NaN or infinity in the batch breaks.
        without: what to do about that.
    """

    fits: str
    give: str
    traceable: str
    runs: str
    see: str
    finite: str
    without: str


_OF_A_LAYER = _Wording(
    fits="The inputs must fit the layer",
    give="Give what it is called with.",
    traceable="A layer must run on its inputs",
    runs="A layer must run on its inputs",
    see="Call it on them to see where.",
    finite="The outputs of a layer must be finite",
    without="Give inputs without.",
)
_OF_A_STEP = _Wording(
    fits="The batch must fit the model",
    give="Give a batch as fit would get it.",
    traceable="A training step must be traceable as a graph",
    runs="The training step must run on this batch",
    see="See whether fit can train the model on this batch.",
    finite="The loss of a debug batch must be finite",
    without="Give a batch without, or leave those values out of the loss.",
)


_OF_A_LOSS = replace(
    _OF_A_STEP,
    give="Give a batch that loss_fn takes.",
    traceable="loss_fn must run on the model and the batch",
    runs="loss_fn must run on the model and the batch",
    see="Call loss_fn(model, x, y, sample_weight) to see where.",
)
_WORDINGS = {ALONE: _OF_A_LAYER, "loss_fn": _OF_A_LOSS}


def _wording(source: str) -> _Wording:
    return _WORDINGS.get(source, _OF_A_STEP)


def explain(error: Exception, batch: Batch, source: str) -> BatchError | TraceError:
    """An exception of a step as one of tfcheck's, which says what was wrong.

    Args:
        error: the exception.
        batch: what the step was run on.
        source: what was run, as in `Step`.
    """
    signature = batch.signature()
    shapes = ", ".join(f"{dtype}{list(shape)}" for shape, dtype in signature[:_SHOWN])
    if len(signature) > _SHOWN:
        shapes += f" and {len(signature) - _SHOWN} more arrays (lists count as many inputs)"
    words, who = _wording(source), f"the {source}" if source == ALONE else source
    reason = telling_line(str(error))
    if source != ALONE and _OF_NONE.search(reason) and batch.parts(batch.structure)[1] is None:
        reason += " Perhaps the targets are missing."
    if isinstance(error, ValueError | tf.errors.InvalidArgumentError) and _ABOUT_SHAPES.search(
        reason
    ):
        return BatchError(f"{words.fits}. Received: {shapes}; {who} says: {reason} {words.give}")
    return TraceError(
        f"{words.traceable}. Received: {who} raises {type(error).__name__}: {reason} {words.see}"
    )


def does_not_run(error: tf.errors.OpError, source: str) -> BatchError | TraceError:
    """An exception of an operation as one of tfcheck's.

    Args:
        error: the exception.
        source: what was run, as in `Step`.
    """
    words = _wording(source)
    kind = BatchError if isinstance(error, tf.errors.InvalidArgumentError) else TraceError
    return kind(
        f"{words.runs}. Received: {type(error).__name__}: {telling_line(error.message)} {words.see}"
    )


def not_finite(value: float, batch: Batch, source: str) -> BatchError:
    """What is said where NaN or infinity in a batch spoils what is computed of it.

    Args:
        value: what is computed.
        batch: the batch.
        source: what computes it, as in `Step`.
    """
    words = _wording(source)
    return BatchError(
        f"{words.finite}. Received: {value}, as there is NaN or infinity among what it is given: "
        f"{batch.not_finite}. {words.without}"
    )


_SHOWN = 6
_OF_NONE = re.compile(r"None values not supported|unsupported type \(<class 'NoneType'>\)")
_ABOUT_SHAPES = re.compile(
    r"shape|dimension|incompatible|rank|expected|batch|axis|broadcast|input|missing", re.IGNORECASE
)
