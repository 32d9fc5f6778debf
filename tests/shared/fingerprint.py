"""A fingerprint of all that a check could disturb: what a model reaches, and the process.

It is taken in a way of its own, so that what the package keeps and puts back is not trusted to be
all there is: every object that Python's garbage collector finds behind the model, libraries' own
machinery aside, and everything that a check is known to replace, draw from or register.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import os
import random
import signal
import sys
import threading
import types
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfcheck.internals import TF_FUNCTION_KIND, VARIABLE_KIND, global_state_of_keras

Fingerprint = dict[str, Any]

_TESTS = Path(__file__).parents[1]
_THREADS = "process.threads"
_PLAIN = (int, float, complex, bool, str, bytes, type(None))
_CLOSED = ("tensorflow", "numpy", "tfcheck", "threading", "weakref", "_weakref", "logging", "queue")


@contextlib.contextmanager
def nothing_changes(*roots: Any) -> Iterator[None]:
    """Assert that after the block, whatever happens in it, everything is as before.

    Args:
        roots: models, and whatever else is to be looked at.
    """
    alive: list[Any] = []  # so that no new object has the identity of one that was there before
    before = fingerprint(*roots, alive=alive)
    try:
        yield
    finally:
        after = fingerprint(*roots, alive=alive)
        # Those that have ended since, such as a pool's of an earlier test, are nobody's here.
        ended = Counter[str](before[_THREADS]) - Counter[str](after[_THREADS])
        before[_THREADS] = sorted((Counter[str](before[_THREADS]) - ended).elements())
        changed = differences(before, after)
        assert not changed, changed


def differences(before: Fingerprint, after: Fingerprint) -> list[str]:
    """What two fingerprints differ in, in words."""
    return [
        f"{place}: {before.get(place, 'nothing')!r} before, {after.get(place, 'nothing')!r} after"
        for place in sorted({*before, *after})
        if before.get(place) != after.get(place)
    ][:10]


def fingerprint(*roots: Any, alive: list[Any]) -> Fingerprint:
    """All that a check could disturb, by the place where it is.

    Args:
        roots: models, and whatever else is to be looked at.
        alive: is given all objects that were found.
    """
    found = {f"process.{name}": value for name, value in _process().items()}
    for number, root in enumerate([*roots, *global_state_of_keras()]):
        found |= _reached(root, f"root {number}", alive)
    return found


def _process() -> Fingerprint:
    return {
        "random": random.getstate(),
        "np.random": str(np.random.get_state()),  # noqa: NPY002 - the global one is meant
        "tf.random": _seeds_of_tensorflow(),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "graph": id(tf.compat.v1.get_default_graph()),
        "eager": tf.executing_eagerly(),
        "run eagerly": tf.config.functions_run_eagerly(),
        "environment": dict(os.environ),
        "filters": len(warnings.filters),
        "handlers": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "streams": (id(sys.stdout), id(sys.stderr)),
        "errstate": str(np.geterr()),
        **_attributes_of_classes(),
    }


def _seeds_of_tensorflow() -> Any:
    """The global seed, and where the generator of operations' seeds stands."""
    from tensorflow.python.eager import context

    generator = getattr(context.context(), "_rng", None)
    return context.global_seed(), None if generator is None else generator.getstate()


def _attributes_of_classes() -> Fingerprint:
    """What classes and modules hold that a check might replace."""
    optimizers = [keras.optimizers.Optimizer, *keras.optimizers.Optimizer.__subclasses__()]
    owners: list[Any] = [
        *(tf.GradientTape, tf.Variable, VARIABLE_KIND, tf.random.Generator, threading.Thread),
        *(keras.Model, keras.Layer, keras.losses.Loss, keras.layers.Dropout, *optimizers),
        *(keras.layers.AlphaDropout, keras.layers.GaussianDropout, TF_FUNCTION_KIND),
        *(keras.random, keras.src.backend.random, tf.nn, tf.nn.experimental),
    ]
    return {
        f"{getattr(owner, '__name__', owner)}.{name}": id(value)
        for owner in owners
        for name, value in vars(owner).items()
        if callable(value) or isinstance(value, staticmethod | classmethod | property)
        if not name.startswith("__") or name in ("__call__", "__enter__", "__exit__")
    }


def _reached(root: Any, place: str, alive: list[Any]) -> Fingerprint:
    """What is behind an object, by the path to it."""
    found: Fingerprint = {}
    seen: dict[int, Any] = {}
    waiting = collections.deque([(place, root)])
    while waiting:
        place, item = waiting.popleft()
        found[place] = _told(item)
        if id(item) in seen or isinstance(item, _PLAIN):
            continue
        seen[id(item)] = item
        waiting.extend((f"{place}{step}", part) for step, part in _parts(item))
    alive += seen.values()
    return found


def _told(item: Any) -> Any:
    """What is compared of one object: its value where it has one, else which object it is."""
    if isinstance(item, _PLAIN):
        return repr(item)
    if isinstance(item, VARIABLE_KIND):
        return id(item), np.asarray(item).tobytes()
    if type(item) is np.ndarray:
        return id(item), item.tobytes()
    if isinstance(item, np.random.Generator):
        return id(item), str(item.bit_generator.state)
    if isinstance(item, random.Random) and not isinstance(item, random.SystemRandom):
        return id(item), hash(item.getstate())
    if isinstance(item, set):
        return id(item), frozenset(map(id, item))
    return id(item)


def _parts(item: Any) -> list[tuple[str, Any]]:
    """What one object holds, with the step that leads there."""
    kind = type(item)
    parts: list[tuple[str, Any]] = []
    if issubclass(kind, types.ModuleType | type):
        return []
    if issubclass(kind, dict):
        parts += [(f"[{key!r}]"[:80], value) for key, value in item.items()]
    elif issubclass(kind, list | tuple | collections.deque):
        parts += [(f"[{number}]", value) for number, value in enumerate(item)]
        parts.append((".len", len(item)))
    elif issubclass(kind, types.FunctionType):
        cells = zip(item.__code__.co_freevars, item.__closure__ or (), strict=True)
        parts += [(f".closure {name}", _content(cell)) for name, cell in cells]
        parts += [(f".default {n}", value) for n, value in enumerate(item.__defaults__ or ())]
    elif issubclass(kind, types.MethodType):
        return [(".self", item.__self__), (".function", item.__func__)]
    elif issubclass(kind, functools.partial):
        return [(".func", item.func), (".args", item.args), (".keywords", item.keywords)]
    module = str(kind.__module__)  # a property, in a class of TensorFlow's
    if isinstance(getattr(item, "__dict__", None), dict) and not module.startswith(_CLOSED):
        parts += [(f".{name}", value) for name, value in vars(item).items()]
        if _is_of_the_tests(module):
            names = [name for name in vars(kind) if not name.startswith(("__", "_abc"))]
            parts += [(f".class.{name}", vars(kind)[name]) for name in names]
    return parts


@functools.cache
def _is_of_the_tests(module: str) -> bool:
    """Whether a module is one of the tests', whose classes are looked at, too."""
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is not None and Path(file).is_relative_to(_TESTS)


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None
