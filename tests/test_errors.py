from __future__ import annotations

import inspect
import pickle

import pytest

from tfcheck import errors

ERRORS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]


@pytest.mark.parametrize("kind", ERRORS)
def test_one_root(kind: type[Exception]) -> None:
    """`except TfcheckError` catches everything tfcheck raises on purpose."""
    assert issubclass(kind, errors.TfcheckError)


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.ArgumentError, ValueError),
        (errors.ArgumentTypeError, TypeError),
        (errors.BackendError, RuntimeError),
        (errors.ModelError, ValueError),
        (errors.BatchError, ValueError),
        (errors.TraceError, RuntimeError),
        (errors.ParityError, RuntimeError),
        (errors.ReportError, ValueError),
        (errors.GradientCheckFailed, AssertionError),
    ],
)
def test_errors_are_also_the_builtin_ones(kind: type[Exception], builtin: type[Exception]) -> None:
    """Whoever catches Python's own error for a situation catches tfcheck's too."""
    with pytest.raises(builtin, match="the message"):
        raise kind("the message")


def test_only_a_failed_check_is_an_assertion_error() -> None:
    """A check that could not be made is not mistaken for one that failed."""
    assert [kind for kind in ERRORS if issubclass(kind, AssertionError)] == [
        errors.GradientCheckFailed
    ]


def test_a_failed_check_carries_its_report() -> None:
    """Whoever catches `GradientCheckFailed` gets the message and the whole report."""
    report = object()
    failure = errors.GradientCheckFailed("dense/kernel is wrong", report)
    assert str(failure) == "dense/kernel is wrong"
    assert failure.report is report
    assert errors.GradientCheckFailed("no report at hand").report is None


def test_a_failed_check_travels_between_processes() -> None:
    """`GradientCheckFailed` keeps message and report when pickled, as parallel test runs do."""
    copied = pickle.loads(pickle.dumps(errors.GradientCheckFailed("wrong", {"score": 0.5})))
    assert (str(copied), copied.report) == ("wrong", {"score": 0.5})


def test_rule_form() -> None:
    """A message says the rule, the received value as Python shows it, and the remedy."""
    message = errors.rule("epsilon must be positive", "epsilon", -1.0, "Give 'auto' or a number")
    assert message == ("epsilon must be positive. Received: epsilon=-1.0. Give 'auto' or a number.")
    assert "method='all'." in errors.rule("Known methods only", "method", "all", "Choose one")
