"""A culprit that a unit test may be made of, when it is first asked for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tfcheck.errors import ReproductionError, first_line
from tfcheck.report.reproduction import Reproduction
from tfcheck.reproduce.evidence import Evidence
from tfcheck.reproduce.trial import Check, reproduced


@dataclass(frozen=True, eq=False)
class Case:
    """Evidence, and the check that must fail on it.

    Attributes:
        evidence: what is known of the culprit.
        check: checks a call of a layer by itself.
    """

    evidence: Evidence
    check: Check

    @property
    def culprit(self) -> str:
        """The culprit's path."""
        return self.evidence.culprit

    @property
    def refusal(self) -> str:
        """Why no test of its own can be made of it; `""` where that is not known."""
        return self.evidence.refusal

    @cached_property
    def outcome(self) -> Reproduction | ReproductionError:
        """A test that fails; what speaks against one where there is none."""
        if self.refusal:
            return ReproductionError(self.refusal)
        try:
            return reproduced(self.evidence, self.check)
        except ReproductionError as error:
            return error
        except Exception as error:  # noqa: BLE001 - nothing that goes on depends on a test
            return ReproductionError(
                f"There is no test of {self.culprit}, by a mistake in tfcheck "
                f"({type(error).__name__}: {first_line(error)}). Please report it."
            )

    @property
    def is_spent(self) -> bool:
        """Whether a test was tried out in vain: then what another check has may do better."""
        return isinstance(vars(self).get("outcome"), ReproductionError)

    def save(self, folder: str | Path) -> Path:
        """Write the test into a folder, and return its path.

        Raises:
            ReproductionError: if there is none, or it cannot be written.
        """
        if isinstance(self.outcome, ReproductionError):
            raise self.outcome
        return self.outcome.save(folder)
