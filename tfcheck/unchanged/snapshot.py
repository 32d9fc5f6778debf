"""All that code can reach in Python from some objects, as it is now, so that it can be put back.

A training step changes more than variables: counters, replay buffers, layers that build themselves,
lists in which something is noted. Looked at are attributes, containers, arrays and random
generators, what functions close over, and, for code that belongs to no library, the attributes of
classes and the module globals that functions name.
"""

from __future__ import annotations

import functools
import random
import sys
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from tfcheck.internals import TF_FUNCTION_KIND
from tfcheck.unchanged.kept import (
    Kept,
    kept_array,
    kept_cache,
    kept_cell,
    kept_dict,
    kept_names,
    kept_sequence,
    kept_set,
    kept_state,
)
from tfcheck.unchanged.taking import is_iterator

LARGEST_ARRAY = 2**28
"""Bytes of an array; larger ones are not copied, and trusted to stay as they are."""

_LIBRARIES = frozenset(
    {
        *sys.stdlib_module_names,
        *("IPython", "_pytest", "absl", "google", "h5py", "hypothesis", "jax", "keras"),
        *("matplotlib", "ml_dtypes", "mlflow", "numpy", "optree", "pandas", "pluggy", "pytest"),
        *("rich", "scipy", "sklearn", "tensorflow", "tfcheck", "torch", "tree", "wrapt"),
    }
)
"""Libraries whose modules and classes hold nothing of a training."""

_MAKERS = ("argparse.", "keras.", "tensorflow.python.trackable.data_structures.", "types.")
"""Parts of them that make objects whose attributes are a user's: layers, namespaces."""


_Kind = TypeVar("_Kind")


class Snapshot:
    """What can be reached from some objects.

    Args:
        roots: the objects.

    Attributes:
        iterators: attributes that are iterators, of which nothing tells where they stand: the
            dictionary and the name of each.
    """

    def __init__(self, roots: Iterable[Any]) -> None:
        self.iterators: list[tuple[dict[str, Any], str]] = []
        self._kept: list[Kept] = []
        self._seen: dict[int, Any] = {}
        ways: dict[type, tuple[_Way, ...]] = {}
        seen = self._seen  # holds the objects, so that no two have the same identity
        waiting = list(roots)
        while waiting:
            item = waiting.pop()
            kind = type(item)
            if kind in _ATOMS or id(item) in seen:
                continue
            seen[id(item)] = item
            if kind not in ways:
                ways[kind] = tuple(_ways(kind))
            for way in ways[kind]:
                for found in way(item):
                    if isinstance(found, Kept):
                        self._kept.append(found)
                        waiting += found.content
                    elif isinstance(found, _Attributes):
                        self.iterators += found.iterators()
                    else:
                        waiting.append(found)

    def instances(self, kind: type[_Kind]) -> list[_Kind]:
        """The objects of a class among all that can be reached."""
        return [item for item in self._seen.values() if isinstance(item, kind)]

    def put_back(self) -> None:
        """Make everything what it was."""
        for kept in self._kept:
            kept.put_back()


@dataclass(frozen=True, slots=True)
class _Attributes:
    """The attributes of an instance."""

    named: dict[str, Any]

    def iterators(self) -> list[tuple[dict[str, Any], str]]:
        return [(self.named, name) for name, value in self.named.items() if is_iterator(value)]


_Way = Callable[[Any], Iterable[Any]]
"""Keeps what an object holds, as a `Kept`, or gives what it leads to."""


def _ways(kind: type) -> Iterator[_Way]:
    """How to look at objects of a class."""
    for kinds, alone in _ALONE:
        if issubclass(kind, kinds):
            yield alone
            return
    for kinds, way in _HOLDING:
        if issubclass(kind, kinds):
            yield way
    if any(base.__name__ == "ObjectProxy" for base in kind.__mro__):
        yield lambda item: (item.__wrapped__,)
    elif _is_own(kind.__module__) or f"{kind.__module__}.".startswith(_MAKERS):
        yield _of_instance
        if any(_slots(cls) for cls in kind.__mro__):
            yield _of_slots


def _of_array(item: Any) -> Iterable[Any]:
    if item.dtype.hasobject:
        return item.ravel().tolist()
    plain = type(item) in (np.ndarray, np.memmap)  # a masked one says no even where it can be set
    small = item.flags.writeable and item.nbytes <= LARGEST_ARRAY
    return (kept_array(item),) if plain and small else ()


