"""The templates: pages, in which everything is escaped, and plain text."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template


def pages(finalize: Callable[[Any], Any]) -> Environment:
    """The environment of HTML pages.

    Args:
        finalize: what is made of every value before it is escaped.
    """
    return Environment(
        loader=_templates(),
        autoescape=True,
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
    )


@cache
def plain_template(name: str) -> Template:
    """A template of text that is no HTML, by the name of its file."""
    environment = Environment(
        loader=_templates(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(name)


def _templates() -> PackageLoader:
    return PackageLoader("tfcheck.rendering", "templates")
