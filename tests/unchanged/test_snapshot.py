"""What can be reached in Python is put back, whatever was done to it."""

from __future__ import annotations

import collections
import copy
import functools
import random
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tfcheck.unchanged.snapshot import Snapshot

ATOMS = st.none() | st.integers() | st.text(max_size=3) | st.floats(allow_nan=False)
NESTED: st.SearchStrategy[Any] = st.recursive(
    ATOMS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=2), inner, max_size=4)
        | st.builds(lambda item: SimpleNamespace(item=item), inner)
        | st.builds(collections.deque, st.lists(inner, max_size=4))
    ),
    max_leaves=12,
)
COUNT = 0


def disturb(item: Any, rng: random.Random) -> None:
    """Change a nested structure at random, wherever it can be changed."""
    if isinstance(item, SimpleNamespace):
        disturb(item.item, rng)
        item.item = rng.choice([item.item, None, [1]])
        item.more = 1
    elif isinstance(item, dict):
        for value in list(item.values()):
            disturb(value, rng)
        if item and rng.random() < 0.5:
            item.pop(rng.choice(list(item)))
        item["new"] = [2]
    elif isinstance(item, list | collections.deque):
        for value in list(item):
            disturb(value, rng)
        if item and rng.random() < 0.5:
            item.pop()
        item.append(3)


@given(NESTED, st.integers(0, 1000))
def test_nested_structures_are_put_back(item: Any, seed: int) -> None:
    """Lists, dictionaries, deques and objects hold what they held, in the same order."""
    root = SimpleNamespace(item=item)
    expected = copy.deepcopy(root)
    snapshot = Snapshot([root])
    disturb(root, random.Random(seed))
    snapshot.put_back()
    assert root == expected
    assert str(root) == str(expected)  # the order of dictionaries, too


class Slotted:
    __slots__ = ("__hidden", "left", "right")

    right: int

    def __init__(self) -> None:
        self.left = 1
        self.__hidden = 2

    def hidden(self, value: int = 0) -> int:
        self.__hidden += value
        return self.__hidden


class Counted:
    made = 0
    listed: list[int] = []  # noqa: RUF012 - shared on purpose

    def count(self) -> None:
        global COUNT  # noqa: PLW0603 - what scripts do
        COUNT += 1
        Counted.made += 1
        Counted.listed.append(1)


@functools.cache
def squared(number: int) -> int:
    """A function that remembers."""
    return number**2


def remembering(numbers: list[int] = []) -> int:  # noqa: B006 - what scripts do
    """A function that counts in its default, and asks one that remembers."""
    numbers.append(squared(3))
    return len(numbers)


def test_what_code_reaches_is_put_back() -> None:
    """Slots, class attributes, globals, defaults, closures, caches, arrays and generators."""
    total = 0

    def adding() -> int:
        nonlocal total
        total += 1
        return total

    slotted, dice, numbers = Slotted(), random.Random(1), np.random.default_rng(2)
    array, codes, legacy = np.array([1.0, np.nan]), bytearray(b"ab"), np.random.RandomState(3)
    counted, chosen = Counted(), {1, 2}
    holder: list[Any] = [slotted, counted, adding, remembering, array, codes, dice, numbers, legacy]
    holder += [chosen, functools.partial(adding)]
    states = [dice.getstate(), numbers.bit_generator.state, str(legacy.get_state())]
    snapshot = Snapshot([holder])

    slotted.right, slotted.left = 5, 6
    slotted.hidden(3)
    counted.count()
    adding()
    remembering()
    array[0], codes[0] = 7.0, 0
    dice.random(), numbers.random(), legacy.rand()
    chosen.add(3)
    holder.clear()
    snapshot.put_back()

    assert (slotted.left, slotted.hidden(), hasattr(slotted, "right")) == (1, 2, False)
    assert (COUNT, Counted.made, Counted.listed) == (0, 0, [])
    assert (adding(), remembering(), squared.cache_info().currsize) == (1, 1, 1)
    np.testing.assert_array_equal(array, [1.0, np.nan])
    assert codes == b"ab"
    assert [dice.getstate(), numbers.bit_generator.state, str(legacy.get_state())] == states
    assert chosen == {1, 2}
    assert len(holder) == 11


def test_containers_that_keras_tracks_are_put_back() -> None:
    """Also those of a built layer, which refuse to be changed."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.extras = [keras.layers.Dense(1), {"a": [1]}]
    before = list(model.extras)
    snapshot = Snapshot([model])
    list.clear(model.extras)
    model.fresh = 1
    snapshot.put_back()
    assert all(one is other for one, other in zip(model.extras, before, strict=True))
    assert not hasattr(model, "fresh")
    assert len(model.layers) == 1
