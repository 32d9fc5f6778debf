"""`assert_gradients`: a gradient check that raises unless it passes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tfcheck.errors import ArgumentError, GradientCheckFailed, TfcheckError, rule
from tfcheck.testing.options import ALLOWED, project_defaults, require_allowed
from tfcheck.testing.running import running_test

if TYPE_CHECKING:
    import keras

    from tfcheck.gradient_report import GradientReport


def assert_gradients(
    model_or_layer: keras.Layer,
    *inputs: Any,
    allow: str | Sequence[str] | None = None,
    **options: Any,
) -> GradientReport:
    """Check the gradients of a model or a layer, and raise unless they pass.

    A model that is compiled, or that is given targets or a `loss_fn`, is checked as by
    `tfcheck.check_gradients`; a layer, and any other model, as by `tfcheck.check_layer`.

    Args:
        model_or_layer: what to check.
        inputs: the batch of a model (`x`, `y`, `sample_weight`), or the inputs of a layer.
        allow: verdicts to let through besides `"pass"`: `"suspect"`, `"inconclusive"`, or both.
            Defaults to none.
        options: those of the check. Their defaults are the options of the test's marker
            `gradients`, then those of `[tool.tfcheck]` in the nearest `pyproject.toml`. No
            progress is shown unless `verbose=1`.

    Returns:
        The report.

    Raises (all from `tfcheck.errors`):
        GradientCheckFailed: if the verdict is not let through. It is an `AssertionError`, its
            message shows the rows that do not pass, and its `report` holds all.
        ArgumentError: for an option or a verdict that tfcheck does not know.
        TfcheckError: as the check does, where it cannot be made.

    Example:
        >>> assert_gradients(MyLayer(), x)  # doctest: +SKIP
        >>> assert_gradients(model, x, y, allow="inconclusive")  # doctest: +SKIP
    """
    __tracebackhide__ = True
    test = running_test()
    given = {"verbose": 0, **project_defaults(test.folder), **test.options(), **options}
    if allow is not None:
        given["allow"] = allow
    allowed = require_allowed(given.pop("allow", ()))
    try:
        report = _checked(model_or_layer, inputs, given)
    except TfcheckError as error:
        # The sentence says all; where in tfcheck it was found tells a reader nothing.
        raise error.with_traceback(None) from error.__cause__
    test.note(report)
    if report.verdict not in ("pass", *allowed):
        raise GradientCheckFailed(_message(report), report)
    return report


def _checked(
    subject: keras.Layer, inputs: tuple[Any, ...], options: dict[str, Any]
) -> GradientReport:
    from tfcheck.check import check_gradients, check_layer

    is_model = _is_model_to_train(subject, inputs, options)
    check: Callable[..., GradientReport] = check_gradients if is_model else check_layer
    known = [p.name for p in inspect.signature(check).parameters.values()][1:]
    for name in options:
        if name not in known:
            what = "A check of a model" if is_model else "A check of a layer"
            remedy = f"Choose from {', '.join(known)}"
            raise ArgumentError(rule(f"{what} has no such option", "option", name, remedy))
    return check(subject, *inputs, **options)


def _is_model_to_train(
    subject: keras.Layer, inputs: tuple[Any, ...], options: dict[str, Any]
) -> bool:
    import keras

    if not isinstance(subject, keras.Model):
        return False
    names = ("x", "y", "sample_weight", "loss_fn")
    return subject.compiled or len(inputs) > 1 or any(name in options for name in names)


def _message(report: GradientReport) -> str:
    from tfcheck.rendering.console import failure_text

    text = failure_text(report)
    if report.verdict in ALLOWED:
        text += f'\n\n  To let it through: allow="{report.verdict}"'
    return text
