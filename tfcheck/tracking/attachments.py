"""Unit tests of culprits, as files of the checks that found them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tfcheck.gradient_report import GradientReport
from tfcheck.report.reproduction import Reproduction

MOST_BYTES = 10_000_000
"""So much a check sends of them; what is larger stays with the report."""


def attachments(report: GradientReport, sent: Sequence[GradientReport] = ()) -> dict[str, bytes]:
    """The files of a check's unit tests, by their names.

    Args:
        report: the report of the check.
        sent: reports of which they were sent before: what they know of a culprit is not sent again.
            Defaults to none.
    """
    before = {id(evidence) for other in sent for evidence in other.evidence}
    fresh = [evidence for evidence in report.evidence if id(evidence) not in before]
    found: dict[str, bytes] = {}
    room = MOST_BYTES
    for evidence in fresh:
        reproduction = evidence.outcome
        if isinstance(reproduction, Reproduction) and reproduction.size <= room:
            room -= reproduction.size
            found |= dict(_files(reproduction))
    return found


def _files(reproduction: Reproduction) -> Iterator[tuple[str, bytes]]:
    # Whoever gets them from MLflow has the modules elsewhere, or not in a folder at all.
    yield reproduction.test_file, reproduction.test().encode()
    yield reproduction.inputs_file, reproduction.arrays
