"""Attributes of classes and modules, replaced for one thread alone.

Other threads may be training at the same time, with the same classes. So what stands in a class or
module while something is replaced asks which thread calls, and gives all others the original. A
thread that is started by one with replacements has them too, as those that `strategy.run` starts.
When the last replacement of an attribute is gone, so is every trace of it.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

Owner = type | ModuleType
Replacement = Callable[[Any], Any]
"""Makes what replaces a function, from that function."""

_Key = tuple[int, str]


class _Scope:
    """The replacements of one thread, and of those that it starts: the newest of each is last."""

    def __init__(self) -> None:
        self.replacements: dict[_Key, list[Any]] = {}


class _Attribute:
    """An attribute that is replaced for some thread: what it was, and for how many blocks."""

    def __init__(self, owner: Owner, name: str) -> None:
        self.owner = owner
        self.name = name
        self.key = (id(owner), name)
        self.own = name in vars(owner)
        self.original = vars(owner)[name] if self.own else getattr(owner, name)
        self.blocks = 0

    def install(self) -> None:
        """Put what asks for the thread in the attribute's place."""
        original, key = self.original, self.key

        # As `wraps` gives it the module of the original, autograph leaves it alone, too.
        @functools.wraps(original)
        def for_this_thread(*args: Any, **options: Any) -> Any:
            return _current(key, original)(*args, **options)

        _set(self.owner, self.name, for_this_thread)

    def remove(self) -> None:
        """Put the original back, to the very object."""
        if self.own:
            _set(self.owner, self.name, self.original)
        else:
            delattr(self.owner, self.name)


_lock = threading.RLock()
_attributes: dict[_Key, _Attribute] = {}
_scopes: dict[int, _Scope] = {}
"""The scope of each thread that has one, by the thread's identifier."""


def put_in_place(undo: contextlib.ExitStack, owner: Owner, name: str, make: Replacement) -> None:
    """Give a class or module another attribute, in this thread, until `undo` is closed.

    Args:
        undo: what takes it back.
        owner: the class or module.
        name: the attribute's name, a function's.
        make: gives the new attribute for the one that this thread had so far.
    """
    undo.enter_context(_replaced(owner, name, make))


def unreplaced(owner: Owner, name: str) -> Any:
    """A class's or module's own attribute, whatever it is replaced with in whatever thread."""
    attribute = _attributes.get((id(owner), name))
    return attribute.original if attribute else getattr(owner, name)


@contextlib.contextmanager
def _replaced(owner: Owner, name: str, make: Replacement) -> Iterator[None]:
    with _scope() as scope, _held(owner, name) as attribute:
        stack = scope.replacements.setdefault(attribute.key, [])
        stack.append(make(stack[-1] if stack else attribute.original))
        try:
            yield
        finally:
            stack.pop()


@contextlib.contextmanager
def _held(owner: Owner, name: str) -> Iterator[_Attribute]:
    """An attribute that asks for the thread while any block holds it."""
    key = (id(owner), name)
    with _lock:
        if key not in _attributes:
            _attributes[key] = _Attribute(owner, name)
            _attributes[key].install()
        attribute = _attributes[key]
        attribute.blocks += 1
    try:
        yield attribute
    finally:
        with _lock:
            attribute.blocks -= 1
            if not attribute.blocks:
                _attributes.pop(key).remove()


@contextlib.contextmanager
def _scope() -> Iterator[_Scope]:
    """This thread's scope; the outermost block makes it, and has threads inherit it."""
    thread = threading.get_ident()
    if thread in _scopes:
        yield _scopes[thread]
        return
    scope = _scopes[thread] = _Scope()
    try:
        yield scope
    finally:
        del _scopes[thread]


def _current(key: _Key, otherwise: Any) -> Any:
    """What an attribute is in the calling thread."""
    scope = _scopes.get(threading.get_ident())
    stack = scope.replacements.get(key) if scope is not None else None
    return stack[-1] if stack else otherwise


def _set(owner: Owner, name: str, value: Any) -> None:
    # Some of TensorFlow's modules only look their attributes up.
    if isinstance(owner, ModuleType):
        vars(owner)[name] = value
    else:
        setattr(owner, name, value)


@contextlib.contextmanager
def threads_inherit() -> Iterator[None]:
    """Give threads that this one starts in the block all that is replaced in it."""

    def inheriting(start: Callable[..., None]) -> Callable[..., None]:
        def start_with_scope(self: threading.Thread) -> None:
            scope, run = _scopes[threading.get_ident()], self.run

            def run_with_scope() -> None:
                del self.run
                _scopes[threading.get_ident()] = scope
                try:
                    run()
                finally:
                    del _scopes[threading.get_ident()]

            self.run = run_with_scope  # type: ignore[method-assign]
            start(self)

        return start_with_scope

    with contextlib.ExitStack() as undo:
        put_in_place(undo, threading.Thread, "start", inheriting)
        yield
