"""How a layer or a loss is made again, elsewhere: its config, and what the config names."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras

from tfcheck.errors import ReproductionError
from tfcheck.internals import sublayers
from tfcheck.reproduce.importable import Importable, importable, qualified


@dataclass(frozen=True, slots=True)
class Recipe:
    """How something of Keras's is made again.

    Attributes:
        config: what `keras.saving.deserialize_keras_object` takes, in JSON.
        places: where what it names is, by the names in it.
    """

    config: str
    places: Mapping[str, Importable]

    def made(self) -> Any:
        """A new one.

        Raises:
            ReproductionError: if none can be made.
        """
        objects = {name: place.found for name, place in self.places.items()}
        config = json.loads(self.config)
        try:
            return keras.saving.deserialize_keras_object(config, custom_objects=objects)
        except Exception as error:
            raise _without_config(config["class_name"], _reason(error)) from error


def recipe_of(thing: Any) -> Recipe:
    """How a layer or a loss is made again.

    Raises:
        ReproductionError: if its config does not tell, or names what cannot be imported.
    """
    try:
        config = keras.saving.serialize_keras_object(thing)
        config.pop("compile_config", None)
        config = json.loads(json.dumps(config))
    except Exception as error:
        raise _without_config(type(thing).__name__, _reason(error)) from error
    places: dict[str, Importable] = {}
    for part in _named_in(config):
        _place(part, thing, places)
    return Recipe(json.dumps(config), places)


def _without_config(name: str, said: str) -> ReproductionError:
    return ReproductionError(
        f"A test must make its layer from its config. Received: {name}, which cannot be ({said}). "
        "Give it a get_config that from_config understands."
    )


def _reason(error: BaseException) -> str:
    """The first sentence of what was first raised: Keras says over it, at length, that it was."""
    while (before := error.__cause__ or error.__context__) is not None:
        error = before
    return " ".join(str(error).split()).partition(". ")[0].rstrip(".") or type(error).__name__


def _named_in(config: Any) -> Iterator[dict[str, Any]]:
    """The parts of a config that name a class or a function."""
    if isinstance(config, list):
        for item in config:
            yield from _named_in(item)
    elif isinstance(config, dict):
        if "class_name" in config and "config" in config:
            yield config
        for item in config.values():
            yield from _named_in(item)


def _place(part: dict[str, Any], thing: Any, places: dict[str, Importable]) -> None:
    """Note where what a part of a config names is, and write that into the part."""
    # Keras leaves the module out where it is that of the script that runs.
    name, module = part["config"], part.get("module", "keras") or "__main__"
    if part["class_name"] == "__lambda__":
        raise _refused_lambda(thing)
    if _is_of_keras(module) or part["class_name"].startswith("__"):
        return
    if isinstance(name, str):  # a function, which Keras notes without its module
        found = _function(thing, name)
        if found is None:
            raise _without_config(type(thing).__name__, f"it names a function {name!r}")
        place = importable(*qualified(found), found)
        part |= {"class_name": "function", "config": place.name, "registered_name": place.name}
    else:
        registered = keras.saving.get_registered_object(part.get("registered_name") or "")
        place = _place_of_class(module, part["class_name"], registered or type(thing))
    places[part["registered_name"] or place.name] = place
    part["module"] = place.module


def _place_of_class(module: str, name: str, cls: type) -> Importable:
    if cls.__name__ == name and cls.__module__ == module:
        return importable(*qualified(cls), cls)
    return importable(module, name)


def _refused_lambda(thing: Any) -> ReproductionError:
    return ReproductionError(
        "A test must make its layer from its config. Received: "
        f"{type(thing).__name__} of a lambda, whose code has no name. Define it as a function at "
        "the top of a module."
    )


def _is_of_keras(module: str) -> bool:
    return module.partition(".")[0] == "keras"


def _function(thing: Any, name: str) -> Callable[..., Any] | None:
    """The function of a name that a layer, or one in it, or a loss holds."""
    holders = list(sublayers(thing)) if isinstance(thing, keras.Layer) else [thing]
    for holder in holders:
        for value in vars(holder).values():
            if callable(value) and getattr(value, "__name__", None) == name.rpartition(">")[2]:
                return value
    return None
