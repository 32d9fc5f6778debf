"""What a report becomes in MLflow: names, params and tags, as pure functions.

The step of everything is the number of optimizer iterations at the check.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from tfcheck.gradient_report import GradientReport
from tfcheck.judge.verdict import Verdict, worst
from tfcheck.rendering.words import clipped, moment
from tfcheck.settings import Settings
from tfcheck.tracking import over_checkpoints

RUN_SCHEMA = "1"
"""Of what is written to a run; its tag is how a run with gradient checks is found."""

FIRST = "gradcheck"
"""The name of a callback that has no other, and what all names begin with."""

NONE = "none"
"""What a tag says that has nothing to say."""

# MLflow cuts tags here.
MAX_TAG = 8_000

MARKS = {
    Verdict.PASS: "✅",
    Verdict.SUSPECT: "⚠️",
    Verdict.FAIL: "❌",
    Verdict.INCONCLUSIVE: "❔",
    Verdict.ERROR: "🛑",
}


def section(name: str) -> str:
    """What the names of a callback's metrics, params and files begin with.

    MLflow cuts metric names at the last `/`, so a section of its own begins differently.

    Example:
        >>> section("gradcheck"), section("generator")
        ('gradcheck', 'gradcheck-generator')
    """
    return FIRST if name == FIRST else f"{FIRST}-{name}"


def renamed(name: str, section: str) -> str:
    """A name of the first callback as another's.

    Example:
        >>> renamed("gradcheck/score/conv", "gradcheck-generator")
        'gradcheck-generator/score/conv'
    """
    return f"{section}{name.removeprefix(FIRST)}"


def params(settings: Settings) -> dict[str, str]:
    """The options of the checks; what is not known yet is left out."""
    bands = settings.thresholds
    values = {
        "method": settings.method,
        "epsilon": settings.epsilon,
        "directions": settings.directions,
        "phase": settings.phase,
        "thresholds": f"great {bands.great:g}, okay {bands.okay:g}, "
        f"concerning {bands.concerning:g}",
        "seed": settings.seed,
        "precision": settings.precision,
        "dropout": settings.dropout,
        "memory_limit": settings.memory_limit,
        "time_limit": settings.time_limit,
        "batch_size": settings.batch_size,
        "batch_fingerprint": settings.batch_fingerprint,
        "expected_mismatch": ", ".join(settings.expected_mismatch),
        "version": settings.version,
    }
    return {f"gradcheck.{k}": str(v) for k, v in values.items() if v is not None and v != ""}


def tags(
    reports: Sequence[GradientReport], section: str = FIRST, errors_before: int = 0
) -> dict[str, str]:
    """The outcome so far, for MLflow's table and its search.

    Args:
        reports: the checks of one callback.
        section: its section; what only it knows goes by names of its own.
        errors_before: so many checks before these could not be made.
    """
    ranked = over_checkpoints.worst_first(over_checkpoints.histories(reports))
    errors = [report.error for report in reports if report.verdict is Verdict.ERROR]
    values = {
        "gradcheck.verdict": str(over_checkpoints.overall(reports)),
        "gradcheck.failing_layers": ", ".join(over_checkpoints.failing_layers(reports)) or NONE,
        "gradcheck.culprits": ", ".join(over_checkpoints.culprits(reports)) or NONE,
        **_first_fail(over_checkpoints.first_fail(reports)),
        "gradcheck.worst_layer": ranked[0].layer if ranked else NONE,
        "gradcheck.coverage": _coverage(reports),
        "gradcheck.schema": RUN_SCHEMA,
    }
    if section != FIRST:
        values[f"{section}.verdict"] = values["gradcheck.verdict"]
    if errors:
        values[f"{section}.errors"] = str(errors_before + len(errors))
        values[f"{section}.last_error"] = cut(errors[-1], 500)
    return {name: cut(value) for name, value in values.items()}


def _first_fail(report: GradientReport | None) -> dict[str, str]:
    """When it went wrong: in one cell, and as numbers to search for."""
    if report is None:
        return {f"gradcheck.first_fail{what}": NONE for what in ("", "_step", "_epoch")}
    return {
        "gradcheck.first_fail": moment(report) or NONE,
        "gradcheck.first_fail_step": str(over_checkpoints.step_of(report)),
        "gradcheck.first_fail_epoch": NONE if report.epoch is None else str(report.epoch),
    }


def _coverage(reports: Sequence[GradientReport]) -> str:
    """The smallest share of the variables that one of the checks compared, such as `"0.982"`."""
    shares = [report.coverage.variables for report in reports if report.variables]
    return f"{min(shares):.3g}" if shares else NONE


def _is_share(tag: str) -> bool:
    return re.fullmatch(r"[01](\.\d+)?(e-\d+)?", tag) is not None


def merged_tags(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """The outcome with what other callbacks and earlier trainings found in the run: the worst.

    Args:
        before: the run's tags.
        now: the tags of one callback and training.
    """
    merged = dict(now)
    for name in [name for name in now if name.endswith(".verdict")]:
        merged[name] = _worse(before.get(name, ""), now[name])
    if merged["gradcheck.verdict"] != now["gradcheck.verdict"]:
        merged["gradcheck.worst_layer"] = before.get("gradcheck.worst_layer", NONE)
    shares = [tags.get("gradcheck.coverage", NONE) for tags in (before, now)]
    merged["gradcheck.coverage"] = min(filter(_is_share, shares), key=float, default=NONE)
    for name in ("gradcheck.failing_layers", "gradcheck.culprits"):
        named = [*before.get(name, NONE).split(", "), *now[name].split(", ")]
        merged[name] = cut(
            ", ".join(layer for layer in dict.fromkeys(named) if layer != NONE) or NONE
        )
    failures = [tags for tags in (before, now) if _failed_at(tags).isdecimal()]
    earliest = min(failures, key=lambda tags: int(_failed_at(tags)), default=now)
    for name in _first_fail(None):
        merged[name] = earliest.get(name, NONE)
    return merged


def _failed_at(tags: Mapping[str, str]) -> str:
    return tags.get("gradcheck.first_fail_step", NONE)


def _worse(one: str, other: str) -> str:
    known = [Verdict(word) for word in (one, other) if word in set(Verdict)]
    return str(worst(known))


def logged_tables(before: str | None, section: str = FIRST) -> str:
    """The tag that makes MLflow show our tables, with those that others logged before."""
    try:
        entries = json.loads(before or "[]")
    except ValueError:
        entries = []
    if not isinstance(entries, list):
        entries = []
    for table in ("matrix", "verdicts", "scores"):  # MLflow opens the first of them
        entry = {"path": f"{section}/{table}.json", "type": "table"}
        if entry not in entries:
            entries.append(entry)
    return json.dumps(entries)


def cut(text: str, length: int = MAX_TAG) -> str:
    """The text, shortened to what MLflow keeps."""
    return clipped(text, length)
