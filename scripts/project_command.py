"""A command whose options have their defaults in the nearest `pyproject.toml`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from tfcheck.errors import rule
from tfcheck.pyproject import ProjectOptions, project_options

NEVER = ("unsafe", "help")
"""What only the command line says: no file may have stored code run."""


class ProjectCommand(click.Command):
    """A command that reads `[tool.tfcheck]`. What the command line says wins.

    `--help` and the shell's completion do without, so that a mistake in the file keeps nobody from
    reading how it is done.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the project's defaults, then what the command line says."""
        if not ctx.resilient_parsing and not set(ctx.help_option_names) & set(args):
            ctx.default_map = {**(ctx.default_map or {}), **self._defaults(ctx)}
        return super().parse_args(ctx, args)

    def _defaults(self, ctx: click.Context) -> Mapping[str, Any]:
        known = {key: p for p in self.params if (key := _key(p)) is not None}
        project = project_options(Path.cwd(), self.name or "", known)
        return {
            str(known[key].name): _taken(ctx, known[key], key, project) for key in project.values
        }


def _key(param: click.Parameter) -> str | None:
    """How an option is spelled in the file; None for what cannot stand there."""
    if not isinstance(param, click.Option):
        return None
    key = max(param.opts, key=len).removeprefix("--")
    return None if key in NEVER else key


def _taken(ctx: click.Context, param: click.Parameter, key: str, project: ProjectOptions) -> Any:
    """A value of the file as the command line would give it, if it can be used."""
    value = _as_typed(param, key, project)
    try:
        param.type_cast_value(ctx, value)
    except click.BadParameter as error:
        raise project.refused(key, error.message) from error
    return value


def _as_typed(param: click.Parameter, key: str, project: ProjectOptions) -> Any:
    value = project.values[key]
    if isinstance(param, click.Option) and param.is_flag:
        if not isinstance(value, bool):
            raise project.refused(
                key, rule(f"{key} must be true or false", key, value, "Write one")
            )
        return value
    if param.multiple:
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            why = rule(f"{key} must be a list of strings", key, value, f'Write {key} = ["..."]')
            raise project.refused(key, why)
        return [_from_its_folder(param, text, project) for text in texts]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        why = rule(f"{key} must be a number or a string", key, value, "Write one")
        raise project.refused(key, why)
    return _from_its_folder(param, str(value), project)


def _from_its_folder(param: click.Parameter, text: str, project: ProjectOptions) -> str:
    """A file is named from the folder that the `pyproject.toml` is in."""
    is_file = isinstance(param.type, click.Path) or (param.name == "imports" and text[-3:] == ".py")
    return str(project.file.parent / text) if is_file and project.file is not None else text
