"""What a check found and how it was made, as short labelled lines."""

from __future__ import annotations

import math

from tfcheck.judge.verdict import Thresholds, Verdict
from tfcheck.rendering.words import kind, limit, number, placed_culprits, plural, scientific
from tfcheck.report.outcome import Outcome
from tfcheck.report.rows import VariableReport


def facts(report: Outcome) -> tuple[tuple[str, str], ...]:
    """The lines at the head of a report, as (label, text): what was found, then how.

    Every tolerance is among them, and every option that changes the outcome.
    """
    settings, objective = report.settings, report.objective
    found: list[tuple[str, str]] = []
    worst = worst_variable(report)
    if worst is not None:
        found.append(("worst", f"{worst.path}, {_score(worst.score, settings.thresholds)}"))
        found.append(("all of θ", _score(report.score, settings.thresholds)))
    if report.culprits:
        label = "culprit" if len(report.culprits) == 1 else "culprits"
        found.append((label, ", ".join(placed_culprits(report))))
    found.append(("thresholds", threshold_words(settings.thresholds)))
    found.append(("loss", loss(report)))
    alone = objective.source == "layer"
    origin = (
        "the layer alone, outputs weighted at random" if alone else f"loss from {objective.source}"
    )
    frozen = ", dropout frozen" if settings.dropout == "frozen" else ""
    found.append(("phase", f"{objective.phase}, {origin}{frozen}"))
    found.append(("method", method(report)))
    if compared := coverage(report):
        found.append(("compared", compared))
    if precise := precision(report):
        found.append(("imprecise" if report.imprecise_layers else "precision", precise))
    if settings.expected_mismatch:
        found.append(("expected", f"mismatch of {', '.join(settings.expected_mismatch)}"))
    if objective.random_ops:
        found.append(("random", ", ".join(objective.random_ops)))
    if spent := cost(report):
        found.append(("cost", spent))
    return tuple(found)


def _score(score: float, thresholds: Thresholds) -> str:
    return f"score {scientific(score)} ({thresholds.band(score)})"


def worst_variable(report: Outcome) -> VariableReport | None:
    """The variable a reader should look at first; None where none was checked.

    A passing variable without a score, such as one the loss does not use, is not the worst.
    """
    checked = [variable for variable in report.worst_first if variable.counts]
    telling = [v for v in checked if v.verdict is not Verdict.PASS or not math.isnan(v.score)]
    return next(iter(telling or checked), None)


def counts(report: Outcome) -> tuple[tuple[str, int], ...]:
    """How many variables are shown as what, worst first, without the zeros."""
    order = ("fail", "suspect", "inconclusive", "error", "pass", "declared")
    shown = [kind(variable) for variable in report.variables]
    return tuple((name, shown.count(name)) for name in order if name in shown)


def failure_sentence(report: Outcome) -> str:
    """What was checked, the verdict, the culprit with its line, and how many are how."""
    culprits = ", ".join(placed_culprits(report))
    blamed = f", culprit {culprits}" if culprits else ""
    return f"{report.model or 'gradient check'}: {report.verdict}{blamed}. {summary(report)}"


def summary(report: Outcome) -> str:
    """One sentence: how many variables were found how."""
    if report.verdict is Verdict.ERROR:
        return "The check could not be carried out, so nothing is known of the gradients."
    if not report.variables:
        return "No variable was checked."
    tally = counts(report)
    if len(tally) == 1 and tally[0][0] == "pass":
        total, compared = tally[0][1], sum(v.compared for v in report.variables)
        if compared == total:
            return f"All {total} variables pass." if total > 1 else "The one variable passes."
        return f"Nothing is wrong with {plural(total, 'variable')}, {compared} of them compared."
    parts = ", ".join(f"{count} {name}" for name, count in tally)
    return f"Of {plural(len(report.variables), 'variable')}: {parts}."


def coverage(report: Outcome) -> str:
    """How much was compared and not just too small to be seen; `""` where that is everything."""
    compared = sum(variable.compared for variable in report.variables)
    if compared == len(report.variables):
        return ""
    share = report.coverage.parameters
    return (
        f"{compared} of {plural(len(report.variables), 'variable')}, "
        f"{100 * share:.3g} % of their entries"
    )


def method(report: Outcome) -> str:
    """How the derivatives were measured, in one line."""
    settings = report.settings
    detail = {
        "directions": f"{settings.directions} random ones a variable",
        "full": "every coordinate",
    }.get(settings.method)
    epsilon = settings.epsilon if isinstance(settings.epsilon, str) else limit(settings.epsilon)
    parts = [
        f"{settings.method}{f' ({detail})' if detail else ''}",
        f"epsilon {epsilon}",
        f"seed {settings.seed}",
    ]
    if settings.batch_size is not None:
        parts.append(f"batch of {settings.batch_size}")
    return ", ".join(parts)


def cost(report: Outcome) -> str:
    """What the check cost: evaluations of the loss, and wall-clock time."""
    parts = [plural(report.evaluations, "evaluation")] if report.evaluations else []
    if math.isfinite(report.seconds):
        parts.append(f"{number(report.seconds, 2)} s")
    return ", ".join(parts)


def loss(report: Outcome) -> str:
    """The values of the losses, their precision, and how far they are from those trained."""
    objective = report.objective
    if not objective.losses:
        return "unknown"
    values = ", ".join(f"{value:.6g}" for value in objective.losses)
    precision = objective.precision
    if objective.islands:
        precision += f" but for {', '.join(objective.islands)}"
    if not math.isnan(objective.parity):
        parity = scientific(objective.parity)
        return f"{values} in {precision} (relative gap to the loss as trained: {parity})"
    return f"{values} in {precision}"


def precision(report: Outcome) -> str:
    """How far the gradients that train are from float64; `""` where nothing is known of that."""
    known = [layer for layer in report.layers if not math.isnan(layer.precision_error)]
    if not known:
        return ""
    ranked = sorted(known, key=lambda layer: layer.precision_error, reverse=True)
    imprecise = [layer for layer in ranked if layer.path in report.imprecise_layers]
    shown = imprecise[:_MOST_IMPRECISE] or ranked[:1]
    named = ", ".join(f"{layer.path} ({scientific(layer.precision_error)})" for layer in shown)
    if len(imprecise) > len(shown):
        named += f" and {plural(len(imprecise) - len(shown), 'more layer')}"
    trained = report.objective.trained_precision or "training"
    above = limit(report.settings.precision)
    if imprecise:
        return f"the gradients in {trained} are further than {above} from float64 for {named}"
    return f"the gradients in {trained} are near those in float64, within {above}; worst: {named}"


_MOST_IMPRECISE = 4


def bands(thresholds: Thresholds) -> tuple[tuple[str, str, str], ...]:
    """The bands of the score, best first: (kind, range, meaning)."""
    great, okay, concerning = map(limit, (thresholds.great, thresholds.okay, thresholds.concerning))
    return (
        ("great", f"up to {great}", "the gradients are the same"),
        ("okay", f"up to {okay}", "basically the same; worth a second look"),
        ("suspect", f"{okay} to {concerning}", "too far apart to pass, too close to be sure"),
        ("fail", f"from {concerning}", "concerning: most likely a bug in the backward pass"),
    )


def threshold_words(thresholds: Thresholds) -> str:
    """The thresholds in one line."""
    return (
        f"great ≤ {limit(thresholds.great)}, okay ≤ {limit(thresholds.okay)} (passes), "
        f"concerning ≥ {limit(thresholds.concerning)} (fails)"
    )
