"""What a training's gradient checks are handed to, besides MLflow: three methods."""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias

from tfcheck.gradient_report import GradientReport
from tfcheck.settings import Settings

Status: TypeAlias = Literal["finished", "failed", "interrupted"]


class Tracking(Protocol):
    """Where the gradient checks of a training go: `GradientCheck(..., tracking=...)` takes one.

    All calls come from the thread that trains, between two steps, so training waits while they
    last. Nothing that they raise harms it: an exception is a `GradientCheckWarning`, and the next
    call is made all the same.

    For each training there is one `begin`, a `report` for every check, and one `end`. Several
    trainings, of one callback or of several that share the object, are one after another.
    """

    def begin(self, settings: Settings, model: str) -> None:
        """A training begins: called by `fit` before the first check.

        Args:
            settings: the options of the checks.
            model: the model's name.
        """

    def report(self, report: GradientReport) -> None:
        """A check is done, right after it.

        A check that could not be made has a report, too, with the verdict `"error"` and the reason
        in `report.error`.

        Args:
            report: what was found; `report.step`, `report.epoch`, `report.checkpoint` and
                `report.name` say when, and by which callback.
        """

    def end(self, status: Status) -> None:
        """A training has ended, once for each `begin`.

        Args:
            status: `"finished"` where `fit` returns, also after `on_fail="stop"`; `"failed"` where
                an error ended it, also that of `on_fail="raise"`; `"interrupted"` after Ctrl-C.

        What a check raises, and Ctrl-C during one, is told at once. Keras tells no callback of an
        error or a Ctrl-C between checks: then `end` comes when the callback begins another
        training, when it is forgotten, or when Python ends, whichever is first.
        """
