"""Steps that take what is gone afterwards: from an iterator of a dataset, a generator, a queue.

A check evaluates a step many times, and what it took, the training would miss. So such a step is
refused before it takes anything.
"""

from __future__ import annotations

import contextlib
import itertools
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import tensorflow as tf

from tfcheck.errors import TraceError
from tfcheck.internals import ITERATOR_KIND
from tfcheck.patching import put_in_place

_TAKING = (
    "IteratorGetNext",
    "OptionalGetValue",
    "QueueDequeue",
    "QueueEnqueue",
    "Stage",
    "Unstage",
)
"""How the names begin of operations that take from what all evaluations share, or put into it."""

_ITERATORS: tuple[type, ...] = (
    types.GeneratorType,
    *(map, filter, zip, enumerate, type(iter([])), type(iter(()))),
    *(itertools.count, itertools.cycle, itertools.chain, itertools.islice),
)


def require_nothing_taken(nodes: Iterable[Any]) -> None:
    """Raise a `TraceError` where an operation of a graph takes something.

    Args:
        nodes: the graph's `NodeDef`s.
    """
    for node in nodes:
        if node.op.startswith(_TAKING):
            raise _refusal(f"the operation {node.op}")


@contextlib.contextmanager
def nothing_taken() -> Iterator[None]:
    """Raise a `TraceError` where this thread takes from an iterator of a dataset eagerly."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def take(self: Any, *args: Any, **options: Any) -> Any:
            if tf.executing_eagerly():
                raise _refusal("a call of next() on a dataset's iterator")
            return original(self, *args, **options)

        return take

    with contextlib.ExitStack() as undo:
        for name in ("__next__", "get_next", "get_next_as_optional"):
            put_in_place(undo, ITERATOR_KIND, name, make)
        yield


class OneWay:
    """Stands for an iterator of Python's that a model holds, while a step is traced or run.

    Args:
        iterator: the iterator.
    """

    def __init__(self, iterator: Iterator[Any]) -> None:
        self._iterator = iterator

    def __iter__(self) -> OneWay:
        return self

    def __next__(self) -> Any:
        raise _refusal(f"a call of next() on a {type(self._iterator).__name__}")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._iterator, name)


def is_one_way(value: Any) -> bool:
    """Whether what is taken from this is gone, and nothing tells where it stands."""
    return isinstance(value, _ITERATORS)


def _refusal(received: str) -> TraceError:
    return TraceError(
        "A training step that is checked must take its data from fit: what a check took from "
        f"elsewhere, training would miss. Received: {received}. Zip the datasets given to fit."
    )
