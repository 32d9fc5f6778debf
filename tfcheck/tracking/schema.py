"""What a report becomes in MLflow: metrics, params, tags and tables, as pure functions.

The step of everything is the number of optimizer iterations at the check. Metric names are made
so that MLflow's charts fall into few sections: it cuts at the last `/`, and a section per layer
or variable would be unreadable.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from tfcheck.gradient_report import GradientReport
from tfcheck.judge.reasons import Reason
from tfcheck.judge.verdict import Verdict, digits, worst
from tfcheck.rendering.words import clipped
from tfcheck.settings import Settings
from tfcheck.tracking import over_checkpoints

RUN_SCHEMA = "1"
"""Of what is written to a run; its tag is how a run with gradient checks is found."""

FIRST = "gradcheck"
"""The name of a callback that has no other, and what all names begin with."""

# More charts than this help nobody: beyond it, metrics are per layer, and the rest in the tables.
MAX_VARIABLE_METRICS = 100

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

# Several shades, so that neighbouring runs differ; a colour outside this list is the user's.
RUN_COLOURS = {
    Verdict.PASS: ("#2e7d32", "#009e73", "#7cb342", "#26a69a", "#1b5e20", "#827717"),
    Verdict.SUSPECT: ("#ef6c00", "#f9a825", "#e07b39", "#c98500", "#ffb74d", "#a65f00"),
    Verdict.FAIL: ("#c62828", "#880e4f", "#ff7043", "#d81b60", "#6d1b1b", "#ef5350"),
    Verdict.INCONCLUSIVE: ("#607d8b", "#90a4ae", "#455a64", "#8d99a6", "#b0bec5", "#263238"),
    Verdict.ERROR: ("#5e35b1", "#9575cd", "#4527a0", "#7e57c2", "#b39ddb", "#311b92"),
}
_SHADES = 6


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


def metrics(report: GradientReport, section: str = FIRST) -> dict[str, float]:
    """The numbers of one report, finite ones only: MLflow draws NaN as a gap, which hides it."""
    failed_to_run = report.verdict is Verdict.ERROR
    values: dict[str, float] = {
        "gradcheck/errors": float(failed_to_run),
        "gradcheck/seconds": report.seconds,
        "gradcheck/evaluations": float(report.evaluations),
        "gradcheck/epoch": math.nan if report.epoch is None else float(report.epoch),
    }
    if not failed_to_run:
        values |= _summary(report) | _scores(report)
    return {renamed(k, section): value for k, value in values.items() if math.isfinite(value)}


def _summary(report: GradientReport) -> dict[str, float]:
    counted = [variable for variable in report.variables if variable.counts]
    telling = [
        variable for variable in counted if variable.reason not in over_checkpoints.EXPLAINED
    ]
    scores = [v.score for v in telling or counted]
    finite = [score for score in scores if math.isfinite(score)]
    silent = sum(
        not math.isfinite(v.score) or v.reason == Reason.NON_FINITE for v in report.variables
    )
    return {
        "gradcheck/worst_score": max(finite, default=math.nan),
        "gradcheck/worst_digits": min(map(digits, scores), default=math.nan),
        "gradcheck/global_score": report.score,
        "gradcheck/failed_variables": float(report.count(Verdict.FAIL)),
        "gradcheck/inconclusive_variables": float(report.count(Verdict.INCONCLUSIVE)),
        "gradcheck/nonfinite_variables": float(silent),
    }


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
            values[f"gradcheck/digits/{name}"] = digits(layer.score)
        return values
    for name, variable in zip(of_variables, variables, strict=True):
        values[f"gradcheck/score/{name}"] = variable.score
        # No agreement is drawn as 0, but not where a score is unknown for a good reason.
        if math.isfinite(variable.score) or variable.reason not in over_checkpoints.EXPLAINED:
            values[f"gradcheck/digits/{name}"] = digits(variable.score)
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
    ranked = over_checkpoints.worst_first(over_checkpoints.histories(reports))
    first_fail = over_checkpoints.first_fail_step(reports)
    errors = [report.error for report in reports if report.verdict is Verdict.ERROR]
    values = {
        "gradcheck.verdict": str(over_checkpoints.overall(reports)),
        "gradcheck.failing_layers": ", ".join(over_checkpoints.failing_layers(reports)) or NONE,
        "gradcheck.culprits": ", ".join(over_checkpoints.culprits(reports)) or NONE,
        "gradcheck.first_fail_step": NONE if first_fail is None else str(first_fail),
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
    failures = (tags.get("gradcheck.first_fail_step", NONE) for tags in (before, now))
    steps = [int(step) for step in failures if step.isdecimal()]
    merged["gradcheck.first_fail_step"] = str(min(steps)) if steps else NONE
    return merged


def _worse(one: str, other: str) -> str:
    known = [Verdict(word) for word in (one, other) if word in set(Verdict)]
    return str(worst(known))


def shade_of(colour: str | None) -> int | None:
    """Which of our shades a run's colour is; None for none or a user's own."""
    for shades in RUN_COLOURS.values():
        if colour in shades:
            return shades.index(colour)
    return None


def free_shade(colours: Iterable[str | None]) -> int:
    """Which shade to use beside runs of these colours: the one they use least."""
    used = Counter(map(shade_of, colours))
    return min(range(_SHADES), key=lambda shade: used[shade])


def run_colour(verdict: Verdict, shade: int) -> str:
    """A colour for the run: green for pass, amber for suspect, red for fail."""
    return RUN_COLOURS[verdict][shade % _SHADES]


def logged_tables(before: str | None, section: str = FIRST) -> str:
    """The tag that makes MLflow show our tables, with those that others logged before."""
    try:
        entries = json.loads(before or "[]")
    except ValueError:
        entries = []
    if not isinstance(entries, list):
        entries = []
    for path in (f"{section}/verdicts.json", f"{section}/scores.json"):
        entry = {"path": path, "type": "table"}
        if entry not in entries:
            entries.append(entry)
    return json.dumps(entries)


def cut(text: str, length: int = MAX_TAG) -> str:
    """The text, shortened to what MLflow keeps."""
    return clipped(text, length)
