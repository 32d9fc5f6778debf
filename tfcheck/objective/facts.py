"""What is known of a step once it is traced, or was run once, wherever it is evaluated then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from tfcheck.trace.choices import Choices
from tfcheck.trace.recording import Applied
from tfcheck.trace.source_lines import SourceLine
from tfcheck.trace.untracked import Untracked


@dataclass(frozen=True, eq=False)
class StepFacts:
    """What is known of a step, the same at every point.

    Attributes:
        source: what was traced or run: `"train_step"`, `"loss_fn"`, `"compute_loss"` or `"layer"`.
        precision: the precision in which losses are evaluated.
        bits: how many bits of a variable that precision keeps.
        lowest: lowest floating precision in the step as trained, such as `"float16"`.
        choices: what the step chooses to do beside.
        first_step: where to begin the search for a step, relative to a variable's scale; None to
            go by the loss.
        notes: sentences a reader should know about how the step is evaluated.
        islands: operations without a float64 form.
        random_ops: operations that draw new numbers at every evaluation.
        draws: for each loss whether it depends on numbers from such operations, which are drawn
            once and held fixed.
        samples: for each loss the operations that draw from distributions which are learnt, `""`
            for none.
        constants: for each loss the tensors that its tape takes for constant, since they were made
            while it did not record.
        asked_at: for each loss the line that asks its tape for gradients; None where that is none
            of the user's.
        applied: what the optimizers are given, in the order of their calls; of a traced step only
            what is in its own graph.
        received: the variables, by identity, that an optimizer is given a gradient for.
        updates: whether the step ought to update its variables, and what it assigns is seen.
        dropped: those losses whose gradients nothing in the step makes use of.
        left_out: trainable variables that a loss depends on, and that no tape is asked for.
        untracked: the variables that the step computes with and that are no weights of the model.
        made: variables that the step makes when it first runs; where there are any, the next one
            may not, so that its graph is another.
        calls_python: whether a function of Python's is called whenever it is evaluated.
        may_differ: whether a loss may be another one when it is evaluated again at the same point.
        costly: whether evaluations cost so much that no more than is needed are made.
    """

    source: str
    precision: str
    bits: int
    lowest: str
    choices: Choices
    first_step: float | None = None
    notes: tuple[str, ...] = ()
    islands: tuple[str, ...] = ()
    random_ops: tuple[str, ...] = ()
    draws: tuple[bool, ...] = ()
    samples: tuple[str, ...] = ()
    constants: Sequence[tuple[tf.Tensor, ...]] = ()
    asked_at: tuple[SourceLine | None, ...] = ()
    applied: Sequence[Applied] = ()
    received: frozenset[int] = frozenset()
    updates: bool = False
    dropped: frozenset[int] = frozenset()
    left_out: tuple[Any, ...] = ()
    untracked: tuple[Untracked, ...] = ()
    made: tuple[tf.Variable, ...] = ()
    calls_python: bool = False
    may_differ: bool = False
    costly: bool = False
