"""Steps that take what is gone afterwards: from an iterator of a dataset, a generator, a queue.

A check evaluates a step many times, and what it took, the training would miss. So such a step is
refused before it takes anything.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import tensorflow as tf

from tfcheck.errors import TraceError
from tfcheck.internals import ITERATOR_KIND
from tfcheck.unchanged.patching import put_in_place

_TAKING = (
    "IteratorGetNext",
    "QueueDequeue",
    "QueueEnqueue",
    "Stage",
    "Unstage",
)
"""How the names begin of operations that take from what all evaluations share, or put into it."""

_COPIED: tuple[type, ...] = (
    *(itertools.count, itertools.repeat),
    *map(type, (iter([]), iter(()), iter(range(0)), iter(""), iter({}), iter(set()), reversed([]))),
)
_ONE_WAY: tuple[type, ...] = (
    *(types.GeneratorType, map, filter, zip, enumerate),
    *(itertools.cycle, itertools.chain, itertools.islice),
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


def stand_in(iterator: Any) -> Any:
    """What stands for an iterator of Python's, while a step is traced or run.

    It is a copy, where one goes on by itself, and else something that refuses to be taken from.
    """
    return copy.copy(iterator) if isinstance(iterator, _COPIED) else _OneWay(iterator)


def is_iterator(value: Any) -> bool:
    """Whether this is an iterator of Python's own, whose place nothing but taking changes."""
    return isinstance(value, _COPIED + _ONE_WAY)


class _OneWay:
    """An iterator that is not to be taken from."""

    def __init__(self, iterator: Iterator[Any]) -> None:
        self._iterator = iterator

    def __iter__(self) -> _OneWay:
        return self

    def __next__(self) -> Any:
        raise _refusal(f"a call of next() on a {type(self._iterator).__name__}")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._iterator, name)


def _refusal(received: str) -> TraceError:
    return TraceError(
        "A training step that is checked must take its data from fit: what a check took from "
        f"elsewhere, training would miss. Received: {received}. Zip the datasets given to fit."
    )
