"""What to do next, in plain words, from what a report found."""

from __future__ import annotations

import math

from tfcheck.judge.reasons import OF_THE_STEP, Reason
from tfcheck.judge.verdict import Verdict
from tfcheck.rendering.words import shortened
from tfcheck.report.outcome import Outcome
from tfcheck.report.rows import LayerReport, VariableReport


def advice(report: Outcome) -> tuple[str, ...]:
    """What a reader should do about a report, the most useful first.

    Args:
        report: the outcome of a check.

    Returns:
        Sentences with names in backticks; none where everything passes.
    """
    return (*_on_verdict(report), *_on_untracked(report), *_on_precision(report))


def _on_verdict(report: Outcome) -> tuple[str, ...]:
    match report.verdict:
        case Verdict.FAIL:
            return (*_on_failure(report), *_on_the_step(report))
        case Verdict.SUSPECT:
            return (*_on_suspicion(report), *_on_the_step(report))
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


def _on_the_step(report: Outcome) -> tuple[str, ...]:
    """What to do about what the step does with right gradients."""
    wrong = [v for v in report.variables if v.counts and v.verdict in _WRONG]
    if all(variable.reason not in OF_THE_STEP for variable in wrong):
        return ()
    if all(variable.reason in OF_THE_STEP for variable in wrong):
        return (f"{_IN_THE_STEP}: the derivatives themselves are right. {_BESIDE}",)
    return (f"{_IN_THE_STEP}. {_BESIDE}",)


def _on_untracked(report: Outcome) -> tuple[str, ...]:
    found = [variable for variable in report.variables if variable.reason == Reason.UNTRACKED]
    if not found:
        return ()
    layers = _some([f"`{_short(path)}`" for path in dict.fromkeys(v.layer for v in found)])
    keep = (
        f"Weights that are none of the model's are used in {layers}. Keep the layer that owns them "
        "in an attribute of a layer or of the model, where Keras looks for weights, or create them "
        "with `add_weight`."
    )
    return (keep,)


_FOR_A_TEST = (
    'For a unit test that fails until it is mended, call `report.reproduce("tests")` on this '
    "report, or run `tfcheck audit` with `--reproduce tests`."
)


_WRONG = (Verdict.FAIL, Verdict.SUSPECT)
_IN_THE_STEP = "Look at what the training step does with its loss and its gradients"
_BESIDE = "What was found stands beside each variable."


def _on_suspicion(report: Outcome) -> tuple[str, ...]:
    of_others = (*OF_THE_STEP, Reason.UNTRACKED)
    suspects = [v for v in _with(report, Verdict.SUSPECT) if v.reason not in of_others]
    in_between = [v for v in suspects if v.score > report.settings.thresholds.okay]
    steps = [_at_the_culprits(report)] if len(in_between) < len(suspects) else []
    if in_between:
        steps.append(
            f"Look again at {_names(in_between)}: check with more directions, another seed or "
            "another batch. A bug keeps its score, an unlucky point does not."
        )
    return tuple(filter(None, steps))


def _on_failure(report: Outcome) -> tuple[str, ...]:
    compiled = [v for v in _with(report, Verdict.FAIL) if v.reason == Reason.COMPILED]
    of_others = (*OF_THE_STEP, Reason.COMPILED)
    failing = [v for v in _with(report, Verdict.FAIL) if v.reason not in of_others]
    steps = (
        _where_to_start(report) if failing else "",
        _on_a_test(report) if failing else "",
        _on_compiled(compiled) if compiled else "",
        _on_blocked([v for v in failing if v.reason == Reason.BLOCKED]),
        _on_non_finite([v for v in failing if v.reason == Reason.NON_FINITE]),
        _on_one_formula(report, failing),
        _on_coordinates(failing),
        _on_intention(failing),
    )
    return tuple(filter(None, steps))


def _on_a_test(report: Outcome) -> str:
    # A layer that is checked alone stands in a test, more often than not.
    if report.objective.source == "layer":
        return ""
    return _FOR_A_TEST if any(not evidence.refusal for evidence in report.evidence) else ""


def _on_blocked(blocked: list[VariableReport]) -> str:
    if not blocked:
        return ""
    return (
        f"Replace what blocks the gradient of {_names(blocked)} by what has a slope: a softmax "
        "for an argmax, a float for an integer, TensorFlow for NumPy."
    )


def _on_non_finite(non_finite: list[VariableReport]) -> str:
    if not non_finite:
        return ""
    return (
        f"There is NaN or infinity at {_names(non_finite)}. Look for a log or a division at "
        "zero, a square root at zero, or an overflow."
    )


def _on_one_formula(report: Outcome, failing: list[VariableReport]) -> str:
    """What it says of a layer that some of its gradients are right."""
    first = report.culprits or report.failing_layers[-1:]
    # Only there: before the origin of a wrong gradient, what fails says nothing of the layer.
    split = next((x for x in report.layers if x.path in first and _only_some_fail(x)), None)
    if split is None:
        return ""
    wrong = [variable for variable in split.variables if variable in failing]
    right = [v for v in split.variables if v.verdict is Verdict.PASS and not v.reason]
    return (
        f"In `{_short(split.path)}` only {_names(wrong, own=True)} is wrong while "
        f"{_names(right, own=True)} is right: the mistake is in the formula of that one "
        "derivative, not in what flows through the layer."
    )


