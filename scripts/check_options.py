"""The options of a check on the command line, and the settings that they make."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

from tfcheck import settings as allowed
from tfcheck.errors import ArgumentError
from tfcheck.judge.verdict import Thresholds
from tfcheck.pyproject import BANDS
from tfcheck.settings import Settings

_DEFAULTS = Settings()


def checked_type(
    check: Callable[[Any], Any], convert: Callable[[str], Any]
) -> Callable[[str], Any]:
    """A type for click: what is written is converted, if it can be, and then checked.

    Args:
        check: returns the value, or raises an `ArgumentError`.
        convert: makes a value of what is written, or raises a `ValueError`.
    """

    def take(text: str) -> Any:
        try:
            value: Any = convert(text)
        except ValueError:
            value = text
        try:
            return check(value)
        except ArgumentError as error:
            raise click.BadParameter(str(error)) from error

    return take


_epsilon = checked_type(allowed.step, float)
_memory_limit = checked_type(allowed.memory, int)
_time_limit = checked_type(allowed.duration, float)

_OPTIONS = (
    click.option(
        "--phase",
        type=click.Choice(["train", "inference"]),
        default=_DEFAULTS.phase,
        show_default=True,
        help="Differentiate the training step, or the loss at inference.",
    ),
    click.option(
        "--method",
        type=click.Choice(["directions", "full"]),
        default=_DEFAULTS.method,
        show_default=True,
        help="Random directions, or every entry (slow).",
    ),
    click.option(
        "--directions",
        type=click.IntRange(1, allowed.MOST_DIRECTIONS),
        metavar="N",
        default=_DEFAULTS.directions,
        show_default=True,
        help="Random directions a variable.",
    ),
    click.option(
        "--epsilon",
        type=_epsilon,
        metavar="NUMBER|auto",
        default=_DEFAULTS.epsilon,
        show_default=True,
        help="Step of the differences.",
    ),
    click.option(
        "--great",
        type=float,
        metavar="SCORE",
        default=_DEFAULTS.thresholds.great,
        show_default=True,
        help="Up to here the gradients are the same.",
    ),
    click.option(
        "--okay",
        type=float,
        metavar="SCORE",
        default=_DEFAULTS.thresholds.okay,
        show_default=True,
        help="Up to here they pass; above, they are suspect.",
    ),
    click.option(
        "--concerning",
        type=float,
        metavar="SCORE",
        default=_DEFAULTS.thresholds.concerning,
        show_default=True,
        help="From here on they fail.",
    ),
    click.option(
        "--expected-mismatch",
        multiple=True,
        metavar="PATTERN",
        help="Variables or layers whose gradient is meant to differ, such as 'gate/*'. Repeatable.",
    ),
    click.option(
        "--seed",
        type=click.IntRange(0, allowed.LARGEST_SEED),
        metavar="N",
        default=_DEFAULTS.seed,
        show_default=True,
        help="Seeds the directions and a function's weights.",
    ),
    click.option(
        "--precision",
        type=float,
        metavar="SCORE",
        default=_DEFAULTS.precision,
        show_default=True,
        help="Name layers whose gradients in training are further than this from float64.",
    ),
    click.option(
        "--dropout",
        type=click.Choice(allowed.DROPOUT),
        default=_DEFAULTS.dropout,
        show_default=True,
        help="Silence dropout, or leave it on with its masks held fixed.",
    ),
    click.option(
        "--memory-limit",
        type=_memory_limit,
        metavar="SIZE|auto",
        default=_DEFAULTS.memory_limit,
        show_default=True,
        help="Memory for measuring, such as 2GB; auto is a quarter of what is free.",
    ),
    click.option(
        "--time-limit",
        type=_time_limit,
        metavar="DURATION",
        default=_DEFAULTS.time_limit,
        help="End then with what is known: seconds, or 500ms, 30s, 2m, 1h.  [default: no limit]",
    ),
)


def check_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of a check."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def settings_from(given: Mapping[str, Any]) -> Settings:
    """The settings that the options make.

    Args:
        given: the values of all options, by name. Others among them stand aside.

    Raises:
        ArgumentError: for a value that is out of range.
    """
    names = (
        *("phase", "method", "directions", "epsilon", "expected_mismatch", "seed"),
        *("precision", "dropout", "memory_limit", "time_limit"),
    )
    thresholds = Thresholds(**{band: given[band] for band in BANDS})
    return allowed.make_settings(thresholds=thresholds, **{name: given[name] for name in names})
