"""A log of the user's own: the object behind `tracking=`, kept from harming the training."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from tfcheck.callbacks.naming import FIRST
from tfcheck.callbacks.telling import warn
from tfcheck.errors import ArgumentError, first_line, rule
from tfcheck.gradient_report import GradientReport
from tfcheck.settings import Settings

if TYPE_CHECKING:
    from tfcheck.tracking.protocol import Status, Tracking

_METHODS = ("begin", "report", "end")

_STATUS: dict[str, Status] = {
    "FINISHED": "finished",
    "FAILED": "failed",
    "KILLED": "interrupted",
}
"""MLflow's words for how a training ended, and those of `Tracking`."""


def require_tracking(tracking: Any) -> None:
    """Raise an `ArgumentError` unless this is `"mlflow"`, None, or an object with the methods."""
    if tracking is None or (isinstance(tracking, str) and tracking == "mlflow"):
        return
    complete = all(callable(getattr(tracking, method, None)) for method in _METHODS)
    if isinstance(tracking, type) or not complete:
        raise ArgumentError(
            rule(
                'tracking must be "mlflow", None, or an object with the methods begin, report and '
                "end",
                "tracking",
                tracking,
                "See tfcheck.tracking.Tracking",
            )
        )


class OwnTracking:
    """Hands the checks of a training to an object of the user's.

    Whatever it raises is a warning. A training that nobody ends is ended when this is forgotten,
    or when Python ends.

    Args:
        tracking: the object.
        name: what the checks are called. Defaults to `"gradcheck"`.
    """

    def __init__(self, tracking: Tracking, name: str | None = None) -> None:
        self.name = name or FIRST
        self._tracking = tracking
        self._handed = 0
        self._abandoned: weakref.finalize[..., OwnTracking] | None = None

    def start(self, settings: Settings, model: str) -> None:
        """Begin a training, and end the one before it if nobody has."""
        if self._take_end():
            _end_abandoned(self._tracking)
        self._handed = 0
        self._abandoned = weakref.finalize(self, _end_abandoned, self._tracking)
        _guarded("begin", lambda: self._tracking.begin(settings, model))

    def log(self, reports: Sequence[GradientReport]) -> None:
        """Hand over the reports that are new.

        Args:
            reports: every report of this training so far, oldest first.
        """
        for report in reports[self._handed :]:
            self._handed += 1
            try:
                _guarded("report", partial(self._tracking.report, report))
            except KeyboardInterrupt:  # Keras will not call `on_train_end`
                self.close("KILLED")
                raise

    def close(self, status: str = "FINISHED", last_step: int | None = None) -> None:
        """End the training, if it is not ended yet.

        Args:
            status: MLflow's word for how it ended.
            last_step: optimizer iterations at the end, of which such an object is not told.
        """
        del last_step
        if self._take_end():
            _end(self._tracking, _STATUS[status])

    def _take_end(self) -> bool:
        """Whether a training has begun that nobody has ended; then it is for the caller to do."""
        return self._abandoned is not None and self._abandoned.detach() is not None


def _end_abandoned(tracking: Tracking) -> None:
    """End a training that broke off without a word."""
    interrupted = getattr(sys, "last_type", None) is KeyboardInterrupt
    _end(tracking, "interrupted" if interrupted else "failed")


def _end(tracking: Tracking, status: Status) -> None:
    _guarded("end", lambda: tracking.end(status))


def _guarded(method: str, call: Callable[[], None]) -> None:
    """Training goes on whatever happens to its records."""
    try:
        call()
    except Exception as error:  # noqa: BLE001 - said, and training goes on
        said = f"{type(error).__name__}: {first_line(error)}"
        warn(f"`{method}` of the object given as tracking raised {said}. Training goes on.")
