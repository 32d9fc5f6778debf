"""The innermost call that is wrong is to blame, and none around it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tfcheck.locate.culprits import innermost


def call(name: str, *children: Any) -> Any:
    """A call of a layer, with those that are made in it."""
    return SimpleNamespace(name=name, children=children)


FIRST, SECOND, LAST = call("first"), call("second"), call("last")
BLOCK = call("block", FIRST, SECOND)
MODEL = call("model", BLOCK, LAST)
CALLS = [FIRST, SECOND, BLOCK, LAST, MODEL]


@pytest.mark.parametrize(
    ("wrong", "to_blame"),
    [
        ("", ""),
        ("second block model", "second"),
        ("block model", "block"),
        ("first last block model", "first last"),
        ("model", "model"),
    ],
)
def test_the_innermost_is_to_blame(wrong: str, to_blame: str) -> None:
    """Those around it are wrong because of it, and are not even asked."""
    asked = []

    def is_wrong(one: Any) -> bool:
        asked.append(one.name)
        return one.name in wrong.split()

    found: list[Any] = list(innermost(CALLS, is_wrong))
    assert [one.name for one in found] == to_blame.split()
    around = {"second": {"block", "model"}, "block": {"model"}, "first last": {"block", "model"}}
    assert around.get(to_blame, set()).isdisjoint(asked)
