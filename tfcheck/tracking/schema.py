"""What a report becomes in MLflow: metrics, params, tags and tables, as pure functions.

The step of everything is the number of optimizer iterations at the check. Metric names are made
so that MLflow's charts fall into few sections: it cuts at the last `/`, and a section per layer
or variable would be unreadable.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence

from tfcheck.gradient_report import GradientReport
from tfcheck.judge.reasons import Reason
from tfcheck.judge.verdict import Verdict, digits, worst
from tfcheck.rendering.words import clipped, moment
from tfcheck.settings import Settings
from tfcheck.tracking import history

RUN_SCHEMA = "1"
"""Of what is written to a run; its tag is how a run with gradient checks is found."""

FIRST = "gradcheck"
"""The name of a callback that has no other, and what all names begin with."""

# More charts than this help nobody: beyond it, metrics are per layer, and the rest in the tables.
MAX_VARIABLE_METRICS = 100

LEVELS = {
    Verdict.PASS: 0.0,
    Verdict.INCONCLUSIVE: 1.0,
    Verdict.ERROR: 1.0,
    Verdict.SUSPECT: 2.0,
    Verdict.FAIL: 3.0,
}
"""A verdict as a number, for charts. After a check that could not be made, nothing is known."""

NONE = "none"
"""What a tag says that has nothing to say."""

# MLflow cuts tags here.
MAX_TAG = 8_000

# MLflow allows names of 250 characters; the longest prefix is "gradcheck/digits/".
_MAX_NAME = 200

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


def metric_name(text: str) -> str:
    """A layer or variable path as the last part of a metric name.

    Example:
        >>> metric_name("encoder/dense:0/kernel")
        'encoder.dense_0.kernel'
    """
    name = re.sub(r"[^\w.\-]+", "_", text.replace("/", ".")).strip(".")
    if len(name) > _MAX_NAME:
        name = f"{name[:110]}_{name[-80:]}"
    return name or "unnamed"


def metric_names(paths: Iterable[str]) -> list[str]:
    """A metric name for each path, no two alike.

    Names that differ only by case count as alike: file systems and databases may not tell them
    apart.

    Example:
        >>> metric_names(["a/b", "a.b", "A/b"])
        ['a.b', 'a.b_2', 'A.b_3']
    """
    taken: set[str] = set()
    names = []
    for path in paths:
        base = name = metric_name(path)
        number = 1
        while name.casefold() in taken:
            number += 1
            name = f"{base}_{number}"
        taken.add(name.casefold())
        names.append(name)
    return names


def metrics(
    report: GradientReport, section: str = FIRST, guilty: Sequence[str] = ()
) -> dict[str, float]:
    """The numbers of one report, finite ones only: MLflow draws NaN as a gap, which hides it.

    Args:
        report: the check.
        section: its callback's section.
        guilty: the layers that this check or one before it found wrong by themselves. They may
            have no variables, and so no verdict of their own in the report.
    """
    failed_to_run = report.verdict is Verdict.ERROR
    values: dict[str, float] = {
        "gradcheck/errors": float(failed_to_run),
        "gradcheck/worst_verdict": LEVELS[report.verdict],
        "gradcheck/seconds": report.seconds,
        "gradcheck/evaluations": float(report.evaluations),
        "gradcheck/epoch": math.nan if report.epoch is None else float(report.epoch),
    }
    if not failed_to_run:
        values |= _summary(report) | _verdicts(report, guilty) | _scores(report)
    return {renamed(k, section): value for k, value in values.items() if math.isfinite(value)}


def _summary(report: GradientReport) -> dict[str, float]:
    counted = [variable for variable in report.variables if variable.counts]
    telling = [variable for variable in counted if variable.reason not in history.EXPLAINED]
    scores = [v.score for v in telling or counted]
    finite = [score for score in scores if math.isfinite(score)]
    silent = sum(
        not math.isfinite(v.score) or v.reason == Reason.NON_FINITE for v in report.variables
    )
    return {
        "gradcheck/worst_score": max(finite, default=math.nan),
        "gradcheck/worst_digits": min(map(shown_digits, scores), default=math.nan),
        "gradcheck/global_score": report.score,
        "gradcheck/failed_variables": float(report.count(Verdict.FAIL)),
        "gradcheck/inconclusive_variables": float(report.count(Verdict.INCONCLUSIVE)),
        "gradcheck/nonfinite_variables": float(silent),
    }


def shown_digits(score: float) -> float:
    """Digits of agreement as they are shown: MLflow's tables write every decimal they are given.

    Example:
        >>> shown_digits(8.3405141394e-9)
        8.08
    """
    return round(digits(score), 2)


def levels(report: GradientReport, guilty: Iterable[str] = ()) -> dict[str, float]:
    """What was judged, layer by layer: a score alone does not tell a misapplied gradient."""
    found: dict[str, float] = {}
    for layer in report.layers:  # Keras allows two layers of one path
        found[layer.path] = max(found.get(layer.path, 0.0), LEVELS[layer.verdict])
    for path in dict.fromkeys([*guilty, *report.culprits]):
        found[path] = LEVELS[Verdict.FAIL] if path in report.culprits else found.get(path, 0.0)
    return found


def layer_names(paths: Iterable[str]) -> dict[str, str]:
    """The name of each layer in its metrics, by its path."""
    different = list(dict.fromkeys(paths))
    return dict(zip(different, metric_names(different), strict=True))


def _verdicts(report: GradientReport, guilty: Iterable[str]) -> dict[str, float]:
    judged = levels(report, guilty)
    return {f"gradcheck/verdict/{name}": judged[path] for path, name in layer_names(judged).items()}


def _scores(report: GradientReport) -> dict[str, float]:
    paths = [layer.path for layer in report.layers]
    variables = report.variables
    # A layer's name and its variables' names share one section, so they are told apart together.
    names = metric_names([*paths, *(f"{v.layer}.{v.name}" for v in variables)])
    of_layers, of_variables = names[: len(paths)], names[len(paths) :]

    values = {
        f"gradcheck/score/{name}": layer.score
        for name, layer in zip(of_layers, report.layers, strict=True)
    }
    values |= {
        f"gradcheck/precision/{name}": layer.precision_error
        for name, layer in zip(of_layers, report.layers, strict=True)
    }
    if len(variables) > MAX_VARIABLE_METRICS:
        for name, layer in zip(of_layers, report.layers, strict=True):
            values[f"gradcheck/digits/{name}"] = shown_digits(layer.score)
        return values
    for name, variable in zip(of_variables, variables, strict=True):
        values[f"gradcheck/score/{name}"] = variable.score
        # No agreement is drawn as 0, but not where a score is unknown for a good reason.
        if math.isfinite(variable.score) or variable.reason not in history.EXPLAINED:
            values[f"gradcheck/digits/{name}"] = shown_digits(variable.score)
    return values


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
    ranked = history.worst_first(history.histories(reports))
    errors = [report.error for report in reports if report.verdict is Verdict.ERROR]
    values = {
        "gradcheck.verdict": str(history.overall(reports)),
        "gradcheck.failing_layers": ", ".join(history.failing_layers(reports)) or NONE,
        "gradcheck.culprits": ", ".join(history.culprits(reports)) or NONE,
        **_first_fail(history.first_fail(reports)),
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
        "gradcheck.first_fail_step": str(history.step_of(report)),
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
