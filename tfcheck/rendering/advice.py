"""What to do next, in plain words, from what a report found."""

from __future__ import annotations

from tfcheck.rendering.words import shortened
from tfcheck.report import GradientReport, LayerReport, VariableReport
from tfcheck.verdict import Verdict


def advice(report: GradientReport) -> tuple[str, ...]:
    """What a reader should do about a report, the most useful first.

    Args:
        report: the outcome of a check.

    Returns:
        Sentences with names in backticks; none where everything passes.
    """
    match report.verdict:
        case Verdict.FAIL:
            return _on_failure(report)
        case Verdict.SUSPECT:
            look_again = (
                f"Look again at {_names(_with(report, Verdict.SUSPECT))}: check with more "
                "directions, another seed or another batch. A bug keeps its score, an unlucky "
                "point does not."
            )
            return (look_again,)
        case Verdict.INCONCLUSIVE:
            neither = (
                "This is neither a pass nor a failure: the loss did not allow a measurement. The "
                "reason stands beside each variable. A larger batch or a later checkpoint often "
                "makes the gradient measurable."
            )
            return (neither,)
        case Verdict.ERROR:
            return ("Read the error above: it says what was received and what to change.",)
        case _:
            return ()


def _on_failure(report: GradientReport) -> tuple[str, ...]:
    failing = _with(report, Verdict.FAIL)
    steps = [_where_to_start(report)]
    blocked = [variable for variable in failing if variable.reason == "blocked"]
    if blocked:
        steps.append(
            f"The tape gives no gradient for {_names(blocked)}, yet the loss depends on it. Look "
            "for a NumPy call, a cast to integers, an argmax or a stop_gradient on the way to "
            "the loss."
        )
    non_finite = [variable for variable in failing if variable.reason == "non_finite"]
    if non_finite:
        steps.append(
            f"There is NaN or infinity at {_names(non_finite)}. Look for a log or a division at "
            "zero, a square root at zero, or an overflow."
        )
    first = report.culprits or report.failing_layers[-1:]
    # Only there: before the origin of a wrong gradient, what fails says nothing of the layer.
    split = next((x for x in report.layers if x.path in first and _only_some_fail(x)), None)
    if split is not None:
        wrong = [variable for variable in split.variables if variable in failing]
        right = [v for v in split.variables if v.verdict is Verdict.PASS and not v.reason]
        steps.append(
            f"In `{_short(split.path)}` only {_names(wrong, own=True)} is wrong while "
            f"{_names(right, own=True)} is right: the mistake is in the formula of that one "
            "derivative, not in what flows through the layer."
        )
    if any(variable.worst for variable in failing):
        steps.append(
            "Compare the worst coordinates: a constant ratio is a forgotten factor, a ratio of −1 "
            "a wrong sign, an analytic zero a gradient that never arrives."
        )
    if non_finite != failing:
        steps.append(
            "If a mismatch is intended (straight-through estimator, gradient reversal), declare it "
            'with `expected_mismatch=["layer/variable"]` and it no longer counts.'
        )
    return tuple(steps)


def _where_to_start(report: GradientReport) -> str:
    if report.culprits:
        culprits = ", ".join(f"`{_short(path)}`" for path in report.culprits)
        one = len(report.culprits) == 1
        return (
            f"Start with {culprits}: checked alone, {'its' if one else 'their'} backward pass "
            f"does not match {'its' if one else 'their'} forward pass. Other failing layers may "
            "only receive a gradient that was already wrong."
        )
    layers = report.failing_layers
    nearest = f", here `{_short(layers[-1])}`" if layers else ""
    return (
        f"Start with the failing layer nearest to the loss{nearest}: the mistake is in it or "
        "between it and the loss (a layer without variables, the loss, train_step). The layers "
        "before it may only receive a gradient that was already wrong."
    )


def _only_some_fail(layer: LayerReport) -> bool:
    found = {(v.verdict, v.reason) for v in layer.variables if v.counts}
    # A pass for a reason of its own, such as no influence on the loss, is not the opposite.
    return (Verdict.PASS, "") in found and any(verdict is Verdict.FAIL for verdict, _ in found)


def _with(report: GradientReport, verdict: Verdict) -> list[VariableReport]:
    return [v for v in report.worst_first if v.counts and v.verdict is verdict]


def _names(variables: list[VariableReport], own: bool = False, most: int = 3) -> str:
    names = [f"`{_short(variable.name if own else variable.path)}`" for variable in variables]
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return " and ".join(names)


def _short(path: str) -> str:
    return shortened(path, 40)
