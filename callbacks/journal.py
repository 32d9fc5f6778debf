"""The reports of a training: kept, and logged where there is a log."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from tfcheck.callbacks.course import Course
from tfcheck.callbacks.naming import FIRST
from tfcheck.gradient_report import GradientReport

if TYPE_CHECKING:
    from tfcheck.callbacks.own_tracking import OwnTracking
    from tfcheck.tracking import MlflowTracking

Log: TypeAlias = "MlflowTracking | OwnTracking"


class Journal:
    """The reports of one training.

    Args:
        name: what the checks are called; None for what the log calls them.

    Attributes:
        reports: the reports so far, oldest first.
        log: where they are logged; None for nowhere.
    """

    def __init__(self, name: str | None) -> None:
        self.reports: tuple[GradientReport, ...] = ()
        self.log: Log | None = None
        self._name = name
        self._counting_told = False

    def note(self, report: GradientReport, course: Course) -> GradientReport:
        """Keep a report, with what is known of the training besides, and log it.

        Returns:
            The report as it is kept.
        """
        notes = report.notes
        if course.count.note and not self._counting_told:
            self._counting_told = True
            notes = (*notes, course.count.note)
        name = self._name or FIRST if self.log is None else self.log.name
        report = replace(report, epoch=course.epoch, notes=notes, name=name)
        self.reports = (*self.reports, report)
        if self.log is not None:
            self.log.log(self.reports)
        return report

    def close(self, status: str = "FINISHED", last_step: int | None = None) -> None:
        """Close the log.

        Args:
            status: MLflow's word for how training ended. Defaults to `"FINISHED"`.
            last_step: optimizer iterations at the end. Defaults to None, for not known.
        """
        if self.log is not None:
            self.log.close(status, last_step=last_step)