def _of_instance(item: Any) -> Iterator[Any]:
    yield type(item)
    try:
        attributes = object.__getattribute__(item, "__dict__")
    except AttributeError:
        return
    if type(attributes) is dict:
        yield kept_dict(attributes)
        yield _Attributes(attributes)


def _of_slots(item: Any) -> Iterable[Any]:
    names = [name for cls in type(item).__mro__ for name in _slots(cls)]
    return (
        kept_names(
            lambda: names,
            functools.partial(object.__getattribute__, item),
            functools.partial(object.__setattr__, item),
            functools.partial(object.__delattr__, item),
        ),
    )


def _slots(cls: type) -> list[str]:
    names = vars(cls).get("__slots__", ())
    names = [names] if isinstance(names, str) else list(names)
    private = f"_{cls.__name__.lstrip('_')}"
    return [
        f"{private}{name}" if name.startswith("__") and not name.endswith("__") else name
        for name in names
        if name not in ("__dict__", "__weakref__")
    ]


def _of_class(item: type) -> Iterator[Any]:
    if not _is_own(item.__module__):
        return
    yield kept_names(
        # What Python itself makes of a class is not a user's.
        lambda: [name for name in vars(item) if not name.startswith(("__", "_abc_"))],
        lambda name: vars(item)[name],  # `getattr` would ask what stands there for a value
        functools.partial(type.__setattr__, item),
        functools.partial(type.__delattr__, item),
    )
    yield from item.__mro__[1:]


def _of_function(item: types.FunctionType) -> Iterator[Any]:
    yield from (item.__defaults__, item.__kwdefaults__, vars(item))
    for cell in item.__closure__ or ():
        yield kept_cell(cell)
    if _is_own(item.__module__):
        named = sorted(set(_names_in(item.__code__)))
        for space in _spaces(item.__globals__, named):
            yield kept_names(lambda: named, space.__getitem__, space.__setitem__, space.__delitem__)


def _names_in(code: types.CodeType) -> Iterator[str]:
    """The globals that code may mean, and the attributes of modules among them."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names_in(constant)


def _spaces(own: dict[str, Any], named: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The globals of a function's module, and of those modules of a user's that it names."""
    yield own
    for name in named:
        module = own.get(name)
        if isinstance(module, types.ModuleType) and _is_own(module.__name__):
            yield vars(module)


def _is_own(module: object) -> bool:
    """Whether a module of this name belongs to no library."""
    return isinstance(module, str) and module.partition(".")[0] not in _LIBRARIES


def _of_generator(item: Any) -> Iterable[Any]:
    """A random generator, of Python or NumPy."""
    if isinstance(item, random.SystemRandom):
        return ()
    if isinstance(item, random.Random):
        return (kept_state(item.getstate, item.setstate),)
    if isinstance(item, np.random.RandomState):
        return (kept_state(item.get_state, item.set_state),)
    bits = item.bit_generator
    return (kept_state(lambda: bits.state, functools.partial(setattr, bits, "state")),)


def _leading(*names: str) -> _Way:
    """What leads to something else, by these attributes."""
    return lambda item: [getattr(item, name, None) for name in names]


_ALONE: tuple[tuple[Any, _Way], ...] = (
    (np.ndarray, _of_array),
    (type, _of_class),
    (types.FunctionType, _of_function),
    (type(functools.cache(len)), lambda item: (kept_cache(item),)),
    (random.Random | np.random.RandomState | np.random.Generator, _of_generator),
    (TF_FUNCTION_KIND, _leading("python_function")),
    (types.MethodType, _leading("__self__", "__func__")),
    (functools.partial | functools.partialmethod, _leading("func", "args", "keywords")),
    (staticmethod | classmethod, _leading("__func__")),
    (property, _leading("fget", "fset", "fdel")),
    (functools.cached_property, _leading("func")),
)
"""Classes whose objects are looked at in one way."""

_HOLDING: tuple[tuple[Any, _Way], ...] = (
    (dict, lambda item: (kept_dict(item),)),
    (list | deque, lambda item: (kept_sequence(item),)),
    (set, lambda item: (kept_set(item),)),
    (bytearray, lambda item: (kept_array(item),)),
    (tuple | frozenset, lambda item: item),
)
"""Containers, which may have attributes besides."""

_ATOMS = frozenset(
    {int, float, complex, bool, str, bytes, type(None), type(...), slice, range, types.CodeType}
)
