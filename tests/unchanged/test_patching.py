"""Attributes replaced for one thread alone."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

from tfcheck.unchanged.patching import put_in_place, threads_inherit, unreplaced


class Base:
    def inherited(self) -> str:
        return "inherited"


class Owner(Base):
    def own(self) -> str:
        return "own"


def louder(original: Callable[..., str]) -> Callable[..., str]:
    """What calls the original, and adds a mark."""
    return lambda *args: f"{original(*args)}!"


def elsewhere(call: Callable[[], Any]) -> Any:
    """What a call gives in another thread, which was started by nobody with replacements."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(call()))
    thread.start()
    thread.join()
    return found[0]


def test_only_this_thread_sees_a_replacement() -> None:
    """Other threads get the original while it is replaced, and so does everyone afterwards."""
    before = dict(vars(Owner))
    with contextlib.ExitStack() as undo:
        for name in ("own", "inherited"):
            put_in_place(undo, Owner, name, louder)
        assert (Owner().own(), Owner().inherited()) == ("own!", "inherited!")
        assert elsewhere(lambda: (Owner().own(), Owner().inherited())) == ("own", "inherited")
        assert unreplaced(Owner, "own")(Owner()) == "own"
    assert dict(vars(Owner)) == before


def test_replacements_are_stacked() -> None:
    """A second one calls the first, and the first is there again after it."""
    with contextlib.ExitStack() as outer:
        put_in_place(outer, Owner, "own", louder)
        with contextlib.ExitStack() as inner:
            put_in_place(inner, Owner, "own", louder)
            assert Owner().own() == "own!!"
        assert Owner().own() == "own!"


def test_two_threads_with_replacements_of_their_own() -> None:
    """Each has its own, and whoever ends first takes nothing from the other."""
    original = vars(Owner)["own"]

    def replaced_there() -> str:
        with contextlib.ExitStack() as undo:
            put_in_place(undo, Owner, "own", lambda _: lambda _self: "there")
            return Owner().own()

    with contextlib.ExitStack() as undo:
        put_in_place(undo, Owner, "own", louder)
        assert elsewhere(replaced_there) == "there"
        assert Owner().own() == "own!"
    assert vars(Owner)["own"] is original


def test_threads_inherit() -> None:
    """Threads that are started in the block have its replacements, for as long as it lasts."""
    late, waiting = [], threading.Event()

    def outlast() -> None:
        waiting.wait()
        late.append(Owner().own())

    with contextlib.ExitStack() as undo, threads_inherit():
        put_in_place(undo, Owner, "own", louder)
        assert elsewhere(lambda: Owner().own()) == "own!"
        thread = threading.Thread(target=outlast)
        thread.start()
    waiting.set()
    thread.join()
    assert late == ["own"]
    assert threading.Thread.start.__module__ == "threading"


def test_modules() -> None:
    """A function of a module is replaced under the module's name for it."""
    module: Any = ModuleType("made_up")
    module.speak = lambda: "speech"
    with contextlib.ExitStack() as undo:
        put_in_place(undo, module, "speak", louder)
        assert module.speak() == "speech!"
        assert elsewhere(module.speak) == "speech"
    assert module.speak() == "speech"
