"""The layers that a package defines, so that a test can go through all of them."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras


def layer_classes(package: ModuleType) -> tuple[type[keras.Layer], ...]:
    """The public Keras layers that a module or a package defines, in the order of their names.

    Args:
        package: all modules within it are imported. Classes whose names begin with an underscore,
            those that are only imported there, and models are left out.

    Example:
        >>> [kind.__name__ for kind in layer_classes(shop.layers)]  # doctest: +SKIP
        ['Gate', 'Swish']
    """
    import keras

    found = {
        kind
        for module in _modules(package)
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if kind.__module__ == module.__name__ and not kind.__name__.startswith("_")
        if issubclass(kind, keras.Layer) and not issubclass(kind, keras.Model)
    }
    return tuple(sorted(found, key=lambda kind: (kind.__name__, kind.__module__)))


def _modules(package: ModuleType) -> Iterator[ModuleType]:
    yield package
    for module in pkgutil.walk_packages(getattr(package, "__path__", ()), f"{package.__name__}."):
        yield importlib.import_module(module.name)