def _on_coordinates(failing: list[VariableReport]) -> str:
    if not any(v.worst and not v.pattern and v.reason != Reason.BLOCKED for v in failing):
        return ""
    return (
        "Compare the worst coordinates: a constant ratio is a forgotten factor, a ratio of −1 "
        "a wrong sign, an analytic zero a gradient that never arrives."
    )


def _on_intention(failing: list[VariableReport]) -> str:
    if all(variable.reason == Reason.NON_FINITE for variable in failing):
        return ""
    return (
        "If a mismatch is intended (straight-through estimator, gradient reversal), declare it "
        'with `expected_mismatch=["layer/variable"]` and it no longer counts.'
    )


def _on_compiled(compiled: list[VariableReport]) -> str:
    return (
        f"Without XLA the gradient of {_names(compiled)} is right: train with "
        "`jit_compile=False`, or find the operation that XLA computes differently, often a "
        "comparison of nearly equal numbers."
    )


def _on_precision(report: Outcome) -> tuple[str, ...]:
    """A remedy for each way in which the training precision loses gradients."""
    lost: dict[str, list[str]] = {}
    for layer in report.layers:
        if layer.path in report.imprecise_layers:
            lost.setdefault(_how_lost(layer), []).append(f"`{_short(layer.path)}`")
    trained = report.objective.trained_precision
    return tuple(
        f"In {trained} the gradient of {_some(lost[how])} {how}: {remedy}"
        for how, remedy in _REMEDIES.items()
        if how in lost
    )


_REMEDIES = {
    "underflows": "scale the loss (`keras.optimizers.LossScaleOptimizer`), or compute what comes "
    'after the layer in float32 (`dtype="float32"`).',
    "overflows": "where the loss is scaled dynamically, the optimizer skips such a step and halves "
    "the scale; elsewhere, make the loss smaller.",
    "is lost in rounding": "look for differences of nearly equal numbers on the way to the loss, "
    'and compute those layers in a higher precision (`dtype="float32"`).',
}


def _how_lost(layer: LayerReport) -> str:
    known = [variable for variable in layer.variables if variable.precision_error > 0]
    if not all(math.isfinite(variable.trained_norm) for variable in known):
        return "overflows"
    trained = math.hypot(*(variable.trained_norm for variable in known))
    right = math.hypot(*(variable.analytic_norm for variable in known))
    return "underflows" if trained < _UNDERFLOWN * right else "is lost in rounding"


_UNDERFLOWN = 0.8
"""Rounding makes a gradient longer, or leaves its length; underflow shortens it."""


def _where_to_start(report: Outcome) -> str:
    if report.culprits:
        return _at_the_culprits(report)
    if report.objective.source == "layer":
        return "The mistake is in this layer: nothing else was differentiated."
    layers = report.failing_layers
    nearest = f", here `{_short(layers[-1])}`" if layers else ""
    return (
        f"Start with the failing layer nearest to the loss{nearest}: the mistake is in it or "
        "between it and the loss (a layer without variables, the loss, train_step). The layers "
        "before it may only receive a gradient that was already wrong."
    )


def _at_the_culprits(report: Outcome) -> str:
    """Where a wrong gradient begins, and what that says of the rest; `""` where it is unknown."""
    layers = [path for path in report.culprits if path not in _OUTSIDE]
    if not layers:
        return "".join(
            f"Start with `{path}`: no layer is wrong by itself, so the mistake is in what is "
            "computed outside of them."
            for path in report.culprits[:1]
        )
    its = "its" if len(layers) == 1 else "their"
    start = (
        f"Start with {', '.join(f'`{_short(path)}`' for path in layers)}: checked alone, {its} "
        f"backward pass does not match {its} forward pass."
    )
    if set(report.failing_layers) <= set(layers):
        return start
    return f"{start} Other failing layers may only receive a gradient that was already wrong."


_OUTSIDE = ("loss", "train_step")


def _only_some_fail(layer: LayerReport) -> bool:
    found = {(v.verdict, v.reason) for v in layer.variables if v.counts}
    # A pass for a reason of its own, such as no influence on the loss, is not the opposite.
    return (Verdict.PASS, "") in found and any(verdict is Verdict.FAIL for verdict, _ in found)


def _with(report: Outcome, verdict: Verdict) -> list[VariableReport]:
    return [v for v in report.worst_first if v.counts and v.verdict is verdict]


def _names(variables: list[VariableReport], own: bool = False, most: int = 3) -> str:
    names = [f"`{_short(variable.name if own else variable.path)}`" for variable in variables]
    return _some(names, most)


def _some(names: list[str], most: int = 3) -> str:
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return " and ".join(names)


def _short(path: str) -> str:
    return shortened(path, 40)
