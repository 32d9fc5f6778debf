"""`[tool.tfcheck]` in the nearest `pyproject.toml`: a project's own defaults.

Options of a check stand in the table itself, and those of `tfcheck audit` and of the pytest plugin
in tables below it, `[tool.tfcheck.audit]` and `[tool.tfcheck.pytest]`.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tfcheck.errors import ArgumentError, first_line, rule

NAME = "pyproject.toml"

BANDS = ("great", "okay", "concerning")

CHECK_KEYS = (
    *("phase", "method", "directions", "epsilon", *BANDS),
    *("seed", "precision", "dropout", "memory-limit", "time-limit"),
)
"""The options that checks of any model share, as they are spelled there and on the command line.
Those of `expected_mismatch` must match something in the model, so they are no default of tests."""

SECTIONS = ("audit", "pytest")


@dataclass(frozen=True, slots=True)
class ProjectOptions:
    """What a project says of one command's options.

    Attributes:
        file: where it says so; None where there is no such file.
        values: the options by key, spelled with hyphens.
    """

    file: Path | None = None
    values: Mapping[str, Any] = field(default_factory=dict)

    def refused(self, key: str, why: str) -> ArgumentError:
        """The error for a value that cannot be used.

        Args:
            key: its key.
            why: a sentence.
        """
        return ArgumentError(f"{why.rstrip('.')}. It is {key} in [tool.tfcheck] of {self.file}.")


def project_options(folder: Path, section: str, own: Collection[str]) -> ProjectOptions:
    """What the nearest `pyproject.toml` says, in this folder or above.

    Args:
        folder: where to begin.
        section: whose options: `"audit"` or `"pytest"`. Its table wins over the one above it.
        own: the keys that its table knows besides the options of a check.

    Raises:
        ArgumentError: for a file that is no TOML, and for a key that is not known.
    """
    file = next((f for f in _candidates(folder) if f.is_file()), None)
    table = {} if file is None else _table(_content(file), "tool", "tfcheck", file=file)
    if file is None or not table:
        return ProjectOptions()
    shared = {key: value for key, value in table.items() if key not in SECTIONS}
    special = _table(table, section, file=file)
    name = f"[tool.tfcheck.{section}]"
    values = {
        **_known(shared, CHECK_KEYS, f"[tool.tfcheck] of {file}", dict.fromkeys(own, name)),
        **_known(special, (*CHECK_KEYS, *own), f"{name} of {file}"),
    }
    return ProjectOptions(file, values)


def _candidates(folder: Path) -> list[Path]:
    here = folder.absolute()
    return [place / NAME for place in (here, *here.parents)]


def _content(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArgumentError(
            f"{NAME} must be readable TOML. Received: {file} ({first_line(error)}). Mend it."
        ) from error


def _table(content: Mapping[str, Any], *names: str, file: Path) -> Mapping[str, Any]:
    """A table within tables; empty where there is none."""
    for name in names:
        content = content.get(name, {})
        if not isinstance(content, dict):
            raise ArgumentError(
                rule(f"{name} must be a table in {file}", name, content, "Write [tool.tfcheck]")
            )
    return content


def _known(
    table: Mapping[str, Any],
    keys: Collection[str],
    where: str,
    elsewhere: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """The table with hyphens in its keys; raises for a key that is not among those known."""
    spelled = {key.replace("_", "-"): value for key, value in table.items()}
    for key in spelled:
        if key not in keys:
            near = difflib.get_close_matches(key, keys, n=1)
            remedy = f"Write {near[0]}" if near else f"Known are {', '.join(sorted(keys))}"
            if key in elsewhere:
                remedy = f"Write it in {elsewhere[key]}"
            raise ArgumentError(rule(f"{where} has an unknown key", "key", key, remedy))
    return spelled
