"""The templates: pages, in which everything is escaped, and plain text."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from tfcheck.rendering import words


def pages() -> Environment:
    """An environment of HTML pages: what is put into them is made printable, then escaped."""
    return Environment(
        loader=_templates(),
        autoescape=True,
        finalize=_printable,
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


def _printable(value: Any) -> Any:
    return words.printable(value) if type(value) is str else value


def _templates() -> PackageLoader:
    return PackageLoader("tfcheck.rendering", "templates")
