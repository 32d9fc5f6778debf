"""`GradientReport`: an outcome that prints, saves, loads, and becomes a table or a unit test."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfcheck.errors import ReportError, ReproductionError
from tfcheck.report.outcome import Outcome
from tfcheck.report.reproduction import Reproduction
from tfcheck.report.rows import VariableReport
from tfcheck.report.serial import REPORT_SCHEMA, fields_from, plain

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure


class GradientReport(Outcome):  # noqa: D101 - what it is, and holds, is what an outcome is
    __doc__ = Outcome.__doc__

    @property
    def reproduction(self) -> Reproduction | None:
        """A unit test of the first culprit that one can be made of; None where there is none.

        It fails as long as the layer is wrong, on what the layer was given when the check found
        it, and passes when it is mended. It is made, and tried out, when it is first asked for.
        """
        return next(iter(self.reproductions), None)

    @property
    def reproductions(self) -> tuple[Reproduction, ...]:
        """The same for all culprits."""
        return tuple(
            one.outcome for one in self.evidence if not isinstance(one.outcome, ReproductionError)
        )

    def reproduce(self, folder: str | Path) -> tuple[Path, ...]:
        """Write a unit test of each culprit that one can be made of: a pytest file and an npz.

        Args:
            folder: where to write them. It is made if it is not there.

        Returns:
            The paths of the tests, at least one.

        Raises:
            ReproductionError: if there is none, which says why; or if it cannot be written.
        """
        reproductions = self.reproductions
        if not reproductions:
            reasons = [str(one.outcome) for one in self.evidence]
            raise ReproductionError(" ".join(reasons) or self._without_evidence())
        return tuple(reproduction.save(folder) for reproduction in reproductions)

    def _without_evidence(self) -> str:
        received = f"Received: a report with verdict {str(self.verdict)!r} and"
        if not self.culprits:
            return f"A test is of a culprit. {received} no culprit. There is nothing to reproduce."
        return (
            "A test is made of what its layer was given, which is in no report that was read from "
            f"a file, or that had no time for it. {received} culprits {self.culprits} alone. "
            "Check again."
        )

    def to_dict(self) -> dict[str, Any]:
        """The report as plain dictionaries, lists, numbers and strings, ready for JSON.

        Non-finite numbers become the strings `"nan"`, `"inf"` and `"-inf"`, which strict JSON
        parsers accept.
        """
        return {"schema": REPORT_SCHEMA, **plain(self)}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> GradientReport:
        """Rebuild a report from `to_dict`'s output.

        Raises:
            ReportError: if the content is not a report, or of an unknown schema.
        """
        if not isinstance(content, dict) or content.get("schema") != REPORT_SCHEMA:
            schema = content.get("schema") if isinstance(content, dict) else type(content).__name__
            raise ReportError(
                f"A tfcheck report has schema {REPORT_SCHEMA}. Received: schema={schema!r}. "
                "Read it with the version of tfcheck that wrote it, or make a new report."
            )
        try:
            return cls(**fields_from(content))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ReportError(
                f"A tfcheck report must hold every field of its schema. Received: "
                f"{type(error).__name__}: {error}. Make a new report."
            ) from error

    def save(self, path: str | Path) -> Path:
        """Write the report as JSON and return the path written."""
        path = Path(path)
        path.write_text(json.dumps(self.to_dict(), indent=1, allow_nan=False), encoding="utf-8")
        return path

    @classmethod
    def load(cls, path: str | Path) -> GradientReport:
        """Read a report that `save` wrote.

        Raises:
            ReportError: if the file is missing, or is not a report.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ReportError(
                f"A report must be a readable JSON file. Received: path={str(path)!r} "
                f"({type(error).__name__}). Give a file that GradientReport.save wrote."
            ) from error
        return cls.from_dict(content)

    def to_dataframe(self) -> pandas.DataFrame:
        """One row a variable, in model order, with the fields of `VariableReport`."""
        import pandas

        left_out = ("worst", "slopes", "curves")
        columns = [f.name for f in dataclasses.fields(VariableReport) if f.name not in left_out]
        rows = [[getattr(variable, column) for column in columns] for variable in self.variables]
        frame = pandas.DataFrame(rows, columns=columns)
        frame["verdict"] = frame["verdict"].map(str)
        return frame

    def plot(self, variable: str | None = None) -> Figure:
        """Draw what the check measured of variables along one direction, a row a variable.

        The loss along the direction in which the two gradients differ most, with the true tangent
        and that of the tape; and of the first one, the score that a right gradient gets by one
        central difference, by its step, in float64 and in the precision that trains.

        Args:
            variable: the path of a variable, or the end of its path. Defaults to None, for all
                that there are pictures of: the first wrong ones, at most three.

        Returns:
            A `matplotlib.figure.Figure`, which a notebook shows.

        Raises:
            ArgumentError: if the report has no picture of that; `variable.curves` says of which
                there is one.

        Example:
            >>> report.plot("hidden/kernel").savefig("kernel.png")  # doctest: +SKIP
        """
        from tfcheck.rendering.figure import figure_of

        return figure_of(self, variable)

    def __str__(self) -> str:
        from tfcheck.rendering.console import report_text

        return report_text(self)

    def _repr_html_(self) -> str:
        from tfcheck.rendering.html import report_fragment

        return report_fragment(self)
