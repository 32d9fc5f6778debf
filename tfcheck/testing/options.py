"""The options of a check in a test: what a project, a marker and a call say of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfcheck.errors import ArgumentError, ArgumentTypeError, rule

ALLOWED = ("suspect", "inconclusive")
"""The verdicts that a test may let through besides a pass."""

SHARED = (
    *("phase", "method", "directions", "epsilon", "thresholds", "expected_mismatch", "seed"),
    *("precision", "dropout", "memory_limit", "time_limit", "verbose"),
)
"""The options that a check of a model and one of a layer have in common."""


def require_shared(options: Mapping[str, Any], who: str) -> Mapping[str, Any]:
    """The options, if each can be given to every check; raises an `ArgumentError` else.

    Args:
        options: options of a check, and `allow`.
        who: who gives them, as the beginning of a sentence.
    """
    for name in options:
        if name not in (*SHARED, "allow"):
            remedy = f"Choose from allow, {', '.join(SHARED)}"
            raise ArgumentError(
                rule(f"{who} takes options that all checks have", "option", name, remedy)
            )
    return options


def require_allowed(allow: Any) -> tuple[str, ...]:
    """The verdicts as a tuple, if they can be let through; raises an `ArgumentError` else."""
    verdicts = (allow,) if isinstance(allow, str) else allow
    several = isinstance(verdicts, list | tuple | set | frozenset)
    if not several or not all(verdict in ALLOWED for verdict in verdicts):
        listed = " or ".join(f'"{verdict}"' for verdict in ALLOWED)
        raise ArgumentError(
            rule(f"allow must be {listed}, or both", "allow", allow, "Mend what fails")
        )
    return tuple(verdicts)


def project_defaults(folder: Path) -> dict[str, Any]:
    """What `[tool.tfcheck]` and `[tool.tfcheck.pytest]` say of the options of a check.

    Args:
        folder: where to begin looking for a `pyproject.toml`.

    Raises:
        ArgumentError: for an option or a value that tfcheck does not know.
    """
    from tfcheck.judge.verdict import Thresholds
    from tfcheck.pyproject import BANDS, project_options
    from tfcheck.settings import Settings, make_settings

    project = project_options(folder, "pytest", ("allow",))
    values = {key.replace("-", "_"): value for key, value in project.values.items()}
    bands = {band: values.pop(band) for band in BANDS if band in values}
    try:
        if bands:
            values["thresholds"] = Thresholds(**bands)
        require_allowed(values.get("allow", ()))
        plain = {name: getattr(Settings(), name) for name in SHARED if name != "verbose"}
        make_settings(**{name: values.get(name, plain[name]) for name in plain})
    except (ArgumentError, ArgumentTypeError) as error:
        raise ArgumentError(f"{error} It stands in [tool.tfcheck] of {project.file}.") from error
    return values
