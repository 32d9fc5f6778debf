"""How Python objects of each kind are kept as they are, and put back if they have changed.

Nothing is written where nothing has changed: other threads may be reading it. What a container's
own class does when it is changed, such as Keras's, which tracks layers or refuses, is bypassed.
"""

from __future__ import annotations

import copy
import pickle
import types
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Kept:
    """An object as it was.

    Attributes:
        content: the objects that it held.
        put_back: makes it what it was, if it is not.
    """

    content: Iterable[Any]
    put_back: Callable[[], None]


def kept_dict(item: dict[Any, Any]) -> Kept:
    """A dictionary: a container, or the attributes of an instance."""
    kind: Any = OrderedDict if isinstance(item, OrderedDict) else dict
    before = dict(kind.items(item))

    def put_back() -> None:
        now = dict(kind.items(item))
        if not (_same_items(now, before) and _same_items(now.values(), before.values())):
            kind.clear(item)
            for key, value in before.items():
                kind.__setitem__(item, key, value)

    return Kept(before.values(), put_back)


def kept_sequence(item: Any) -> Kept:
    """A list or a deque."""
    kind: Any = list if isinstance(item, list) else deque
    before = list(kind.__iter__(item))

    def put_back() -> None:
        if not _same_items(list(kind.__iter__(item)), before):
            kind.clear(item)
            kind.extend(item, before)

    return Kept(before, put_back)


def kept_set(item: set[Any]) -> Kept:
    """A set."""
    before = set(set.__iter__(item))

    def put_back() -> None:
        if set(map(id, set.__iter__(item))) != set(map(id, before)):
            set.clear(item)
            set.update(item, before)

    return Kept(before, put_back)


def kept_names(
    names: Callable[[], Iterable[str]],
    get: Callable[[str], Any],
    put: Callable[[str, Any], None],
    remove: Callable[[str], None],
) -> Kept:
    """Named attributes of a class, a module, or an instance with slots.

    Args:
        names: gives the names that there may be something under, now.
        get: gives what is under a name; raises KeyError or AttributeError where nothing is.
        put: puts something under a name.
        remove: removes a name.
    """

    def there() -> dict[str, Any]:
        found = {}
        for name in names():
            try:
                found[name] = get(name)
            except (KeyError, AttributeError):
                continue
        return found

    before = there()

    def put_back() -> None:
        now = there()
        for name in now.keys() - before.keys():
            remove(name)
        for name, value in before.items():
            if name not in now or now[name] is not value:
                put(name, value)

    return Kept(before.values(), put_back)


def kept_cell(cell: types.CellType) -> Kept:
    """A variable that a function closes over."""

    def there() -> list[Any]:
        try:
            return [cell.cell_contents]
        except ValueError:  # not bound yet
            return []

    before = there()

    def put_back() -> None:
        now = there()
        if now and not before:
            del cell.cell_contents
        elif not _same_items(now, before):
            (cell.cell_contents,) = before

    return Kept(before, put_back)


def kept_array(item: Any) -> Kept:
    """The numbers of an array, or a `bytearray`."""
    before = copy.copy(item)

    def put_back() -> None:
        # As bytes: NaN is no other than itself.
        if np.any(_bytes(item) != _bytes(before)):
            item[...] = before

    def put_bytes_back() -> None:
        if item != before:
            item[:] = before

    return Kept((), put_back if isinstance(item, np.ndarray) else put_bytes_back)


def kept_state(get: Callable[[], Any], put: Callable[[Any], None]) -> Kept:
    """Something that tells its whole state and can be given another, such as a generator.

    Args:
        get: gives the state.
        put: makes it the state.
    """
    before = get()

    def put_back() -> None:
        # NumPy's states hold arrays, which have no one answer to whether they are equal.
        if pickle.dumps(get()) != pickle.dumps(before):
            put(before)

    return Kept((), put_back)


def kept_cache(item: Any) -> Kept:
    """A `functools.cache`: one that was empty is emptied, others may keep what they are given."""
    was_empty = not item.cache_info().currsize

    def put_back() -> None:
        if was_empty and item.cache_info().currsize:
            item.cache_clear()

    return Kept((item.__wrapped__,), put_back)


def _same_items(one: Any, other: Any) -> bool:
    return len(one) == len(other) and all(a is b for a, b in zip(one, other, strict=True))


def _bytes(array: Any) -> Any:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
