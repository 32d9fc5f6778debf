"""The source of a unit test of a culprit."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from tfcheck._version import __version__
from tfcheck.rendering.templating import plain_template
from tfcheck.report.reproduction import MARK, PATHS
from tfcheck.reproduce.evidence import Evidence, Given, Saved
from tfcheck.reproduce.importable import Importable
from tfcheck.settings import Settings

_LONGEST_CONFIG = 60
"""Lines; a longer one stands in the npz file."""

_WIDTH = 96


def config_is_long(evidence: Evidence) -> bool:
    """Whether the config has no place in the test itself."""
    return evidence.recipe is not None and _config(evidence).count("\n") >= _LONGEST_CONFIG


def unit_test(evidence: Evidence, given: Given, inputs_file: str, *, own_gradients: bool) -> str:
    """The source of a test.

    Args:
        evidence: what is known of the culprit.
        given: the call that the test makes.
        inputs_file: the name of the file with its arrays.
        own_gradients: whether the outputs are weighted with the gradients that they had.
    """
    recipe = evidence.recipe
    places = list(recipe.places.values()) if recipe else []
    places += [evidence.function] if evidence.function else []
    long = config_is_long(evidence)
    args, kwargs = list(map(_source, given.args)), list(map(_keyword, given.kwargs.items()))
    named = [f"arguments={_source(dict(given.kwargs))}"] if kwargs else []
    options = [f"{name}={value}" for name, value in _options(evidence.settings, given.phase)]
    if own_gradients:
        options.append(f"output_gradients={_source(list(given.gradients or ()))}")
    of_loss = evidence.is_loss
    return plain_template("unit_test.py.jinja").render(
        culprit=evidence.culprit,
        name=evidence.name,
        kind="loss" if of_loss else "layer",
        moment=f" {evidence.moment}" if evidence.moment else "",
        version=__version__,
        mark=MARK,
        paths=PATHS.rstrip("\n"),
        inputs_file=inputs_file,
        imports=sorted({f"from {place.module} import {place.name}" for place in places}),
        config="" if long or recipe is None else _config(evidence),
        config_is_saved=long,
        objects=_objects(evidence),
        function=evidence.function.name if evidence.function else "",
        weights=len(evidence.weights),
        args=args[1:] if of_loss else args,
        y_true=args[0] if of_loss else "",
        kwargs=kwargs,
        options=[*([] if of_loss else named), *options],
    )


def _options(settings: Settings, phase: str) -> Sequence[tuple[str, str]]:
    """The options of the check that are not the defaults, and the seed in any case."""
    default = Settings()
    names = ("method", "directions", "epsilon", "expected_mismatch")
    unlike = [
        (name, _source(getattr(settings, name)))
        for name in names
        if getattr(settings, name) != getattr(default, name)
    ]
    if settings.thresholds != default.thresholds:
        unlike.append(("thresholds", f"tfcheck.{settings.thresholds!r}"))
    if phase != default.phase:
        unlike.append(("phase", _source(phase)))
    return [*unlike, ("seed", repr(settings.seed))]


def _config(evidence: Evidence) -> str:
    assert evidence.recipe is not None
    return _literal(json.loads(evidence.recipe.config))


def _literal(value: Any, indent: str = "") -> str:
    """Plain values as they are written in Python, in lines that are not too long."""
    text = _source(value)
    if len(indent) + len(text) <= _WIDTH or not isinstance(value, dict | list) or not value:
        return text
    deeper = f"{indent}    "
    if isinstance(value, list):
        items = "".join(f"{deeper}{_literal(item, deeper)},\n" for item in value)
        return f"[\n{items}{indent}]"
    named = value.items()
    items = "".join(f"{deeper}{_source(key)}: {_literal(item, deeper)},\n" for key, item in named)
    return f"{{\n{items}{indent}}}"


def _objects(evidence: Evidence) -> str:
    named: dict[str, Importable] = dict(evidence.recipe.places) if evidence.recipe else {}
    return f"{{{', '.join(f'{_source(name)}: {place.name}' for name, place in named.items())}}}"


def _keyword(item: tuple[str, Any]) -> str:
    name, value = item
    return f"{name}={_source(value)}"


def _source(value: Any) -> str:
    """An argument as it is written in Python."""
    if isinstance(value, Saved):
        return f'saved["{value.name}"]'
    if isinstance(value, dict):
        items = (f"{_source(key)}: {_source(item)}" for key, item in value.items())
        return f"{{{', '.join(items)}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_source, value))}]"
    if isinstance(value, tuple):
        return f"({''.join(f'{_source(item)}, ' for item in value).rstrip(' ')})"
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    # In double quotes, as formatters want it.
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
